// A process of some tabs. Told over its channel what to do; answers each order once it is done.
import {setTimeout as sleep} from 'node:timers/promises';
import postgres from 'postgres';
import {difference} from './questions.mjs';
import {Random} from './random.mjs';
import {Stalls} from './stalls.mjs';
import {Tab} from './tab.mjs';

/** Tabs of a browser, in turn. */
const SIZES = [1, 2, 3, 4];
/** Users that may edit, and guests, whose edits the backend refuses. */
const USERS = ['u1', 'u2', 'u4', 'u6', 'u9', 'u11', 'u14', 'u3'];
/** How long a user thinks, on average. */
const THINKS_MS = 700;
/** Longest time that a closed tab stays closed. */
const AWAY_MS = 6_000;
const LOOK_MS = 250;
/** The stock client tries again after 5 s, and may have begun to just before; a busy machine takes its time. */
const REST_MS = 90_000;

const tally = {
  ...{opened: 0, drops: 0, tokens: 0, changes: 0, confirmed: 0, refused: 0, failed: 0, abandoned: 0},
  ...{longest: 0, stood: 0, complaints: 0, compared: 0},
};
const failures = [];
const tabs = [];
const stalls = new Stalls();
let sql;
let random;
let isWorking = false;
let lives = [];

function begin({server, upstream, issues, count, crew, seed}) {
  random = new Random(seed);
  sql = postgres(upstream, {max: 2, onnotice: () => {}});
  const fail = (tab, what) => failures.push(`${tab.name} ${what}\n${tab.evidence()}`);
  const world = {server, issues, tally, fail, stoodStill: moment => stalls.since(moment)};
  for (let browser = 0; tabs.length < count; browser++) {
    const userID = USERS[(browser + crew) % USERS.length];
    for (let i = 0; i < SIZES[browser % SIZES.length] && tabs.length < count; i++) {
      const name = `tab ${crew}.${browser}.${i}`;
      const own = new Random(random.below(2 ** 31));
      tabs.push(new Tab(world, {name, browser: `crew${crew}-browser${browser}`, userID, random: own}));
    }
  }
}

/** One tab while the crew is at work: it comes, does things, and goes for a while now and then. */
async function live(tab) {
  while (isWorking) {
    if (!tab.isOpen) tab.open();
    await sleep(random.below(2 * THINKS_MS));
    if (!isWorking) return;
    if (random.percent(3)) {
      await tab.close();
      await sleep(random.below(AWAY_MS));
    } else {
      tab.act();
    }
  }
}

function work() {
  isWorking = true;
  lives = tabs.map(live);
}

/** Everybody stops, comes back, and must then be told of all that was done, and hold what Postgres says. */
async function rest() {
  isWorking = false;
  await Promise.all(lives);
  for (const tab of tabs) if (!tab.isOpen) tab.open();
  const end = Date.now() + REST_MS;
  for (;;) {
    const wrong = await lacking();
    if (wrong.length === 0) return;
    if (Date.now() > end) {
      for (const [tab, what] of wrong) failures.push(`${tab.name} ${what}\n${await inquest(tab)}`);
      return;
    }
    await sleep(LOOK_MS);
  }
}

async function lacking() {
  const wrong = tabs.map(tab => [tab, tab.unrest()]).filter(([, what]) => what);
  if (wrong.length > 0) return wrong;
  const answers = new Map();
  for (const tab of tabs) {
    for (const [key, view] of tab.views) {
      if (!answers.has(key)) answers.set(key, await view.answer(sql));
      const differs = difference(key, view.live.data, answers.get(key));
      if (differs) wrong.push([tab, differs]);
    }
  }
  if (wrong.length === 0) tally.compared += tabs.reduce((sum, tab) => sum + tab.views.size, 0);
  return wrong;
}

/** What the tab knows, and what Postgres knows of it. */
async function inquest(tab) {
  if (!tab.isOpen) return '';
  const [shard] = await sql`select nspname from pg_namespace where nspname ~ '^zero_[0-9]+$'`;
  const rows = async (table, columns) => {
    const statement = `select ${columns} from "${shard.nspname}".${table} where "clientID" = $1`;
    return JSON.stringify(await sql.unsafe(statement, [tab.zero.clientID]));
  };
  const applied = await rows('clients', '"clientGroupID", "lastMutationID"');
  const results = await rows('mutations', '"mutationID", result');
  return `${tab.evidence()}\n  Postgres: last mutation ${applied}, results ${results}`;
}

async function end() {
  isWorking = false;
  stalls.end();
  await Promise.all(lives);
  await Promise.all(tabs.filter(tab => tab.isOpen).map(tab => tab.close()));
  await sql.end({timeout: 2});
}

const orders = {begin, work, rest, end};

process.on('message', async ({order, ...how}) => {
  try {
    await orders[order](how);
  } catch (e) {
    failures.push(`a crew could not ${order}: ${e.stack}`);
  }
  tally.stood = stalls.longest;
  process.send({done: order, tally, failures: failures.splice(0)}, () => {
    if (order === 'end') process.exit(0);
  });
});
process.once('disconnect', () => process.exit(1));
process.on('unhandledRejection', e => failures.push(`nobody caught ${e?.stack ?? e}`));
