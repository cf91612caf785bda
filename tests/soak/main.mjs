// Runs the day.
//
//   node tests/soak/main.mjs [MINUTES] [TABS] [ENDS]
//
// KELVIN_TEST_SEED repeats what tabs do, though not the moments.
import {day} from './day.mjs';

const [minutes, tabs, ends] = process.argv.slice(2).map(Number);
const seed = Number(process.env.KELVIN_TEST_SEED ?? process.pid);
const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stop.abort());
try {
  await day({minutes, tabs, ends, seed, stop: stop.signal});
  console.log('all is settled, and every view is what Postgres says');
} catch (e) {
  console.error(stop.signal.aborted ? 'stopped' : (e.stack ?? e));
  process.exitCode = 1;
}
process.exit();
