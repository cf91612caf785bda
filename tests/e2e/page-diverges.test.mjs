// Two people look at the demo page, and do not see the same.
import assert from 'node:assert/strict';
import {afterEach, test} from 'node:test';
import {useApp} from './lib/app.mjs';
import {useBrowser} from './lib/browser.mjs';
import {IssuesPage} from './lib/page.mjs';
import {eventually} from './lib/waiting.mjs';

const app = useApp({page: true});
const browser = useBrowser();
const commit = statement => app.stack.postgres.run(statement);
const contexts = [];
const pages = [];

async function person(userID) {
  const context = await browser.person(userID);
  contexts.push(context);
  return context;
}

async function open(userID, hash) {
  const page = await IssuesPage.open(await person(userID), app, hash);
  pages.push(page);
  return page;
}

const twoPeople = hash => Promise.all([open('u1', hash), open('u2', hash)]);

afterEach(async () => {
  await Promise.all(contexts.splice(0).map(c => c.close()));
  assert.deepEqual(pages.splice(0).flatMap(p => p.errors), [], 'exceptions in the page');
});

test('the list is the list that SQL gives, in every filter', async () => {
  const page = await open('u1');
  const sees = async (what, where) => {
    const want = (await app.sql.unsafe(`select id from issues i where ${where} order by created_at desc, id limit 50`)).map(r => r.id);
    assert.ok(want.length > 0, `${what}: nothing to compare`);
    await eventually(what, async () => {
      assert.deepEqual(await page.rows(), want);
      return true;
    });
  };
  await sees('all issues', 'true');
  await page.page.getByRole('link', {name: 'Web app'}).click();
  await sees('a project', "project_id = 'p0'");
  await page.pick(page.page, 'Status', 'In progress');
  await sees('a project and a status', "project_id = 'p0' and status = 'in_progress'");
  await page.page.getByRole('searchbox').fill('sync');
  await sees('and a word', "project_id = 'p0' and status = 'in_progress' and (title ilike '%sync%' or body ilike '%sync%')");
  await page.page.getByRole('button', {name: 'Clear'}).click();
  await page.pick(page.page, 'Label', 'flaky');
  await sees('a project and a label', "project_id = 'p0' and exists (select from issue_labels x where x.issue_id = i.id and x.label_id = 'l9')");
  await page.page.getByRole('link', {name: 'All issues'}).click();
  await page.page.getByRole('button', {name: 'Clear'}).click();
  await page.pick(page.page, 'Assignee', 'Chloé Moreau');
  await sees('an assignee', "assignee_id = 'u2'");
});

test('pages of the list follow one another', async () => {
  const page = await open('u1', '#project=p2');
  const want = (await app.sql`select id from issues where project_id = 'p2' order by created_at desc, id limit 150`).map(r => r.id);
  const shows = (what, from, to) =>
    eventually(what, async () => {
      assert.deepEqual(await page.rows(), want.slice(from, to));
      return true;
    });
  await shows('the first 50', 0, 50);
  await page.page.getByRole('button', {name: 'Load more'}).click();
  await shows('the first 100', 0, 100);
  await page.page.getByRole('button', {name: /Next page/}).click();
  await shows('the next 50', 100, 150);
  await page.page.getByRole('button', {name: /Previous page/}).click();
  await shows('the first 50 again', 0, 50);
});

test('an edit in one window appears in the other', async () => {
  const id = 'i0009990';
  const [one, two] = await twoPeople(`#issue=${id}`);
  await one.setTitle('Edited in the first window');
  await two.has(id, 'Edited in the first window');
  await eventually('the title of the open issue', async () => (await two.title.inputValue()) === 'Edited in the first window');

  await two.pick(two.detail, 'Set priority', 'Urgent');
  await two.pick(two.detail, 'Set assignee', 'Dmitri Petrov');
  await two.pick(two.detail, 'Add label', 'accessibility');
  await one.shows('Set priority', 'Urgent');
  await one.shows('Set assignee', 'Dmitri Petrov');
  const label = page => page.detail.getByRole('button', {name: 'Remove label accessibility'});
  await label(one).click();
  await label(two).waitFor({state: 'detached'});

  await one.comment('Said in the first window');
  await two.detail.getByText('Said in the first window').waitFor();

  // Postgres streams a commit a moment before other sessions can see it.
  const comments = () => app.sql`select author_id from comments where issue_id = ${id} and body = 'Said in the first window'`;
  await eventually('the comment in the database', async () => (await comments()).length === 1);
  assert.deepEqual([...(await comments())], [{author_id: 'u1'}]);
  const [row] = await app.sql`select title, priority, assignee_id, rev from issues where id = ${id}`;
  assert.deepEqual(
    {...row, rev: Number(row.rev)},
    {title: 'Edited in the first window', priority: 4, assignee_id: 'u3', rev: 5},
  );
});

test('a commit made with psql appears in both windows', async () => {
  const id = 'i0009980';
  const [one, two] = await twoPeople(`#issue=${id}`);
  await commit(`update issues set title = 'Written with psql', status = 'wontfix' where id = '${id}'`);
  await commit(`insert into comments (id, issue_id, author_id, body) values ('c-psql', '${id}', 'u9', 'Said with psql')`);
  await commit(`insert into issues (id, project_id, num, title, creator_id) values ('from-psql', 'p0', 300001, 'Made with psql', 'u9')`);
  for (const page of [one, two]) {
    await page.has(id, 'Written with psql');
    await page.shows('Set status', 'Won’t fix');
    await page.detail.getByText('Said with psql').waitFor();
    await page.has('from-psql', 'Made with psql');
    assert.equal((await page.rows())[0], 'from-psql');
  }
});

test('an issue made in one window opens there and is listed in the other', async () => {
  const [one, two] = await twoPeople('#project=p3');
  await one.page.getByRole('button', {name: 'New issue'}).click();
  const dialog = one.page.getByRole('dialog');
  await dialog.getByLabel('Title').fill('Made in the first window');
  await dialog.getByRole('button', {name: 'Create'}).click();
  await eventually('the issue open', async () => (await one.title.inputValue()) === 'Made in the first window');
  await two.list.getByText('Made in the first window').waitFor();
  const [row] = await app.sql`select num, creator_id from issues where title = 'Made in the first window'`;
  assert.equal(row.creator_id, 'u1');
  await eventually('the number from the backend', async () => (await two.list.innerText()).includes(`API-${row.num}`));
});

test('a refused edit is undone and explained', async () => {
  const id = 'i0009970';
  const page = await open('u4', `#issue=${id}`);
  const [{title}] = await app.sql`select title from issues where id = ${id}`;
  await page.setTitle('By a guest');
  await page.page.getByText('Not saved: Guests may comment, but not edit').waitFor();
  await eventually('the old title', async () => (await page.title.inputValue()) === title);
  await page.says('Connected');
});
