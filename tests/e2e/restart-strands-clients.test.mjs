// The server goes away and comes back, and clients do not find their way back.
import assert from 'node:assert/strict';
import {test} from 'node:test';
import {mutators} from '../../demo/shared/mutators.mjs';
import {queries} from '../../demo/shared/queries.mjs';
import {useApp} from './lib/app.mjs';
import {Client} from './lib/client.mjs';
import * as expected from './lib/expected.mjs';
import {eventually} from './lib/waiting.mjs';

const app = useApp();
const {plain} = expected;
// The stock client tries again every 5 s.
const BACK = 60_000;

async function agrees(watch) {
  await watch.sees('the rows that SQL gives', async data => {
    assert.equal(watch.type, 'complete');
    assert.deepEqual(plain(data), plain(await expected.recent(app.sql, 30)));
    return true;
  }, BACK);
}

async function people() {
  const clients = ['u1', 'u2'].map(userID => new Client(app, {userID}));
  const watches = await Promise.all(clients.map(c => c.watch(queries.issue.recent({limit: 30}))));
  return {clients, watches};
}

/** Both see a commit, and a change by one reaches the other. */
async function atWork({clients, watches}, mark) {
  for (const client of clients) await client.connected(BACK);
  for (const watch of watches) await agrees(watch);
  const {id} = watches[0].data[7];
  await app.stack.postgres.run(`update issues set title = 'psql ${mark}' where id = '${id}'`);
  for (const watch of watches) {
    await watch.sees('the commit', rows => rows.some(r => r.id === id && r.title === `psql ${mark}`), BACK);
  }
  const change = clients[0].change(mutators.issue.setTitle({id, title: `page ${mark}`}));
  assert.equal((await change.remote).type, 'success');
  await watches[1].sees('the change', rows => rows.some(r => r.id === id && r.title === `page ${mark}`));
}

for (const [how, away] of [
  ['stopped', () => app.stack.server.stop()],
  ['killed', () => app.stack.server.kill()],
]) {
  test(`clients come back to a server that was ${how}`, async () => {
    const both = await people();
    await atWork(both, `before ${how}`);
    await away();
    await eventually('the loss to show', () => both.clients.every(c => c.state !== 'connected'), BACK);
    // What is committed meanwhile must not be missed.
    const missed = both.watches[0].data.slice(0, 3).map(r => `'${r.id}'`);
    await app.stack.postgres.run(`
      update issues set title = 'while ${how}' where id = ${missed[0]};
      delete from issues where id = ${missed[1]};
      insert into issues (id, project_id, num, title, creator_id) values ('while-${how}', 'p1', ${how.length + 200_000}, 'While away', 'u1')`);
    await app.stack.server.up();
    await atWork(both, `after ${how}`);
    // A client that stops trying would need somebody to press a button. (One that the
    // server does not know any more was replaced, as a page replaces it: no harm.)
    for (const client of both.clients) {
      assert.ok(!client.states.includes('error'), `a client stopped trying: ${client.states}`);
    }
    await Promise.all(both.clients.map(c => c.close()));
  });
}

test('a change made while the server is away is saved, or the client is told', async () => {
  const client = new Client(app);
  const watch = await client.watch(queries.issue.recent({limit: 30}));
  const {id} = watch.data[9];
  await app.stack.server.stop();
  await eventually('the loss to show', () => client.state !== 'connected', BACK);
  const change = client.zero.mutate(mutators.issue.setTitle({id, title: 'Written offline'}));
  change.server.catch(() => {});
  await change.client;
  assert.ok(watch.data.some(r => r.title === 'Written offline'));
  await app.stack.server.up();
  await eventually('the change saved, or a refusal', async () => {
    const [row] = await app.sql`select title from issues where id = ${id}`;
    return row.title === 'Written offline' || client.replaced > 0;
  }, BACK);
  await agrees(watch);
});
