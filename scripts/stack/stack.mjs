// Everything that the sample app needs, started in order and stopped in reverse:
// Postgres, rows, backend, sync server, page.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {Backend} from './backend.mjs';
import {children} from './child.mjs';
import {Page} from './page.mjs';
import {freePort} from './ports.mjs';
import {Postgres} from './postgres.mjs';
import {seed} from './seed.mjs';
import {Server} from './server.mjs';

export class Stack {
  #parts = [];
  #current;
  #stopping;

  /**
   * `say(line)` hears of each step. With `page: false` nothing is served to
   * browsers. `settings` are further ZERO_ settings for the server.
   */
  async start({name = 'kelvin', size, page = true, settings, ports = {}, verbose = false, say = () => {}} = {}) {
    try {
      await this.#start({name, size, page, settings, ports, verbose, say});
    } catch (e) {
      await this.stop();
      throw e;
    }
    return this;
  }

  async #step(say, what, start) {
    if (this.#stopping) throw new Error('stopped');
    say(what);
    const before = new Set(children);
    const done = start();
    this.#current = {before, done};
    const part = await done;
    this.#current = undefined;
    this.#parts.push(part);
    return part;
  }

  async #start({name, size, page, settings, ports, verbose, say}) {
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), `${name}-`));
    // Postgres may run as another user and must be able to pass through.
    fs.chmodSync(this.dir, 0o755);

    this.postgres = await this.#step(say, 'starting a scratch Postgres', () => Postgres.start(this.dir, {verbose}));
    const counts = size ? `${size.issues} issues, ${size.comments} comments` : 'the default rows';
    await this.#step(say, `filling it with ${counts}`, async () => {
      await seed(this.postgres, size);
      return {stop: () => {}};
    });
    const upstream = this.postgres.url('app');

    const backendPort = ports.backend ?? (await freePort());
    this.backend = await this.#step(say, 'starting the sample backend', () =>
      Backend.start({upstream, port: backendPort, verbose}),
    );
    const port = ports.server ?? (await freePort());
    const changePort = await freePort();
    this.server = await this.#step(say, 'starting the sync server and waiting for its first copy of the data', () =>
      Server.start({dir: this.dir, upstream, backend: this.backend.url, port, changePort, settings, verbose}),
    );
    if (page) {
      const pagePort = ports.page ?? (await freePort());
      this.page = await this.#step(say, 'serving the page', () =>
        Page.start({port: pagePort, server: this.server.url}),
      );
    }
  }

  /** Stops what runs, newest first, and removes what it left. Safe to call twice. */
  stop() {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop() {
    const failures = [];
    const attempt = async work => {
      try {
        await work();
      } catch (e) {
        failures.push(e);
      }
    };
    // A step that is under way fails when its processes do.
    const current = this.#current;
    for (const child of current ? children : []) {
      if (!current.before.has(child)) await attempt(() => child.kill());
    }
    for (const part of this.#parts.splice(0).reverse()) await attempt(() => part.stop());
    await current?.done.then(
      part => attempt(() => part.stop()),
      () => {},
    );
    if (this.dir) await attempt(() => fs.rmSync(this.dir, {recursive: true, force: true, maxRetries: 5}));
    if (failures.length > 0) throw new AggregateError(failures, 'could not stop everything');
  }
}
