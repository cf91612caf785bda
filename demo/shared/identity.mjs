// Who is asking. The sample has no passwords: a token just names a user. A real
// app would put a signed token here and check it in the backend.

/** `renewal`: counts the tokens that somebody got one after another, as one that runs out is replaced. */
export const tokenOf = (userID, renewal = 0) => (renewal > 0 ? `u:${userID}.${renewal}` : `u:${userID}`);

/** The user that a token names; undefined where it is not one of ours. */
export const userOf = token => /^u:([\w-]+)(?:\.\d+)?$/.exec(token ?? '')?.[1];
