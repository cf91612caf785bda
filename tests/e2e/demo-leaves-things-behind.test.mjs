// The demo does not come up, or leaves processes or files behind.
import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {test} from 'node:test';
import {fileURLToPath} from 'node:url';
import {findServer} from '../../scripts/stack/server.mjs';
import {freePort} from '../../scripts/stack/ports.mjs';
import {eventually} from './lib/waiting.mjs';

const DEMO = fileURLToPath(new URL('../../scripts/demo', import.meta.url));
const UP = 120_000;

/** The demo in a temporary directory of its own, with nothing on its standard ports. */
async function runDemo(t, environment = {}) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'kelvin-demo-test-'));
  fs.chmodSync(dir, 0o755);
  const ports = {PORT: await freePort(), KELVIN_PORT: await freePort(), BACKEND_PORT: await freePort()};
  const demo = spawn(DEMO, [], {
    env: {...process.env, TMPDIR: dir, KELVIN_BIN: findServer(), ...ports, ...environment},
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const run = {dir, ports, output: '', signal: name => demo.kill(name)};
  for (const stream of [demo.stdout, demo.stderr]) {
    stream.setEncoding('utf8');
    stream.on('data', text => (run.output += text));
  }
  run.ended = new Promise(resolve => demo.once('exit', (code, signal) => resolve(code ?? signal)));
  run.says = text => eventually(`"${text}" from the demo, which said:\n${run.output}`, () => run.output.includes(text), UP);
  t.after(() => {
    demo.kill('SIGKILL');
    fs.rmSync(dir, {recursive: true, force: true, maxRetries: 5});
  });
  return run;
}

/** Processes that mention the directory in what they were started with. */
function processesOf(dir) {
  return fs
    .readdirSync('/proc')
    .filter(name => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter(name => {
      try {
        return ['cmdline', 'environ'].some(file => fs.readFileSync(`/proc/${name}/${file}`, 'utf8').includes(dir));
      } catch {
        return false;
      }
    });
}

async function leavesNothing(run) {
  await eventually(`no process of ${run.dir}`, () => {
    assert.deepEqual(processesOf(run.dir), []);
    return true;
  }, 5_000);
  assert.deepEqual(fs.readdirSync(run.dir), [], 'files left behind');
}

for (const signal of ['SIGINT', 'SIGTERM']) {
  test(`it comes up, and ${signal} ends all of it`, async t => {
    const run = await runDemo(t);
    await run.says(`http://localhost:${run.ports.PORT}`);
    assert.ok(processesOf(run.dir).length > 3, 'the test would not see what is left running');
    const config = await (await fetch(`http://localhost:${run.ports.PORT}/config.json`)).json();
    assert.equal((await fetch(`${config.cacheURL}/keepalive`)).status, 200);
    assert.match(await (await fetch(`http://localhost:${run.ports.PORT}/`)).text(), /<div id="root">/);
    run.signal(signal);
    assert.equal(await run.ended, 0, run.output);
    await leavesNothing(run);
  });
}

test('interrupted while it fills the database, it leaves nothing', async t => {
  const run = await runDemo(t);
  await run.says('issues, ');
  run.signal('SIGINT');
  await run.ended;
  await leavesNothing(run);
});

test('a server that does not start is reported, and nothing is left', async t => {
  const run = await runDemo(t, {KELVIN_BIN: '/bin/false'});
  assert.equal(await run.ended, 1);
  assert.match(run.output, /The server ended before it was ready \(exit status 1\)/);
  await leavesNothing(run);
});

test('a port that is taken is named', async t => {
  const port = await freePort();
  const {createServer} = await import('node:net');
  const other = createServer().listen(port, '127.0.0.1');
  t.after(() => other.close());
  const run = await runDemo(t, {PORT: String(port)});
  assert.equal(await run.ended, 1);
  assert.match(run.output, new RegExp(`port ${port} \\(from PORT\\) is in use`));
  await leavesNothing(run);
});
