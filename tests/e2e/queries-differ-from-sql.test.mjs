// A list that the client holds is not the list that SQL gives.
import assert from 'node:assert/strict';
import {test} from 'node:test';
import {queries} from '../../demo/shared/queries.mjs';
import {useApp} from './lib/app.mjs';
import {Client} from './lib/client.mjs';
import * as expected from './lib/expected.mjs';

const app = useApp();
const {plain} = expected;

async function same(request, want) {
  const client = new Client(app);
  const watch = await client.watch(request);
  const rows = await want;
  assert.ok(rows && rows.length !== 0, 'the test compares nothing: SQL gives no rows');
  assert.deepEqual(plain(watch.data), plain(rows));
  await client.close();
}

test('newest issues', () => same(queries.issue.recent({limit: 100}), expected.recent(app.sql, 100)));

test('all issues of a project', () => same(queries.issue.byProject({projectID: 'p3'}), expected.byProject(app.sql, 'p3')));

test('a board: related rows, the newest 50', () =>
  same(queries.issue.board({projectID: 'p5'}), expected.board(app.sql, 'p5')));

test('one issue with comments, authors and labels', () =>
  same(queries.issue.detail({id: 'i0000042'}), expected.detail(app.sql, 'i0000042')));

const LISTS = {
  'by status': [{status: 'in_progress'}, "i.status = 'in_progress'"],
  'by project and assignee': [{projectID: 'p6', assigneeID: 'u7'}, "i.project_id = 'p6' and i.assignee_id = 'u7'"],
  'without assignee': [{assigneeID: 'none'}, 'i.assignee_id is null'],
  'by label': [
    {labelID: 'l3'},
    "exists (select from issue_labels x where x.issue_id = i.id and x.label_id = 'l3')",
  ],
  'by label, status and project, most urgent first': [
    {labelID: 'l8', status: 'open', projectID: 'p1', order: 'priority'},
    `i.status = 'open' and i.project_id = 'p1'
     and exists (select from issue_labels x where x.issue_id = i.id and x.label_id = 'l8')`,
    'i.priority desc, i.created_at desc',
  ],
  'by a word in any case': [{search: 'sAfArI'}, "(i.title ilike '%safari%' or i.body ilike '%safari%')"],
  'by several words': [
    {search: 'search crashes staging'},
    ['search', 'crashes', 'staging'].map(w => `(i.title ilike '%${w}%' or i.body ilike '%${w}%')`).join(' and '),
  ],
  'by a percent sign that means itself': [{search: '100%'}, "position('100%' in i.title) > 0"],
  'by an underscore that means itself': [{search: 'snake_case'}, "position('snake_case' in i.title) > 0"],
  'recently updated': [{order: 'updated'}, 'true', 'i.updated_at desc'],
};

for (const [name, [args, where, order = 'i.created_at desc']] of Object.entries(LISTS)) {
  test(`a list ${name}`, () => same(queries.issue.list({limit: 40, ...args}), expected.list(app.sql, where, order, 40)));
}

test('pages follow one another without gaps or repeats', async () => {
  const client = new Client(app);
  const seen = [];
  let after;
  for (let page = 0; page < 4; page++) {
    const watch = await client.watch(queries.issue.list({projectID: 'p4', order: 'priority', limit: 30, after}));
    assert.equal(watch.data.length, 30);
    seen.push(...watch.data);
    const {id, priority, createdAt} = watch.data.at(-1);
    after = {id, priority, createdAt};
  }
  const want = await expected.list(app.sql, "i.project_id = 'p4'", 'i.priority desc, i.created_at desc', 120);
  assert.deepEqual(plain(seen), plain(want));
});

test('what a query gives depends on who asks', async () => {
  for (const userID of ['u8', 'u9']) {
    const client = new Client(app, {userID});
    const watch = await client.watch(queries.issue.mine());
    const want = await app.sql`
      select id from issues where assignee_id = ${userID} order by updated_at desc, id limit 100`;
    assert.ok(want.length > 0);
    assert.deepEqual(watch.data.map(r => r.id), want.map(r => r.id));
    await client.close();
  }
});

test('a visitor who is not signed in may read', async () => {
  const client = new Client(app, {userID: null});
  const watch = await client.watch(queries.issue.recent({limit: 10}));
  assert.deepEqual(plain(watch.data), plain(await expected.recent(app.sql, 10)));
});

test('a query that the backend refuses is reported, and others go on', async () => {
  const client = new Client(app);
  const good = await client.watch(queries.issue.recent({limit: 5}));
  // Valid for the client, unknown to the backend.
  const {defineQueries, defineQuery} = await import('@rocicorp/zero');
  const {zql} = await import('../../demo/shared/schema.mjs');
  const unknown = defineQueries({nowhere: {to: {befound: defineQuery(() => zql.label)}}});
  await assert.rejects(client.watch(unknown.nowhere.to.befound()), /the query failed/);
  assert.equal(good.type, 'complete');
  assert.equal(client.state, 'connected');
});
