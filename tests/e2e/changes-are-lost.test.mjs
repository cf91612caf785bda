// A change made in a client is not shown, not saved, not undone, or not seen by others.
import assert from 'node:assert/strict';
import {test} from 'node:test';
import {mutators} from '../../demo/shared/mutators.mjs';
import {queries} from '../../demo/shared/queries.mjs';
import {useApp} from './lib/app.mjs';
import {Client} from './lib/client.mjs';
import * as expected from './lib/expected.mjs';

const app = useApp();
const {plain} = expected;

test('a change shows at once, then is confirmed and saved', async () => {
  const id = 'i0000100';
  const client = new Client(app);
  const watch = await client.watch(queries.issue.detail({id}));
  const {title, rev} = watch.data;

  // While we hold the row, the backend cannot commit: what shows is optimistic.
  const change = await app.sql.begin(async tx => {
    await tx`select from issues where id = ${id} for update`;
    const change = client.change(mutators.issue.setTitle({id, title: 'Shown before it is saved'}));
    assert.equal((await change.local).type, 'success');
    assert.equal(watch.data.title, 'Shown before it is saved');
    const [row] = await tx`select title from issues where id = ${id}`;
    assert.equal(row.title, title);
    return change;
  });

  assert.equal((await change.remote).type, 'success');
  const [row] = await app.sql`select title, rev from issues where id = ${id}`;
  assert.equal(row.title, 'Shown before it is saved');
  assert.equal(Number(row.rev), rev + 1);
  await watch.sees('the row as the backend wrote it', async data => {
    assert.deepEqual(plain(data), plain(await expected.detail(app.sql, id)));
    return true;
  });
});

test('what the backend decides replaces what the client guessed', async () => {
  // The client has no other issue of the project, so it guesses number 1.
  const client = new Client(app);
  const id = 'made-here';
  const watch = await client.watch(queries.issue.detail({id}));
  const change = client.change(mutators.issue.create({id, projectID: 'p8', title: 'Numbered by the backend'}));
  await change.local;
  assert.equal(watch.data.num, 1);
  assert.equal((await change.remote).type, 'success');
  const [row] = await app.sql`select num from issues where id = ${id}`;
  assert.ok(row.num > 800);
  await watch.sees('the number from the backend', issue => issue.num === row.num);
});

test('a refusal by the backend is reported with its details, and undone', async () => {
  const id = 'i0000200';
  const guest = new Client(app, {userID: 'u4'});
  const watch = await guest.watch(queries.issue.detail({id}));
  const {status} = watch.data;
  const wanted = status === 'done' ? 'open' : 'done';
  const change = guest.change(mutators.issue.setStatus({id, status: wanted}));
  await change.local;
  const result = await change.remote;
  assert.equal(result.type, 'error');
  assert.equal(result.error.type, 'app');
  assert.equal(result.error.message, 'Guests may comment, but not edit');
  assert.deepEqual(result.error.details, {code: 'guest'});
  await watch.sees('the old status', issue => issue.status === status);
  const [row] = await app.sql`select status from issues where id = ${id}`;
  assert.equal(row.status, status);
  assert.equal(guest.state, 'connected');
});

test('a refusal between two good changes spoils neither', async () => {
  const client = new Client(app);
  const id = 'i0000300';
  const watch = await client.watch(queries.issue.detail({id}));
  const changes = [
    client.change(mutators.issue.setTitle({id, title: 'First'})),
    client.change(mutators.issue.assign({id: 'no-such-issue', assigneeID: 'u2'})),
    client.change(mutators.issue.setPriority({id, priority: 4})),
  ];
  const results = await Promise.all(changes.map(c => c.remote));
  assert.deepEqual(results.map(r => r.type), ['success', 'error', 'success']);
  await watch.sees('both', issue => issue.title === 'First' && issue.priority === 4);
});

test('changes are applied in the order in which they were made', async () => {
  const client = new Client(app);
  const id = 'i0000400';
  const watch = await client.watch(queries.issue.detail({id}));
  const before = watch.data.rev;
  const changes = Array.from({length: 25}, (_, i) => client.change(mutators.issue.setTitle({id, title: `Draft ${i}`})));
  const results = await Promise.all(changes.map(c => c.remote));
  assert.ok(results.every(r => r.type === 'success'), JSON.stringify(results.find(r => r.type !== 'success')));
  const [row] = await app.sql`select title, rev from issues where id = ${id}`;
  assert.equal(row.title, 'Draft 24');
  assert.equal(Number(row.rev), before + 25);
  await watch.sees('the last one', issue => issue.title === 'Draft 24' && issue.rev === before + 25);
});

test('two clients stay in step', async () => {
  const [one, two] = [new Client(app, {userID: 'u1'}), new Client(app, {userID: 'u2'})];
  const id = 'i0000500';
  const views = await Promise.all([one, two].map(c => c.watch(queries.issue.detail({id}))));
  for (let i = 0; i < 10; i++) {
    const author = i % 2 === 0 ? one : two;
    const change = author.change(mutators.comment.add({id: `chat-${i}`, issueID: id, body: `Line ${i}`}));
    assert.equal((await change.remote).type, 'success');
  }
  for (const view of views) {
    await view.sees('all that was said', async issue => {
      assert.deepEqual(plain(issue), plain(await expected.detail(app.sql, id)));
      return true;
    });
    const said = view.data.comments.filter(c => c.id.startsWith('chat-')).map(c => [c.body, c.authorID]);
    assert.deepEqual(said, Array.from({length: 10}, (_, i) => [`Line ${i}`, i % 2 === 0 ? 'u1' : 'u2']));
  }
});

test('two clients of one group stay in step', async () => {
  // As two windows of one browser: one storage, one client group.
  const shared = {storageKey: 'one-browser'};
  const [one, two] = [new Client(app, shared), new Client(app, shared)];
  const id = 'i0000600';
  const [first, second] = await Promise.all([one, two].map(c => c.watch(queries.issue.detail({id}))));
  assert.equal((await one.change(mutators.issue.addLabel({id, labelID: 'l14'})).remote).type, 'success');
  await second.sees('the label', issue => issue.labels.some(l => l.id === 'l14'));
  assert.equal((await two.change(mutators.issue.removeLabel({id, labelID: 'l14'})).remote).type, 'success');
  await first.sees('the label gone', issue => !issue.labels.some(l => l.id === 'l14'));
});
