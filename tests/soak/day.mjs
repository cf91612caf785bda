// A day of a server: tabs come, work and go, it ends five times, its threads are held up; and whenever
// all rest, every change is settled and every view is what Postgres says.
import fs from 'node:fs';
import {setTimeout as sleep} from 'node:timers/promises';
import postgres from 'postgres';
import {Stack} from '../../scripts/stack/stack.mjs';
import {Crowd} from './crowd.mjs';
import {buildDelays, delayed, THREADS} from './delays.mjs';
import {GROWTH, Memory, mib} from './memory.mjs';
import {Random} from './random.mjs';
import {Writers} from './writers.mjs';

const SIZE = {issues: 1_500, comments: 4_000, users: 40, projects: 6};
/** Issues that tabs and writers are at. */
const ISSUES = Array.from({length: 60}, (_, i) => `i${String(i * 7).padStart(7, '0')}`);
/** How the server ends, in order. */
const ENDS = ['SIGKILL', 'SIGTERM', 'SIGKILL', 'SIGKILL', 'SIGTERM'];
/** Part of the day in which it ends; the rest is one life, over which its memory must be flat. */
const RESTLESS = 0.5;
/** Longest time between its end and its next start. */
const DOWN_MS = 2_500;
/** Part of the last life after which memory does not grow any more. */
const WARM = 0.4;

/**
 * `minutes` of it, with so many `tabs`; `ends` times the server ends. `say` hears how it goes, `stop` ends it
 * early.
 */
export async function day({minutes = 10, tabs = 60, ends = ENDS.length, seed = process.pid, say = console.log, stop}) {
  const day = new Day({length: minutes * 60_000, tabs, ends, seed, say});
  const stopped = new Promise((_, reject) => stop?.addEventListener('abort', () => reject(new Error('stopped'))));
  const run = day.run();
  // One that is stopped early breaks off somewhere.
  run.catch(() => {});
  try {
    await Promise.race([run, stopped]);
  } finally {
    await day.stop();
  }
}

class Day {
  constructor(how) {
    Object.assign(this, how);
    this.random = new Random(this.seed);
    this.stack = new Stack();
    this.crowd = new Crowd();
  }

  async run() {
    this.say(`seed ${this.seed}, ${this.tabs} tabs, ${this.ends} ends`);
    await this.stack.start({name: 'kelvin-soak', size: SIZE, page: false, verbose: !!process.env.SOAK_VERBOSE});
    this.library = buildDelays(this.stack.dir);
    this.watch();
    const upstream = this.stack.postgres.url('app');
    this.sql = postgres(upstream, {max: 3, onnotice: () => {}});
    await this.crowd.begin({server: this.stack.server.url, upstream, issues: ISSUES}, this.tabs, this.seed);
    for (let number = 0; number < this.ends; number++) await this.life(number);
    await this.lastLife();
    const {tally} = this.crowd;
    if (tally.failed > 0) throw new Error(`${tally.failed} changes failed that were neither confirmed nor refused`);
    if (tally.refused === 0 || tally.confirmed === 0) throw new Error('the day was too quiet to show anything');
    await this.crowd.end();
  }

  /** Looks at the memory of the present process. */
  watch() {
    this.memory?.end();
    this.memory = new Memory(this.stack.server.child.pid);
  }

  /** Has everybody begin. */
  async work() {
    await this.crowd.work();
    return new Writers(this.sql, ISSUES, this.random.below(2 ** 31));
  }

  /** One life that ends under load, and the rest after it. */
  async life(number) {
    const {server} = this.stack;
    const share = (this.length * RESTLESS) / this.ends;
    const writers = await this.work();
    // Not at the same moment of each.
    await sleep(share * (0.5 + this.random.below(50) / 100));
    const signal = ENDS[number % ENDS.length];
    if (server.child.outcome) throw server.child.failure(`ended by itself (${server.child.outcome})`);
    await (signal === 'SIGKILL' ? server.kill() : server.stop());
    await sleep(this.random.below(DOWN_MS));
    const threads = THREADS[number % THREADS.length];
    Object.assign(server.settings, delayed(this.library, threads));
    const {peak} = this.memory;
    await server.up();
    this.watch();
    const mapped = fs.readFileSync(`/proc/${server.child.pid}/maps`, 'utf8');
    if (!mapped.includes(this.library)) throw new Error('the server runs without delays');
    // The first things that the new one is asked come under load as well.
    await sleep(share * 0.15);
    await this.rest(writers, `${signal}; memory was ${mib(peak)} at most; now with delays of ${threads}`);
  }

  async lastLife() {
    const {server} = this.stack;
    const writers = await this.work();
    await sleep(this.length * (1 - RESTLESS));
    const warm = this.memory.middle(WARM, WARM + 0.15);
    const late = this.memory.middle(0.85, 1);
    await this.rest(writers, `the end; memory was ${mib(warm)}, then ${mib(late)}, ${mib(this.memory.peak)} at most`);
    if (server.child.outcome) throw server.child.failure(`ended by itself (${server.child.outcome})`);
    if (late > warm + GROWTH) throw new Error(`memory grew from ${mib(warm)} to ${mib(late)}`);
  }

  async rest(writers, after) {
    const began = Date.now();
    await writers.end();
    await this.crowd.rest();
    const {tally} = this.crowd;
    const took = ((Date.now() - began) / 1000).toFixed(1);
    this.say(`${after}: at rest after ${took} s, ${writers.commits} commits, ${JSON.stringify(tally)}`);
  }

  async stop() {
    this.memory?.end();
    this.crowd.kill();
    await this.sql?.end({timeout: 1});
    await this.stack.stop();
  }
}
