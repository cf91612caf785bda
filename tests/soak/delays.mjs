// A server whose threads are left aside now and then.
import {execFileSync} from 'node:child_process';
import path from 'node:path';
import {fileURLToPath} from 'node:url';

const SOURCE = fileURLToPath(new URL('delayclock.c', import.meta.url));

// Longer than the server waits between two looks at a silent socket.
const DELAY_MS = 300;

/** Kinds of threads, as the server names them. */
export const THREADS = ['replication', 'syncer', 'replica-writer', 'syncer,replication', 'hydration,memory,log'];

/** Builds the library into `directory`. */
export function buildDelays(directory) {
  const library = path.join(directory, 'delayclock.so');
  execFileSync(process.env.CC ?? 'cc', ['-O2', '-shared', '-fPIC', '-o', library, SOURCE, '-ldl'], {stdio: 'pipe'});
  return library;
}

/**
 * Settings of a server whose `threads` are delayed: every `gapMs` on average, or with `every` at one in so many
 * looks at the clock, so that they are sooner or later between any two of them.
 */
export function delayed(library, threads, {gapMs = 4_000, every} = {}) {
  return {
    LD_PRELOAD: library,
    DELAY_THREADS: threads,
    DELAY_MS: String(DELAY_MS),
    DELAY_GAP_MS: String(gapMs),
    DELAY_EVERY: every && String(every),
  };
}
