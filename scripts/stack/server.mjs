// The sync server: the program that KELVIN_BIN names, told everything by its
// ZERO_ settings.
import fs from 'node:fs';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import {Child} from './child.mjs';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const READY_MS = Number(process.env.KELVIN_READY_SECONDS ?? 120) * 1000;

/** KELVIN_BIN, else what `cargo build --profile ci` leaves. */
export function findServer() {
  const target = path.resolve(ROOT, process.env.CARGO_TARGET_DIR || 'target');
  const bin = process.env.KELVIN_BIN || path.join(target, 'ci', 'kelvin');
  try {
    fs.accessSync(bin, fs.constants.X_OK);
  } catch {
    throw new Error(`no server at ${bin}; run "cargo build --profile ci", or set KELVIN_BIN`);
  }
  return path.resolve(bin);
}

export class Server {
  #verbose;

  static async start({dir, upstream, backend, port, changePort, settings = {}, verbose}) {
    const server = new Server();
    server.bin = findServer();
    server.#verbose = verbose;
    server.port = port;
    server.url = `http://127.0.0.1:${port}`;
    server.replica = path.join(dir, 'replica', 'replica.db');
    fs.mkdirSync(path.dirname(server.replica));
    server.settings = {
      // Preferences that may come from outside ...
      ZERO_LOG_LEVEL: 'warn',
      ZERO_NUM_SYNC_WORKERS: '1',
      ZERO_ADMIN_PASSWORD: 'admin',
      ...Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith('ZERO_'))),
      // ... and places that may not: a database named in somebody's shell must
      // never become the one that a scratch server writes to.
      ZERO_UPSTREAM_DB: upstream,
      ZERO_CVR_DB: undefined,
      ZERO_CHANGE_DB: undefined,
      ZERO_LITESTREAM_BACKUP_URL: undefined,
      ZERO_CHANGE_STREAMER_URI: undefined,
      ZERO_REPLICA_FILE: server.replica,
      ZERO_PORT: String(port),
      ZERO_CHANGE_STREAMER_PORT: String(changePort),
      ZERO_QUERY_URL: `${backend}/query`,
      ZERO_MUTATE_URL: `${backend}/mutate`,
      ZERO_ENABLE_TELEMETRY: 'false',
      ...settings,
    };
    await server.up();
    return server;
  }

  /** Starts the process; the replica, the port and the settings stay as they were. */
  async up() {
    const outside = Object.entries(process.env).filter(([name]) => !name.startsWith('ZERO_'));
    const env = {...Object.fromEntries(outside), DO_NOT_TRACK: '1', ...this.settings};
    this.child = new Child('The server', this.bin, [], {env, cwd: path.dirname(this.replica), verbose: this.#verbose});
    try {
      await this.child.until(
        async () => (await fetch(`${this.url}/keepalive`, {signal: AbortSignal.timeout(5_000)})).ok,
        'ready',
        READY_MS,
      );
    } catch (e) {
      await this.stop();
      throw e;
    }
  }

  async stop() {
    await this.child?.stop('SIGTERM', 20_000);
  }

  async kill() {
    await this.child?.kill();
  }

  async restart() {
    await this.stop();
    await this.up();
  }
}
