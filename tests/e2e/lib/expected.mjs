// What queries of the sample app must give, computed by Postgres. Written as SQL
// by hand: it shares nothing with the queries that it judges.

// In numeric until the end, so that microseconds are not rounded twice.
const ms = column => `(extract(epoch from ${column}) * 1000)::float8`;

const ISSUE = `'id', i.id, 'projectID', i.project_id, 'num', i.num, 'title', i.title, 'body', i.body,
  'status', i.status, 'priority', i.priority, 'estimate', i.estimate, 'creatorID', i.creator_id,
  'assigneeID', i.assignee_id, 'meta', i.meta, 'rev', i.rev,
  'createdAt', ${ms('i.created_at')}, 'updatedAt', ${ms('i.updated_at')}`;

const user = (key, alias) => `(select json_build_object('id', ${alias}.id, 'name', ${alias}.name, 'email', ${alias}.email,
  'role', ${alias}.role, 'createdAt', ${ms(`${alias}.created_at`)}) from users ${alias} where ${alias}.id = ${key})`;

const PROJECT = `(select json_build_object('id', p.id, 'key', p.key, 'name', p.name, 'ownerID', p.owner_id,
  'archived', p.archived) from projects p where p.id = i.project_id)`;

const LABELS = `(select coalesce(json_agg(json_build_object('id', l.id, 'name', l.name, 'color', l.color)
  order by l.id collate "C"), '[]') from issue_labels il join labels l on l.id = il.label_id where il.issue_id = i.id)`;

const COMMENTS = `(select coalesce(json_agg(json_build_object('id', c.id, 'issueID', c.issue_id, 'authorID', c.author_id,
  'body', c.body, 'createdAt', ${ms('c.created_at')}, 'author', ${user('c.author_id', 'a')})
  order by c.created_at, c.id collate "C"), '[]') from comments c where c.issue_id = i.id)`;

async function rows(sql, columns, rest, parameters = []) {
  const found = await sql.unsafe(`select json_build_object(${ISSUE}${columns}) as row from issues i ${rest}`, parameters);
  return found.map(r => r.row);
}

export const recent = (sql, limit) => rows(sql, '', `order by i.created_at desc, i.id collate "C" limit ${limit}`);

export const byProject = (sql, projectID) =>
  rows(sql, '', 'where i.project_id = $1 order by i.id collate "C"', [projectID]);

export const board = (sql, projectID, limit = 50) =>
  rows(
    sql,
    `, 'creator', ${user('i.creator_id', 'u')}, 'assignee', ${user('i.assignee_id', 'v')}, 'labels', ${LABELS}`,
    `where i.project_id = $1 order by i.updated_at desc, i.id collate "C" limit ${limit}`,
    [projectID],
  );

export async function detail(sql, id) {
  const found = await rows(
    sql,
    `, 'project', ${PROJECT}, 'creator', ${user('i.creator_id', 'u')}, 'assignee', ${user('i.assignee_id', 'v')},
     'labels', ${LABELS}, 'comments', ${COMMENTS}`,
    'where i.id = $1',
    [id],
  );
  return found[0];
}

/** `where` and `order` are SQL on "i". */
export const list = (sql, where, order, limit = 50) =>
  rows(
    sql,
    `, 'project', ${PROJECT}, 'assignee', ${user('i.assignee_id', 'v')}, 'labels', ${LABELS}`,
    `where ${where} order by ${order}, i.id collate "C" limit ${limit}`,
  );

/** Values as JSON has them: what is missing is null, and nothing else is carried along. */
export function plain(value) {
  if (value === undefined || value === null) return null;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plain(v)]));
  return value;
}
