// Waiting for what must come true, with a message for when it does not.
import {setTimeout as sleep} from 'node:timers/promises';

export const MS = 15_000;

/** Waits until `test` gives something; an exception counts as "not yet". */
export async function eventually(what, test, ms = MS) {
  const end = Date.now() + ms;
  for (;;) {
    let reason = '';
    try {
      const value = await test();
      if (value) return value;
    } catch (e) {
      reason = `: ${e.message}`;
    }
    if (Date.now() > end) throw new Error(`not within ${ms / 1000} s: ${what}${reason}`);
    await sleep(20);
  }
}

/** A promise that must settle in time. */
export async function within(what, promise, ms = MS) {
  const timer = new AbortController();
  try {
    return await Promise.race([
      promise,
      sleep(ms, undefined, {signal: timer.signal}).then(() => {
        throw new Error(`not within ${ms / 1000} s: ${what}`);
      }),
    ]);
  } finally {
    timer.abort();
  }
}
