// The sample app, until somebody stops it. scripts/demo prepares and runs this.
import readline from 'node:readline';
import {children} from './child.mjs';
import {choosePort} from './ports.mjs';
import {DEMO_SIZE} from './seed.mjs';
import {Stack} from './stack.mjs';

const bold = process.stdout.isTTY ? text => `\x1b[1m${text}\x1b[0m` : text => text;
const say = text => console.log(`${bold('==>')} ${text}`);

const stack = new Stack();
let stopping = false;

async function stop(status) {
  if (stopping) return;
  stopping = true;
  say('stopping everything');
  let left = status;
  await stack.stop().catch(e => {
    console.error(e);
    left = 1;
  });
  process.exit(left);
}

for (const [signal, status] of [
  ['SIGINT', 0],
  ['SIGTERM', 0],
  ['SIGHUP', 0],
]) {
  process.on(signal, () => stop(status));
}

function fail(error) {
  if (stopping) return;
  console.error(`${bold('error:')} ${error.message}`);
  return stop(1);
}

/** Nothing that was started may end by itself. */
function watch() {
  for (const child of children) {
    child.ended.then(() => {
      if (!stopping && !restarting) fail(child.failure(`has ended (${child.outcome})`));
    });
  }
}

let restarting = false;
async function restart() {
  if (restarting || stopping) return;
  restarting = true;
  say('restarting the sync server');
  try {
    await stack.server.restart();
    say('it is back');
  } finally {
    restarting = false;
  }
  watch();
}

try {
  await stack.start({
    name: 'kelvin-demo',
    size: DEMO_SIZE,
    ports: {
      page: await choosePort('PORT', 5173),
      server: await choosePort('KELVIN_PORT', 4848),
      backend: await choosePort('BACKEND_PORT', 4900),
    },
    verbose: !!process.env.DEMO_VERBOSE,
    say,
  });
} catch (e) {
  await fail(e);
}

if (!stopping) {
  watch();
  const keys = process.stdin.isTTY ? '\n  r + Enter restarts the sync server, ' : '\n  ';
  console.log(`
  The page          ${bold(stack.page.url)}   (open it in two windows)
  The sync server   ${stack.server.url}
  The database      ${stack.postgres.url('app')}

  Change a row behind everybody's back:
    psql ${stack.postgres.url('app')} \\
      -c "update issues set title = 'Hello from psql', status = 'done' where id = 'i0011999'"
${keys}Ctrl-C stops everything and leaves nothing behind.
`);
  if (process.stdin.isTTY) {
    readline.createInterface({input: process.stdin}).on('line', line => {
      if (line.trim() === 'r') restart().catch(fail);
    });
  }
}
