// zero-cache takes over from Kelvin, or Kelvin from zero-cache, and what the other has left upstream is in the way.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import {test} from 'node:test';
import {fileURLToPath} from 'node:url';
import Database from '@rocicorp/zero-sqlite3';
import {Child} from '../../scripts/stack/child.mjs';
import {freePort} from '../../scripts/stack/ports.mjs';
import {useApp} from './lib/app.mjs';
import {eventually} from './lib/waiting.mjs';

const app = useApp({size: {issues: 100, comments: 100, users: 10, projects: 2}});
const PROGRAM = fileURLToPath(new URL('../../node_modules/@rocicorp/zero/out/zero/src/cli.js', import.meta.url));
const START = 60_000;
// Copying hangs now and then with older ones.
const skip = Number(process.versions.node.split('.')[0]) < 22 && 'zero-cache needs Node 22';

const ROLE = `DO 'BEGIN CREATE ROLE migrator; EXCEPTION WHEN duplicate_object THEN NULL; END'; GRANT ALL ON SCHEMA public TO migrator`;

/** A zero-cache on the app's database, ready. */
async function zeroCache(appID) {
  const port = await freePort();
  const dir = fs.mkdtempSync(path.join(app.stack.dir, 'zero-cache-'));
  await app.sql.unsafe(`CREATE DATABASE cache_${port}`);
  const outside = Object.entries(process.env).filter(([name]) => !name.startsWith('ZERO_'));
  const env = {
    ...Object.fromEntries(outside),
    DO_NOT_TRACK: '1',
    NODE_ENV: 'production',
    ZERO_APP_ID: appID,
    ZERO_UPSTREAM_DB: app.stack.postgres.url('app'),
    ZERO_CVR_DB: app.stack.postgres.url(`cache_${port}`),
    ZERO_CHANGE_DB: app.stack.postgres.url(`cache_${port}`),
    ZERO_REPLICA_FILE: path.join(dir, 'replica.db'),
    ZERO_STORAGE_DB_TMP_DIR: dir,
    ZERO_PORT: String(port),
    ZERO_NUM_SYNC_WORKERS: '1',
    ZERO_LOG_LEVEL: 'warn',
    ZERO_ADMIN_PASSWORD: 'admin',
    ZERO_QUERY_URL: `${app.stack.backend.url}/query`,
    ZERO_ENABLE_TELEMETRY: 'false',
  };
  const child = new Child('zero-cache', process.execPath, [PROGRAM], {env, cwd: dir, verbose: !!process.env.E2E_VERBOSE});
  const ready = async () => (await fetch(`http://127.0.0.1:${port}/keepalive`, {signal: AbortSignal.timeout(5_000)})).ok;
  await child.until(ready, 'ready', START);
  return {child, replica: env.ZERO_REPLICA_FILE};
}

/** What an app does whose role owns its tables, and has no other rights. */
async function migrates(statements) {
  await app.sql.unsafe(`SET ROLE migrator; ${statements}; RESET ROLE`);
}

function rows(file, sql) {
  const db = new Database(file, {readonly: true});
  try {
    return db.prepare(sql).all();
  } finally {
    db.close();
  }
}

async function has(file, table, expected) {
  await eventually(`${table} is ${JSON.stringify(expected)}`, () => {
    assert.deepEqual(rows(file, `SELECT ${Object.keys(expected).join(', ')} FROM ${table}`), [expected]);
    return true;
  }, START);
}

async function left(appID) {
  const [{definers}] = await app.sql.unsafe(
    `SELECT count(*) FILTER (WHERE prosecdef)::int AS definers FROM pg_proc WHERE pronamespace = '${appID}_0'::regnamespace`,
  );
  const [{ddlDetection}] = await app.sql.unsafe(`SELECT "ddlDetection" FROM ${appID}_0."shardConfig"`);
  const [{schemaVersion}] = await app.sql.unsafe(`SELECT "schemaVersion" FROM ${appID}_0."versionHistory"`);
  return {definers, ddlDetection, schemaVersion};
}

test('zero-cache does not go on with what Kelvin has set up, or Kelvin not after it', {skip}, async () => {
  const server = app.stack.server;
  await app.sql.unsafe(ROLE);
  await migrates('CREATE TABLE first (id int PRIMARY KEY, a text); INSERT INTO first VALUES (1)');
  await has(server.replica, 'first', {id: 1, a: null});
  const made = {definers: 8, ddlDetection: true, schemaVersion: 23};
  assert.deepEqual(await left('zero'), made);
  await server.stop();

  const {child, replica} = await zeroCache('zero');
  await has(replica, 'first', {id: 1, a: null});
  await migrates(`
    CREATE TEMP TABLE own (id int); ALTER TABLE first ADD b int DEFAULT 4; UPDATE first SET a = 'x';
    CREATE TABLE second (id int PRIMARY KEY, t text); CREATE INDEX ON second (t)`);
  await migrates(`INSERT INTO second VALUES (2, 'y'); ALTER TABLE first RENAME a TO c; ALTER TABLE second ADD d text DEFAULT 'd'`);
  await has(replica, 'first', {id: 1, c: 'x', b: 4});
  await has(replica, 'second', {id: 2, t: 'y', d: 'd'});
  assert.equal(child.outcome, undefined);
  assert.deepEqual(await left('zero'), made);
  await child.stop();

  await server.up();
  await migrates('ALTER TABLE second ADD e int DEFAULT 5');
  await has(server.replica, 'second', {id: 2, t: 'y', d: 'd', e: 5});
  assert.deepEqual(await left('zero'), made);
  await migrates('DROP TABLE first, second');
});

test('Kelvin does not go on with what zero-cache has set up', {skip}, async () => {
  const server = app.stack.server;
  await app.sql.unsafe(ROLE);
  await server.stop();
  const {child, replica} = await zeroCache('other');
  await eventually('it has copied the rows', () => rows(replica, 'SELECT count(*) AS n FROM issues')[0].n === 100, START);
  assert.deepEqual(await left('other'), {definers: 0, ddlDetection: true, schemaVersion: 23});
  await assert.rejects(migrates('CREATE TEMP TABLE own (id int)'), /permission denied for schema other_0/);
  await child.stop();

  Object.assign(server.settings, {ZERO_APP_ID: 'other', ZERO_REPLICA_FILE: `${server.replica}.other`});
  await server.up();
  await migrates('CREATE TEMP TABLE own (id int); CREATE TABLE third (id int PRIMARY KEY); INSERT INTO third VALUES (3)');
  await has(server.settings.ZERO_REPLICA_FILE, 'third', {id: 3});
  assert.deepEqual(await left('other'), {definers: 8, ddlDetection: true, schemaVersion: 23});
});
