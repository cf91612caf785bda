// A row that no client can hold makes a query unanswerable (ruling 7): an application cannot see that something is
// wrong, or the query does not come back when the row is gone.
import assert from 'node:assert/strict';
import {test} from 'node:test';
import {setTimeout as sleep} from 'node:timers/promises';
import {queries} from '../../demo/shared/queries.mjs';
import {useApp} from './lib/app.mjs';
import {Client} from './lib/client.mjs';
import * as expected from './lib/expected.mjs';
import {eventually, within} from './lib/waiting.mjs';

const app = useApp();
const {plain} = expected;
const commit = statement => app.stack.postgres.run(statement);

/** The first integer that no client can hold. */
const TOO_LARGE = '9007199254740993';
/** What is told is told again every ten seconds: this and a busy machine. */
const TOLD = 25_000;
/** The view is read again within the time that it failed for, and a busy machine. */
const BACK = 40_000;

/** A view as a component of the app has it, with all that its listener is told. */
function mount(client, query) {
  const view = client.zero.materialize(query);
  const seen = {view, told: []};
  view.addListener((rows, type, error) => {
    if (seen.type !== type) seen.told.push(type);
    Object.assign(seen, {rows, type, error});
  });
  return seen;
}

/** What the app gets to see of a query that cannot be answered: which it is, and what is wrong. */
function isRefused(seen, query) {
  assert.equal(seen.type, 'error');
  assert.deepEqual(plain(seen.rows), []);
  assert.equal(seen.error.error, 'app');
  assert.equal(seen.error.name, query);
  assert.match(seen.error.message, /"rev" in table "issues" is outside the integers that clients can hold/);
}

function agrees(what, seen, projectID) {
  return eventually(
    what,
    async () => {
      assert.deepEqual(plain(seen.rows), plain(await expected.byProject(app.sql, projectID)));
      return true;
    },
    BACK,
  );
}

/** Nothing was loaded anew for it, and the socket is the one that it was. */
function isUndisturbed(client) {
  assert.equal(client.replaced, 0);
  assert.deepEqual(client.states, ['connecting', 'connected']);
}

test('a view that was complete is empty while such a row is there, says so to whoever asks, and comes back', async () => {
  const client = new Client(app);
  const query = queries.issue.byProject({projectID: 'p3'});
  const live = mount(client, query);
  await eventually('an answer', () => live.type === 'complete');
  await agrees('the rows that SQL gives', live, 'p3');
  const other = await client.watch(queries.issue.byProject({projectID: 'p4'}));

  await commit(`insert into issues (id, project_id, num, title, creator_id, rev)
    values ('beyond', 'p3', 200001, 'Edited often', 'u1', ${TOO_LARGE})`);
  await eventually('the rows gone', () => live.rows.length === 0);
  // By then the view was read once more in vain, which is told, too: later it is only told again.
  await sleep(2_000);
  // The stock client never takes back that a view was complete. But it shows the error wherever the query is asked for.
  const again = mount(client, query);
  const answer = assert.rejects(within('a refusal', client.zero.run(query, {type: 'complete'}), TOLD), cause => !(cause instanceof Error));
  await eventually('an error', () => again.type === 'error', TOLD);
  isRefused(again, 'issue.byProject');
  await answer;
  // Others of the same client go on, and changes of the rows that are not to be seen are not lost.
  const [{id}] = await app.sql`select id from issues where project_id = 'p4' limit 1`;
  await commit(`
    begin;
    update issues set title = 'Not concerned' where id = '${id}';
    update issues set title = 'While nobody could see it' where id = 'i0000003';
    commit`);
  await other.sees('a change of another query', rows => rows.find(r => r.id === id).title === 'Not concerned');
  assert.equal(other.type, 'complete');
  assert.equal(live.rows.length, 0);

  await commit(`delete from issues where id = 'beyond'`);
  await agrees('the rows that SQL gives, by themselves', live, 'p3');
  assert.equal(live.rows.find(r => r.id === 'i0000003').title, 'While nobody could see it');
  await agrees('the rows in the view that was told the error', again, 'p3');
  const anew = mount(client, query);
  await eventually('an answer', () => anew.type === 'complete');
  await agrees('the rows in a new view', anew, 'p3');
  assert.deepEqual(live.told, ['unknown', 'complete']);
  isUndisturbed(client);
  // And it is alive.
  await commit(`update issues set title = 'Afterwards' where id = 'i0000003'`);
  await eventually('a change', () => live.rows.find(r => r.id === 'i0000003').title === 'Afterwards');
});

test('a query that is asked for while such a row is there is an error, and is answered when the row is mended', async () => {
  const query = queries.issue.byProject({projectID: 'p5'});
  const old = new Client(app);
  const live = mount(old, query);
  await eventually('an answer', () => live.type === 'complete');
  await commit(`update issues set rev = ${TOO_LARGE} where id = 'i0000005'`);
  await eventually('the rows gone', () => live.rows.length === 0);

  // Who has just come is told at once, not only when all are told again.
  const newcomer = new Client(app, {userID: 'u2'});
  const asked = mount(newcomer, query);
  await eventually('an error', () => asked.type !== 'unknown', 8_000);
  isRefused(asked, 'issue.byProject');
  assert.equal(newcomer.state, 'connected');

  await commit(`update issues set rev = 7 where id = 'i0000005'`);
  await agrees('the rows that SQL gives, by themselves', asked, 'p5');
  await agrees('the rows of whoever had them', live, 'p5');
  // The stock client's view keeps the error that it was told; a new one is complete, as it is after a retry.
  const anew = mount(newcomer, query);
  await eventually('an answer', () => anew.type === 'complete');
  await agrees('the rows in a new view', anew, 'p5');
  assert.deepEqual(anew.told.filter(type => type === 'error'), []);
  isUndisturbed(old);
  isUndisturbed(newcomer);
});
