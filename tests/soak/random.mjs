// Choices that a seed repeats.
export class Random {
  #state;

  constructor(seed) {
    this.#state = seed >>> 0 || 1;
  }

  /** A number from 0 to below `n`. */
  below(n) {
    // xorshift32: good enough to choose by.
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state % n;
  }

  percent(n) {
    return this.below(100) < n;
  }

  pick(list) {
    return list[this.below(list.length)];
  }
}
