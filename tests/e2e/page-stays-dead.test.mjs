// The server is restarted, and the demo page stays as it was.
import assert from 'node:assert/strict';
import {test} from 'node:test';
import {useApp} from './lib/app.mjs';
import {useBrowser} from './lib/browser.mjs';
import {IssuesPage} from './lib/page.mjs';
import {eventually} from './lib/waiting.mjs';

const app = useApp({page: true});
const browser = useBrowser();
// The stock client tries again every 5 s; then it may have to start over.
const BACK = 60_000;

test('two windows recover by themselves', async () => {
  const id = 'i0009995';
  const people = await Promise.all([browser.person('u1'), browser.person('u2')]);
  const windows = await Promise.all(people.map(p => IssuesPage.open(p, app, `#issue=${id}`)));
  const [one, two] = windows;
  for (const w of windows) await w.says('Connected');

  await app.stack.server.stop();
  for (const w of windows) await w.connection.filter({hasNotText: 'Connected'}).waitFor({timeout: BACK});
  // The page goes on showing what it has.
  for (const w of windows) assert.equal((await w.rows()).length, 50);
  await app.stack.postgres.run(`update issues set title = 'While it was away' where id = '${id}'`);

  await app.stack.server.up();
  for (const w of windows) {
    await w.says('Connected', BACK);
    await w.has(id, 'While it was away', BACK);
    // Still the same issue, open.
    await eventually('the open issue', async () => (await w.title.inputValue()) === 'While it was away', BACK);
  }
  await one.setTitle('After it came back');
  await two.has(id, 'After it came back');
  await app.stack.postgres.run(`update issues set title = 'And with psql' where id = '${id}'`);
  for (const w of windows) await w.has(id, 'And with psql');
  assert.deepEqual([...one.errors, ...two.errors], []);
  await Promise.all(people.map(p => p.close()));
});
