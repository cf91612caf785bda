// A scratch Postgres: its own directory and port, loopback only, gone afterwards.
// Never the cluster of the system.
import {execFile, execFileSync} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import {Child} from './child.mjs';
import {freePort} from './ports.mjs';

const OLDEST = 15;

/** The directory of initdb and postgres: PG_BIN, else the newest one installed. */
export function findPostgres() {
  const asked = process.env.PG_BIN;
  if (asked) {
    if (!fs.existsSync(path.join(asked, 'initdb'))) throw new Error(`PG_BIN=${asked} has no initdb`);
    return asked;
  }
  const root = '/usr/lib/postgresql';
  const versions = (fs.existsSync(root) ? fs.readdirSync(root) : [])
    .map(Number)
    .filter(v => v >= OLDEST && fs.existsSync(`${root}/${v}/bin/initdb`))
    .sort((a, b) => b - a);
  if (versions.length === 0) {
    throw new Error(`no PostgreSQL ${OLDEST} or newer found under ${root}; install it, or set PG_BIN`);
  }
  return `${root}/${versions[0]}/bin`;
}

/** Postgres refuses to run as root: hand it to its own user then. */
function owner() {
  if (process.getuid() !== 0) return {};
  const id = flag => Number(execFileSync('id', [flag, process.env.PG_OS_USER ?? 'postgres'], {encoding: 'utf8'}));
  return {uid: id('-u'), gid: id('-g')};
}

export class Postgres {
  constructor(bin, dir) {
    this.bin = bin;
    this.dir = dir;
    this.owner = owner();
  }

  static async start(dir, {verbose} = {}) {
    const pg = new Postgres(findPostgres(), path.join(dir, 'postgres'));
    fs.mkdirSync(pg.dir, {mode: 0o700});
    if (pg.owner.uid !== undefined) fs.chownSync(pg.dir, pg.owner.uid, pg.owner.gid);
    const init = new Child('initdb', `${pg.bin}/initdb`, [
      ...['-D', pg.dir, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8'],
      ...['--locale=C.UTF-8', '--no-sync'],
    ], {...pg.owner, cwd: dir});
    if ((await init.ended) !== 'exit status 0') throw init.failure(`failed (${init.outcome})`);

    pg.port = await freePort();
    const settings = {
      listen_addresses: '127.0.0.1',
      unix_socket_directories: '',
      wal_level: 'logical',
      max_wal_senders: 20,
      max_replication_slots: 20,
      max_connections: 200,
      shared_buffers: '256MB',
      max_wal_size: '4GB',
      // Scratch data: a crash of the machine may take it.
      fsync: 'off',
      timezone: 'UTC',
      // Before a slow walsender is given up at shutdown.
      wal_sender_timeout: '10s',
    };
    const options = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    pg.child = new Child('Postgres', `${pg.bin}/postgres`, ['-D', pg.dir, '-p', String(pg.port), ...options], {
      ...pg.owner,
      cwd: dir,
      verbose,
    });
    try {
      await pg.child.until(async () => pg.psql('postgres', ['-c', 'select 1']), 'ready', 60_000);
    } catch (e) {
      await pg.stop();
      throw e;
    }
    return pg;
  }

  url(database) {
    return `postgres://postgres@127.0.0.1:${this.port}/${database}`;
  }

  /** Runs psql and gives what it prints: unaligned rows, no headers. */
  psql(database, args) {
    return new Promise((resolve, reject) => {
      execFile(
        path.join(this.bin, 'psql'),
        ['-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-d', this.url(database), ...args],
        {maxBuffer: 64 << 20},
        (error, stdout, stderr) => (error ? reject(new Error(stderr.trim() || error.message)) : resolve(stdout.trim() || '\n')),
      );
    });
  }

  /** Commits one statement, as somebody at a psql prompt would. */
  async run(statement, database = 'app') {
    return (await this.psql(database, ['-c', statement])).trim();
  }

  /** "Immediate" shutdown is enough: nobody will start it again. */
  async stop() {
    await this.child?.stop('SIGQUIT', 10_000);
  }
}
