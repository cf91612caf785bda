// The two endpoints that the sync server calls: /query turns named queries into
// ZQL, /mutate runs mutators against Postgres.
import http from 'node:http';
import {mustGetMutator, mustGetQuery} from '@rocicorp/zero';
import {handleMutateRequest, handleQueryRequest} from '@rocicorp/zero/server';
import {zeroPostgresJS} from '@rocicorp/zero/server/adapters/postgresjs';
import postgres from 'postgres';
import {userOf} from '../shared/identity.mjs';
import {mutators} from '../shared/mutators.mjs';
import {queries} from '../shared/queries.mjs';
import {schema} from '../shared/schema.mjs';

const MAX_BODY = 16 << 20;

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** No token is a visitor; a token that is not ours is an error. */
function identify(headers) {
  const token = /^Bearer (.+)$/i.exec(headers.authorization ?? '')?.[1];
  if (token === undefined) return null;
  const userID = userOf(token);
  if (userID === undefined) throw new Refused(401, 'unknown token');
  return userID;
}

async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY) throw new Refused(413, 'body too large');
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString());
  } catch {
    throw new Refused(400, 'the body is not JSON');
  }
}

export async function startBackend({upstream, port, host = '127.0.0.1', logLevel = 'error'}) {
  const sql = postgres(upstream, {max: 10, onnotice: () => {}});
  const dbProvider = zeroPostgresJS(schema, sql);

  const endpoints = {
    '/query': (body, query, userID) => {
      const ctx = userID === null ? undefined : {userID};
      return handleQueryRequest({
        handler: (name, args) => mustGetQuery(queries, name).fn({args, ctx}),
        schema,
        query,
        body,
        userID,
        logLevel,
      });
    },
    '/mutate': (body, query, userID) => {
      const ctx = userID === null ? undefined : {userID};
      return handleMutateRequest({
        dbProvider,
        handler: transact => transact((tx, name, args) => mustGetMutator(mutators, name).fn({tx, args, ctx})),
        query,
        body,
        userID,
        logLevel,
      });
    },
  };

  async function answer(request) {
    const url = new URL(request.url, 'http://backend');
    if (url.pathname === '/health') return {ok: true};
    const endpoint = endpoints[url.pathname];
    if (!endpoint) throw new Refused(404, 'no such path');
    if (request.method !== 'POST') throw new Refused(405, 'POST only');
    const userID = identify(request.headers);
    return endpoint(await read(request), url.searchParams, userID);
  }

  const server = http.createServer(async (request, response) => {
    let status = 200;
    let body;
    try {
      body = await answer(request);
    } catch (e) {
      status = e instanceof Refused ? e.status : 500;
      body = {error: e.message};
      if (status === 500) console.error(e);
    }
    response.writeHead(status, {'content-type': 'application/json'});
    response.end(JSON.stringify(body));
  });
  // The sync server keeps its connections; Node's 5 s would end one just as a
  // request goes out on it.
  server.keepAliveTimeout = 120_000;

  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
  return {
    url: `http://${host}:${server.address().port}`,
    async stop() {
      const closed = new Promise(resolve => server.close(resolve));
      server.closeAllConnections();
      await closed;
      await sql.end({timeout: 2});
    },
  };
}
