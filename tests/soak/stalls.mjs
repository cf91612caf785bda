// How long this process did not get to do anything: on a busy machine that is seconds, in which no tab
// hears of what has long been sent to it.
const LOOK_MS = 100;
const KEPT_MS = 120_000;

export class Stalls {
  #stalls = [];
  #last = Date.now();
  #timer = setInterval(() => this.#look(), LOOK_MS);
  longest = 0;

  #look() {
    const now = Date.now();
    const length = now - this.#last - LOOK_MS;
    this.#last = now;
    this.longest = Math.max(this.longest, length);
    if (length > LOOK_MS) this.#stalls.push({end: now, length});
    while (this.#stalls[0]?.end < now - KEPT_MS) this.#stalls.shift();
  }

  /** Milliseconds since then, including a stall that has not been noticed yet. */
  since(moment) {
    this.#look();
    const part = ({end, length}) => Math.max(0, Math.min(length, end - moment));
    return this.#stalls.reduce((sum, stall) => sum + part(stall), 0);
  }

  end() {
    clearInterval(this.#timer);
  }
}
