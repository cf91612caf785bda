// What the server takes of memory over one life.
import fs from 'node:fs';

const SAMPLE_MS = 1_000;

/**
 * Bytes that a server may have more at the end of a life than after its first minutes. By then it has given up the
 * first views of clients that went, as it goes on doing; what may still come is what an allocator keeps, and a few
 * kilobytes for each client that it has to remember.
 */
export const GROWTH = 48 << 20;

export class Memory {
  #samples = [];
  #timer;

  constructor(pid) {
    const take = () => {
      try {
        const [, kib] = /^VmRSS:\s+(\d+) kB/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));
        this.#samples.push({at: Date.now(), bytes: Number(kib) * 1024});
      } catch {
        // It has ended.
      }
    };
    take();
    this.#timer = setInterval(take, SAMPLE_MS);
  }

  end() {
    clearInterval(this.#timer);
  }

  get peak() {
    return Math.max(...this.#samples.map(s => s.bytes));
  }

  /** Middle value of a part of the life, each end given as a share of it. */
  middle(from, to) {
    const {length} = this.#samples;
    const part = this.#samples.slice(Math.floor(from * length), Math.max(1, Math.ceil(to * length)));
    return part.map(s => s.bytes).sort((a, b) => a - b)[part.length >> 1];
  }
}

export const mib = bytes => `${Math.round(bytes / 2 ** 20)} MiB`;
