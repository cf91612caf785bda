// The server is killed at some moment while changes are on their way, or its threads are left aside by a busy
// machine, and a change that the backend refuses stays applied in a tab, or one that it takes is not shown.
import assert from 'node:assert/strict';
import {setTimeout as sleep} from 'node:timers/promises';
import {test} from 'node:test';
import {mutators} from '../../demo/shared/mutators.mjs';
import {queries} from '../../demo/shared/queries.mjs';
import {STATUSES} from '../../demo/shared/schema.mjs';
import {useApp} from './lib/app.mjs';
import {Client} from './lib/client.mjs';
import * as expected from './lib/expected.mjs';
import {eventually} from './lib/waiting.mjs';
import {buildDelays, delayed} from '../soak/delays.mjs';

const app = useApp({size: {issues: 600, comments: 600, users: 40, projects: 6}});
const {plain} = expected;

// Tabs of a browser, with its user: u4 and u9 are guests, who may comment but not edit.
const BROWSERS = [['u4', 1], ['u9', 3], ['u4', 2], ['u1', 2]];
// Milliseconds between the changes and the kill: before they are read, while the backend has them, between its
// transaction and its answer, between replication and the pokes, and after all of that.
const MOMENTS = [0, 4, 8, 15, 25, 40, 70, 130, 300];
// The stock client tries again at once and then every 5 s, and a busy machine takes its time.
const BACK = 60_000;

// Rounds on a server whose replication is late, each half a second, and at one in how many looks at the clock.
const LATE_ROUNDS = 50;
const LATE_EVERY = 40;

const ids = Array.from({length: 8}, (_, i) => `i${String(100 + i).padStart(7, '0')}`);

async function tabs() {
  const all = BROWSERS.flatMap(([userID, count], browser) =>
    Array.from({length: count}, () => new Client(app, {userID, storageKey: `refusals-${browser}`})),
  );
  return Promise.all(
    all.map(async (client, i) => ({client, id: ids[i], view: await client.watch(queries.issue.detail({id: ids[i]}))})),
  );
}

/** A change of the status, which guests are refused, and a comment, which nobody is. */
function change({client, id, view}, round) {
  const status = STATUSES.find(status => status !== view.data.status);
  const made = [
    client.zero.mutate(mutators.issue.setStatus({id, status})),
    client.zero.mutate(mutators.comment.add({id: `${id}-${round}`, issueID: id, body: `Round ${round}`})),
  ];
  return made.map(one => one.server.then(() => true, () => true));
}

/** Until all is settled, and everybody holds what Postgres says. */
async function rest(all, settled) {
  await eventually('all changes confirmed or refused', () => Promise.race([Promise.all(settled), sleep(10)]), BACK);
  for (const {client, id, view} of all) {
    await view.sees(`what Postgres says of ${id}`, async issue => {
      assert.deepEqual(plain(issue), plain(await expected.detail(app.sql, id)));
      return view.type === 'complete' && client.state === 'connected';
    }, BACK);
    assert.equal(client.replaced, 0, 'a client had to start over');
  }
}

test('whenever the server is killed, changes are settled as the backend decided', {timeout: 400_000}, async t => {
  const all = await tabs();
  const groups = new Set(await Promise.all(all.map(({client}) => client.zero.clientGroupID)));
  assert.equal(groups.size, BROWSERS.length, 'tabs of one browser are no group');
  for (const [round, ms] of MOMENTS.entries()) {
    const settled = all.flatMap(tab => change(tab, round));
    await sleep(ms);
    await app.stack.server.kill();
    // More while it is away: the client shows them, and its views stay "complete".
    settled.push(...all.flatMap(tab => change(tab, `${round}-away`)));
    await app.stack.server.up();
    await Promise.all(all.map(({client}) => client.connected(BACK)));
    const began = Date.now();
    await rest(all, settled);
    t.diagnostic(`killed after ${ms} ms: at rest ${Date.now() - began} ms after everybody was back`);
  }
  await Promise.all(all.map(({client}) => client.close()));
});

test('when replication is left aside again and again, changes are settled all the same', {timeout: 400_000}, async () => {
  const {server, dir} = app.stack;
  await server.stop();
  Object.assign(server.settings, delayed(buildDelays(dir), 'replication', {every: LATE_EVERY}));
  await server.up();
  const all = await tabs();
  const settled = [];
  for (let round = 0; round < LATE_ROUNDS; round++) {
    settled.push(...change(all[round % all.length], `late-${round}`));
    await app.sql`update issues set rev = rev + 1 where id = ${ids[round % ids.length]}`;
    await sleep(500);
  }
  await rest(all, settled);
});
