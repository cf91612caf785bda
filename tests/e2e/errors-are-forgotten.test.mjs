// A client is told an error while it still reads its store after `connected`, forgets it, and goes on as
// connected without a socket. `E2E_ROUNDS` makes it more rounds.
import assert from 'node:assert/strict';
import {test} from 'node:test';
import {setTimeout as sleep} from 'node:timers/promises';
import {queries} from '../../demo/shared/queries.mjs';
import {schema} from '../../demo/shared/schema.mjs';
import {useApp} from './lib/app.mjs';
import {useBrowser} from './lib/browser.mjs';
import {Client} from './lib/client.mjs';
import {eventually} from './lib/waiting.mjs';

const app = useApp({page: true});
const browser = useBrowser();
const ROUNDS = Number(process.env.E2E_ROUNDS ?? 20);
/** Clients at a time. */
const AT_ONCE = 20;
/** A client that was told to stay as it is does so; one that forgets it has done so by then. */
const STAYS = 1_000;

/** A user whose token the backend does not take. */
const NOBODY = 'not a user!';

/** Clients that are refused, so many at a time, until all rounds are over: all have to end in this state. */
async function allEnd(state, options) {
  for (let done = 0; done < ROUNDS; done += AT_ONCE) {
    const clients = Array.from({length: Math.min(AT_ONCE, ROUNDS - done)}, () => new Client(app, options));
    // Further wishes, or none, at different moments of the connection.
    clients.forEach((client, n) => n % 2 && client.zero.preload(queries.issue.recent({limit: 1 + n})));
    await eventually(`${state} everywhere`, () => clients.every(c => c.state === state), 40_000).catch(e => {
      throw new Error(`${e.message}: ${clients.map(c => c.states.join(' '))}`);
    });
    await sleep(STAYS);
    for (const client of clients) assert.equal(client.state, state, client.states.join(' '));
    await Promise.all(clients.map(c => c.close()));
  }
}

test('a token that the app refuses', () => allEnd('needs-auth', {userID: NOBODY}));

test('a client schema that does not fit', () => {
  const issue = {...schema.tables.issue, columns: {...schema.tables.issue.columns, nonesuch: {type: 'string', optional: true}}};
  const other = {...schema, tables: {...schema.tables, issue}};
  return allEnd('error', {schema: other, mutators: undefined, onUpdateNeeded: () => {}});
});

test('a token that the app refuses, in a browser', async () => {
  const person = await browser.person(NOBODY);
  const pages = await Promise.all([1, 2, 3, 4].map(() => person.newPage()));
  for (let done = 0; done < ROUNDS; done += pages.length) {
    await Promise.all(
      pages.map(async page => {
        await page.goto(app.stack.page.url);
        const connection = page.getByRole('status', {name: 'Connection'});
        await connection.filter({hasText: 'Sign-in refused'}).waitFor({timeout: 40_000});
        await sleep(STAYS);
        assert.match(await connection.innerText(), /Sign-in refused/);
      }),
    );
  }
  await person.close();
});
