// Runs the sample backend until it is told to stop.
//
//   UPSTREAM_DB=postgres://... PORT=4900 node main.mjs
//
// UPSTREAM_DB  the app's database (required)
// PORT         port on HOST; 0 takes a free one   (4900)
// HOST         address to listen on               (127.0.0.1)
// LOG_LEVEL    debug, info, warn or error         (error)
import {startBackend} from './app.mjs';

const {UPSTREAM_DB, PORT = '4900', HOST = '127.0.0.1', LOG_LEVEL = 'error'} = process.env;
if (!UPSTREAM_DB) {
  console.error('UPSTREAM_DB is not set: give it the URL of the app\'s database');
  process.exit(2);
}

let app;
try {
  app = await startBackend({upstream: UPSTREAM_DB, port: Number(PORT), host: HOST, logLevel: LOG_LEVEL});
} catch (e) {
  console.error(`cannot listen on ${HOST}:${PORT}: ${e.message}`);
  process.exit(1);
}
console.log(`backend ready on ${app.url}`);

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, async () => {
    await app.stop();
    process.exit(0);
  });
}
