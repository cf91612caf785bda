// What tabs ask, and what Postgres says to that.
import {queries} from '../../demo/shared/queries.mjs';
import {STATUSES} from '../../demo/shared/schema.mjs';
import * as expected from '../e2e/lib/expected.mjs';

const {plain} = expected;

/** A question: the request, and the same in SQL. Questions with equal keys are the same. */
function question(key, request, answer) {
  return {key, request, answer};
}

const lists = {
  status(random) {
    const status = random.pick(STATUSES);
    return [{status}, `i.status = '${status}'`];
  },
  label(random) {
    const label = `l${1 + random.below(8)}`;
    const has = `exists (select from issue_labels x where x.issue_id = i.id and x.label_id = '${label}')`;
    return [{labelID: label}, has];
  },
  urgent(random) {
    const project = `p${1 + random.below(6)}`;
    const order = 'i.priority desc, i.created_at desc';
    return [{projectID: project, order: 'priority'}, `i.project_id = '${project}'`, order];
  },
  updated: () => [{order: 'updated'}, 'true', 'i.updated_at desc'],
  free: () => [{assigneeID: 'none'}, 'i.assignee_id is null'],
};

/** Something that `userID` may ask. */
export function anyQuestion(random, {issues, userID}) {
  switch (random.below(6)) {
    case 0: {
      const limit = 10 + 10 * random.below(5);
      return question(`recent ${limit}`, queries.issue.recent({limit}), sql => expected.recent(sql, limit));
    }
    case 1: {
      const projectID = `p${1 + random.below(6)}`;
      return question(`board ${projectID}`, queries.issue.board({projectID, limit: 20}), sql =>
        expected.board(sql, projectID, 20),
      );
    }
    case 2:
    case 3: {
      const id = random.pick(issues);
      return question(`detail ${id}`, queries.issue.detail({id}), sql => expected.detail(sql, id));
    }
    case 4:
      return question(`mine ${userID}`, queries.issue.mine(), sql => mine(sql, userID));
    default: {
      const kind = random.pick(Object.keys(lists));
      const [args, where, order = 'i.created_at desc'] = lists[kind](random);
      return question(`list ${JSON.stringify(args)}`, queries.issue.list({limit: 25, ...args}), sql =>
        expected.list(sql, where, order, 25),
      );
    }
  }
}

async function mine(sql, userID) {
  const found = await sql`
    select id, title, status, rev from issues where assignee_id = ${userID}
    order by updated_at desc, id collate "C" limit 100`;
  return found.map(row => ({id: row.id, title: row.title, status: row.status, rev: Number(row.rev)}));
}

/** What differs between what a tab holds and what Postgres says; undefined: nothing. */
export function difference(key, held, answer) {
  const [a, b] = [key.startsWith('mine') ? held.map(narrow) : held, answer].map(v => JSON.stringify(sorted(plain(v))));
  if (a === b) return undefined;
  let at = 0;
  while (a[at] === b[at]) at++;
  const around = text => text.slice(Math.max(0, at - 120), at + 120);
  return `${key} holds …${around(a)}… where Postgres says …${around(b)}…`;
}

const narrow = ({id, title, status, rev}) => ({id, title, status, rev});

/** The same value with its fields in order, and without those that are null. */
function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== 'object') return value;
  const fields = Object.entries(value).filter(([, v]) => v !== null);
  return Object.fromEntries(fields.sort(([a], [b]) => (a < b ? -1 : 1)).map(([k, v]) => [k, sorted(v)]));
}
