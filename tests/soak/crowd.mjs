// All tabs, in a few processes: one could not keep up with what sixty are told.
import {fork} from 'node:child_process';
import {fileURLToPath} from 'node:url';

const CREW = fileURLToPath(new URL('crew.mjs', import.meta.url));
const CREWS = 3;
/** Failures that are told in full. */
const SHOWN = 5;
/** What is the most of all crews, and not the sum. */
const MOST = ['longest', 'stood'];
// The stock client listens to one signal once for each connection, and Node warns of that.
const HOW = {
  stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  execArgv: ['--disable-warning=MaxListenersExceededWarning'],
};

export class Crowd {
  #crews;
  failures = [];

  constructor() {
    this.#crews = Array.from({length: CREWS}, () => ({process: fork(CREW, HOW)}));
  }

  #tell(crew, message) {
    return new Promise((resolve, reject) => {
      const gone = code => reject(new Error(`a process of tabs ended (${code}) before it could ${message.order}`));
      crew.process.once('exit', gone);
      crew.process.once('message', ({tally, failures}) => {
        crew.process.off('exit', gone);
        crew.tally = tally;
        this.failures.push(...failures);
        resolve();
      });
      crew.process.send(message);
    });
  }

  async #all(order, how = () => ({})) {
    await Promise.all(this.#crews.map((crew, i) => this.#tell(crew, {order, ...how(i)})));
    if (this.failures.length === 0) return;
    const shown = this.failures.slice(0, SHOWN).join('\n\n');
    throw new Error(`${this.failures.length} things are not as they should be:\n${shown}`);
  }

  /** `world`: server, upstream and issues. */
  begin(world, tabs, seed) {
    return this.#all('begin', crew => ({...world, crew, count: Math.ceil(tabs / CREWS), seed: seed + crew}));
  }

  /** Everybody comes and works until told to rest. */
  work() {
    return this.#all('work');
  }

  /** Until all is settled, and every view is as Postgres says. */
  rest() {
    return this.#all('rest');
  }

  end() {
    return this.#all('end');
  }

  /** For when there is no time to end in order. */
  kill() {
    for (const {process} of this.#crews) process.kill('SIGKILL');
  }

  /** What all did. */
  get tally() {
    const sum = {};
    for (const {tally = {}} of this.#crews) {
      for (const [name, n] of Object.entries(tally)) {
        sum[name] = MOST.includes(name) ? Math.max(sum[name] ?? 0, n) : (sum[name] ?? 0) + n;
      }
    }
    return sum;
  }
}
