// A client changes what it wants, its socket dies before the answer, it changes its mind: and what it wants
// is not what the server believes.
import assert from 'node:assert/strict';
import {test} from 'node:test';
import {setTimeout as sleep} from 'node:timers/promises';
import {queries} from '../../demo/shared/queries.mjs';
import {useApp} from './lib/app.mjs';
import {Client} from './lib/client.mjs';
import {eventually} from './lib/waiting.mjs';

const app = useApp();
const BACK = 40_000;

/** Sockets of the clients, in order. One that is deaf takes no message, but counts those that come. */
const sockets = [];
const Socket = globalThis.WebSocket;
globalThis.WebSocket = class extends Socket {
  deaf = false;
  unheard = [];
  sent = [];

  constructor(...args) {
    super(...args);
    sockets.push(this);
  }

  addEventListener(type, listener, options) {
    if (type !== 'message') return super.addEventListener(type, listener, options);
    return super.addEventListener(type, e => (this.deaf ? this.unheard.push(JSON.parse(e.data)[0]) : listener(e)), options);
  }

  send(text) {
    this.sent.push(JSON.parse(text)[0]);
    super.send(text);
  }
};

const QUERY = queries.issue.recent({limit: 25});
const TTL = '1s';

/** A client with one query that stays, at rest. */
async function client() {
  sockets.length = 0;
  const client = new Client(app);
  await client.watch(queries.issue.recent({limit: 1}));
  return client;
}

/** The client sends what `change` makes it send; the socket dies with the answer in it, and `mind` changes. */
async function lose(change, mind) {
  const socket = sockets.at(-1);
  const before = socket.sent.length;
  socket.deaf = true;
  change();
  await eventually('the change on its way', () => socket.sent.slice(before).includes('changeDesiredQueries'));
  await eventually('its answer', () => socket.unheard.includes('pokeEnd'));
  socket.close();
  return mind();
}

test('a query that was dropped and is wanted again', async () => {
  const tab = await client();
  const view = tab.zero.materialize(QUERY, {ttl: TTL});
  await eventually('its rows', () => view.data.length === 25);
  await sleep(100);
  const again = await lose(
    () => view.destroy(),
    () => tab.zero.materialize(QUERY, {ttl: TTL}),
  );
  let type;
  again.addListener((_, now) => (type = now));
  // One connection in which it learns what the server knows, and one in which it says what it wants.
  await eventually('it was sent back', () => sockets.length === 3, BACK);
  await eventually('the rows are there', () => again.data.length === 25 && type === 'complete', BACK);
  // Longer than what is not wanted would stay.
  await sleep(3_000);
  assert.equal(again.data.length, 25);
  assert.equal(type, 'complete');
  // Nobody is sent back twice.
  await sleep(6_000);
  assert.equal(sockets.length, 3);
});

test('a query that was asked for and is not wanted any more', async () => {
  const tab = await client();
  let view;
  await lose(
    () => (view = tab.zero.materialize(QUERY, {ttl: TTL})),
    () => view.destroy(),
  );
  await eventually('it was sent back', () => sockets.length === 3, BACK);
  // Its rows go: what is left is the one that stays.
  await eventually('only one row is left', async () => {
    const rows = await tab.zero.run(QUERY);
    return rows.length === 1;
  }, BACK);
  await sleep(6_000);
  assert.equal(sockets.length, 3);
});

test('a mind that did not change', async () => {
  const tab = await client();
  const view = tab.zero.materialize(QUERY, {ttl: TTL});
  await eventually('its rows', () => view.data.length === 25);
  await sleep(100);
  await lose(
    () => view.destroy(),
    () => {},
  );
  await eventually('it is back', () => sockets.length === 2, BACK);
  await tab.connected(BACK);
  await sleep(8_000);
  assert.equal(sockets.length, 2);
});
