// The sample app, running, for the tests of one file.
import {after, before} from 'node:test';
import postgres from 'postgres';
import {Stack} from '../../../scripts/stack/stack.mjs';
import {closeClients} from './client.mjs';

const SIZE = {issues: 10_000, comments: 50_000, users: 200, projects: 12};

/** Starts it before the tests of the calling file and stops it after them. */
export function useApp(options = {}) {
  const app = {stack: new Stack()};
  before(
    async () => {
      await app.stack.start({
        name: 'kelvin-e2e',
        size: SIZE,
        page: false,
        verbose: !!process.env.E2E_VERBOSE,
        ...options,
      });
      app.sql = postgres(app.stack.postgres.url('app'), {max: 2, onnotice: () => {}});
    },
    {timeout: 180_000},
  );
  after(
    async () => {
      try {
        await closeClients();
        await app.sql?.end({timeout: 1});
      } finally {
        await app.stack.stop();
      }
    },
    {timeout: 60_000},
  );
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => app.stack.stop().finally(() => process.exit(1)));
  }
  return app;
}
