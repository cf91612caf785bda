// After a day of comings and goings, with the server ended under load, something is lost or left: a minute
// of what `make soak` does for ten.
import {test} from 'node:test';
import {day} from '../soak/day.mjs';

test('tabs come and go, the server is killed and stopped, and all is as Postgres says', {timeout: 420_000}, t =>
  day({minutes: 1, tabs: 24, ends: 2, say: line => t.diagnostic(line)}),
);
