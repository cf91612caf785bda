// Who is asking. The sample has no passwords: a token just names a user. A real
// app would put a signed token here and check it in the backend.

export const tokenOf = userID => `u:${userID}`;

/** The user that a token names; undefined where it is not one of ours. */
export const userOf = token => /^u:([\w-]+)$/.exec(token ?? '')?.[1];
