// The stock client's inspector cannot use what the server answers, or is told something else than is so.
import assert from 'node:assert/strict';
import {test} from 'node:test';
import {queries} from '../../demo/shared/queries.mjs';
import {useApp} from './lib/app.mjs';
import {Client} from './lib/client.mjs';

const app = useApp();

test('a developer sees queries, times and plans', async () => {
  const client = new Client(app);
  const watch = await client.watch(queries.issue.detail({id: 'i0000300'}));
  await client.watch(queries.project.all());
  const {inspector} = client.zero;

  assert.equal(await inspector.authenticate('wrong'), false);
  await assert.rejects(inspector.serverVersion());
  assert.equal(await inspector.authenticate('admin'), true);
  assert.match(await inspector.serverVersion(), /\d/);

  const seen = await inspector.client.queries();
  const detail = seen.find(query => query.name === 'issue.detail');
  assert.ok(detail, `it is among ${seen.map(query => query.name)}`);
  assert.deepEqual(detail.args, [{id: 'i0000300'}]);
  assert.equal(detail.got, true);
  assert.ok(detail.rowCount >= 1 && detail.hydrateServer > 0);
  assert.match(detail.serverZQL, /^issues/);
  assert.ok((await inspector.metrics())['query-materialization-server'].count() >= 2);

  const result = await detail.analyze({syncedRows: true});
  assert.equal(result.syncedRowCount, detail.rowCount);
  assert.equal(result.syncedRows.issues[0].id, 'i0000300');
  assert.ok(Object.values(result.sqlitePlans).flat().every(step => !/^SCAN t\d+$/.test(step)), 'no scans');
  const named = await inspector.analyzeNamedQuery('issue.detail', [{id: 'i0000300'}], {});
  assert.equal(named.syncedRowCount, detail.rowCount);
  // The client does not show why.
  await assert.rejects(inspector.analyzeServerAST({table: 'nobody'}));
  assert.equal(watch.data.id, 'i0000300');
  assert.equal(client.state, 'connected');
});
