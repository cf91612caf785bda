// A row is committed upstream, and a client does not get to see it.
import assert from 'node:assert/strict';
import {test} from 'node:test';
import {queries} from '../../demo/shared/queries.mjs';
import {useApp} from './lib/app.mjs';
import {Client} from './lib/client.mjs';
import * as expected from './lib/expected.mjs';

const app = useApp();
const {plain} = expected;
const commit = statement => app.stack.postgres.run(statement);

/** The client's rows become those of SQL, and stay complete. */
async function agrees(watch, want) {
  await watch.sees('the rows that SQL gives', async data => {
    assert.deepEqual(plain(data), plain(await want()));
    return true;
  });
  assert.equal(watch.type, 'complete');
}

test('an update', async () => {
  const watch = await new Client(app).watch(queries.issue.recent({limit: 20}));
  const {id} = watch.data[3];
  await commit(`update issues set title = 'Written with psql', status = 'done', rev = rev + 1 where id = '${id}'`);
  await watch.sees('the new title', rows => rows.find(r => r.id === id)?.title === 'Written with psql');
  await agrees(watch, () => expected.recent(app.sql, 20));
});

test('an insert at the top pushes the last one out of the window', async () => {
  const watch = await new Client(app).watch(queries.issue.recent({limit: 20}));
  const last = watch.data.at(-1).id;
  await commit(`insert into issues (id, project_id, num, title, creator_id) values ('new1', 'p0', 100001, 'Brand new', 'u1')`);
  await watch.sees('the new row', rows => rows[0].id === 'new1');
  assert.ok(!watch.data.some(r => r.id === last));
  await agrees(watch, () => expected.recent(app.sql, 20));
});

test('a delete brings the next one into the window', async () => {
  const watch = await new Client(app).watch(queries.issue.recent({limit: 20}));
  const {id} = watch.data[0];
  await commit(`delete from issues where id = '${id}'`);
  await watch.sees('the row gone', rows => rows[0].id !== id && rows.length === 20);
  await agrees(watch, () => expected.recent(app.sql, 20));
});

test('rows that start and stop to match a filter', async () => {
  const watch = await new Client(app).watch(queries.issue.list({projectID: 'p6', status: 'wontfix', limit: 30}));
  const {id} = watch.data[5];
  const [{id: other}] = await app.sql`select id from issues where project_id = 'p6' and status = 'open' order by created_at desc limit 1`;
  await commit(`
    begin;
    update issues set status = 'open' where id = '${id}';
    update issues set status = 'wontfix' where id = '${other}';
    commit`);
  await watch.sees('one in, one out', rows => !rows.some(r => r.id === id) && rows.some(r => r.id === other));
  await agrees(watch, () => expected.list(app.sql, "i.project_id = 'p6' and i.status = 'wontfix'", 'i.created_at desc', 30));
});

test('related rows: comments, labels, and the people behind them', async () => {
  const id = 'i0000777';
  const watch = await new Client(app).watch(queries.issue.detail({id}));
  const had = watch.data.comments.length;
  await commit(`insert into comments (id, issue_id, author_id, body) values ('c-new', '${id}', 'u33', 'From psql')`);
  await watch.sees('the comment', issue => issue.comments.length === had + 1);
  await commit(`update users set name = 'Renamed Person' where id = 'u33'`);
  await watch.sees('the new name', issue => issue.comments.at(-1).author.name === 'Renamed Person');
  await commit(`delete from issue_labels where issue_id = '${id}'; insert into issue_labels values ('${id}', 'l4'), ('${id}', 'l9')`);
  await watch.sees('the labels', issue => issue.labels.map(l => l.id).sort().join() === 'l4,l9');
  await agrees(watch, () => expected.detail(app.sql, id));
});

test('a label given and taken moves an issue in and out of a list by label', async () => {
  const watch = await new Client(app).watch(queries.issue.list({projectID: 'p7', labelID: 'l12', limit: 1000}));
  const where = "i.project_id = 'p7' and exists (select from issue_labels x where x.issue_id = i.id and x.label_id = 'l12')";
  const [{id}] = await app.sql`
    select id from issues i where project_id = 'p7'
    and not exists (select from issue_labels x where x.issue_id = i.id and x.label_id = 'l12') limit 1`;
  await commit(`insert into issue_labels values ('${id}', 'l12')`);
  await watch.sees('the issue', rows => rows.some(r => r.id === id));
  await commit(`delete from issue_labels where issue_id = '${id}' and label_id = 'l12'`);
  await watch.sees('the issue gone', rows => !rows.some(r => r.id === id));
  await agrees(watch, () => expected.list(app.sql, where, 'i.created_at desc', 1000));
});

test('one transaction on many rows arrives as one', async () => {
  const watch = await new Client(app).watch(queries.issue.byProject({projectID: 'p9'}));
  const want = watch.data.length;
  const torn = [];
  const client = new Client(app);
  const second = await client.watch(queries.issue.byProject({projectID: 'p9'}));
  const view = client.zero.materialize(queries.issue.byProject({projectID: 'p9'}));
  view.addListener(rows => {
    const changed = rows.filter(r => r.priority === 4 && r.title === 'All at once').length;
    if (changed !== 0 && changed !== want) torn.push(changed);
  });
  await commit(`update issues set priority = 4, title = 'All at once' where project_id = 'p9'`);
  await second.sees('all of them', rows => rows.every(r => r.title === 'All at once'));
  assert.deepEqual(torn, []);
  view.destroy();
  await agrees(watch, () => expected.byProject(app.sql, 'p9'));
});

test('a hundred commits, none left out', async () => {
  const watch = await new Client(app).watch(queries.issue.board({projectID: 'p10'}));
  const ids = watch.data.map(r => r.id);
  for (let i = 0; i < 100; i++) {
    await app.sql`update issues set title = ${`Commit ${i}`}, rev = rev + 1, updated_at = now() where id = ${ids[i % ids.length]}`;
  }
  await agrees(watch, () => expected.board(app.sql, 'p10'));
});
