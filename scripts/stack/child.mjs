// A process that we started, and everything below it.
import {spawn} from 'node:child_process';
import fs from 'node:fs';
import {setTimeout as sleep} from 'node:timers/promises';

const KEPT_LINES = 60;

/** Those that run. */
export const children = new Set();

/** All processes below one, whatever sessions and groups they made for themselves. */
function below(pid) {
  const parents = new Map();
  for (const name of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = fs.readFileSync(`/proc/${name}/stat`, 'utf8');
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]));
    } catch {
      // Gone since.
    }
  }
  const found = [pid];
  for (const above of found) {
    for (const [child, parent] of parents) if (parent === above) found.push(child);
  }
  return found.slice(1);
}

export class Child {
  #process;
  #lines = [];
  #partial = '';
  /** Resolves with a description of how it ended; never rejects. */
  ended;
  /** How it ended, once it has. */
  outcome;

  constructor(name, command, args, {env = process.env, cwd, uid, gid, verbose = false} = {}) {
    this.name = name;
    this.verbose = verbose;
    // A process group of its own: Ctrl-C reaches only us, and we stop things in
    // order. The parent-death signal is for the case that we are killed outright.
    this.#process = spawn('setpriv', ['--pdeathsig', 'TERM', '--', command, ...args], {
      cwd,
      env,
      uid,
      gid,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    children.add(this);
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream.setEncoding('utf8');
      stream.on('data', text => this.#keep(text));
    }
    this.ended = new Promise(resolve => {
      const done = how => {
        children.delete(this);
        resolve((this.outcome ??= how));
      };
      this.#process.once('error', e => done(`could not be started: ${e.message}`));
      this.#process.once('exit', (code, signal) => done(signal ? `killed by ${signal}` : `exit status ${code}`));
    });
  }

  get pid() {
    return this.#process.pid;
  }

  #keep(text) {
    if (this.verbose) process.stderr.write(text);
    const lines = (this.#partial + text).split('\n');
    this.#partial = lines.pop();
    this.#lines.push(...lines);
    if (this.#lines.length > KEPT_LINES) this.#lines.splice(0, this.#lines.length - KEPT_LINES);
  }

  /** The end of what it printed. */
  get log() {
    return [...this.#lines, this.#partial].filter(Boolean).join('\n');
  }

  failure(what) {
    return new Error(`${this.name} ${what}${this.log ? `; it said:\n${this.log.replace(/^/gm, '    ')}` : ''}`);
  }

  /** Waits until `test` gives something, or the process ends, or the time is up. */
  async until(test, what, ms) {
    const end = Date.now() + ms;
    for (;;) {
      if (this.outcome) throw this.failure(`ended before it was ${what} (${this.outcome})`);
      const value = await test().catch(() => undefined);
      if (value) return value;
      if (Date.now() > end) throw this.failure(`is not ${what} after ${ms / 1000} s`);
      await Promise.race([sleep(50), this.ended]);
    }
  }

  /** Asks with `signal`; insists after `ms`. Takes what it started along. */
  async stop(signal = 'SIGTERM', ms = 15_000) {
    if (this.pid === undefined) return;
    const family = this.outcome ? [] : below(this.pid);
    if (!this.outcome) {
      process.kill(this.pid, signal);
      await Promise.race([this.ended, sleep(ms, undefined, {ref: false})]);
    }
    await this.#end(family);
  }

  /** No chance to tidy up: what a crash or a lost machine looks like. */
  async kill() {
    if (this.pid === undefined) return;
    await this.#end(this.outcome ? [] : below(this.pid));
  }

  async #end(family) {
    const own = this.outcome ? [] : [this.pid];
    // The group, for what was started since we looked.
    for (const pid of [...own, ...family, -this.pid]) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended.
      }
    }
    await this.ended;
  }
}
