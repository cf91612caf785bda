// One tab of somebody's browser: the stock client, and what its user does with it.
import {cut, forgetLine, lineOf} from './line.mjs';
import {tokenOf} from '../../demo/shared/identity.mjs';
import {mutators} from '../../demo/shared/mutators.mjs';
import {schema, STATUSES} from '../../demo/shared/schema.mjs';
import {anyQuestion} from './questions.mjs';

const {Zero} = await import('@rocicorp/zero');

/** Views that a tab has open at most. */
const MOST_VIEWS = 4;

/** Time on one connection after which it is worth knowing what went over it. */
const SLOW_MS = 8_000;

export class Tab {
  #world;
  #random;
  #made = 0;
  #renewals = 0;
  #connectedAt = 0;
  /** Changes that were neither confirmed nor refused yet, by number. */
  pending = new Map();
  views = new Map();
  zero;
  states = [];
  /** How often the server did not know this client any more. */
  replaced = 0;
  tally;

  /**
   * `world`: server, issues, tally, and how long the process stood still since some moment, for all tabs.
   * Tabs of equal `browser` share storage and user.
   */
  constructor(world, {name, browser, userID, random}) {
    this.#world = world;
    this.#random = random;
    this.tally = world.tally;
    Object.assign(this, {name, browser, userID});
  }

  get isOpen() {
    return this.zero !== undefined;
  }

  get state() {
    return this.zero?.connection.state.current.name;
  }

  open() {
    const zero = new Zero({
      cacheURL: this.#world.server,
      userID: this.userID,
      auth: this.#token(),
      context: {userID: this.userID},
      schema,
      mutators,
      kvStore: 'mem',
      storageKey: this.browser,
      logLevel: 'error',
      logSink: {log: (level, _, ...what) => this.#complain(level, what)},
      onUpdateNeeded: reason => this.#world.fail(this, `was asked to update: ${JSON.stringify(reason)}`),
      onClientStateNotFound: () => {
        if (this.zero !== zero) return;
        this.replaced++;
        this.#world.fail(this, 'had to start over');
        void this.close().then(() => this.open());
      },
    });
    this.zero = zero;
    this.states = [];
    zero.connection.state.subscribe(state => this.#moved(zero, state));
    this.tally.opened++;
    while (this.views.size < 2) this.#look();
  }

  async close() {
    const {zero} = this;
    this.zero = undefined;
    for (const view of this.views.values()) view.live.destroy();
    this.views.clear();
    // Nobody is told what becomes of them: the other tabs of the browser may have seen them, or not.
    this.tally.abandoned += this.pending.size;
    this.pending.clear();
    await zero.close();
    forgetLine(zero.clientID);
  }

  #token() {
    return tokenOf(this.userID, this.#renewals);
  }

  #complain(level, what) {
    if (level === 'error') this.tally.complaints++;
    this.lastComplaint = what.map(String).join(' ').slice(0, 300);
  }

  #moved(zero, {name, reason}) {
    if (this.zero !== zero) return;
    this.states.push(name);
    if (name === 'connected') this.#connectedAt = Date.now();
    if (this.states.length > 20) this.states.shift();
    if (name !== 'error' && name !== 'needs-auth') return;
    // A page shows a button then; nothing here should make anybody press it.
    this.#world.fail(this, `stopped trying (${name}): ${JSON.stringify(reason)}`);
    void zero.connection.connect({auth: this.#token()});
  }

  /** Something that a user does. */
  act() {
    const random = this.#random;
    const what = random.below(100);
    if (what < 45) this.#change();
    else if (what < 60) this.#look();
    else if (what < 70) this.#lookAway();
    else if (what < 74) this.#drop();
    else if (what < 78) this.#renew();
  }

  #look() {
    const {key, request, answer} = anyQuestion(this.#random, {issues: this.#world.issues, userID: this.userID});
    if (this.views.has(key)) return;
    while (this.views.size >= MOST_VIEWS) this.#lookAway();
    const view = {live: this.zero.materialize(request), answer, type: 'unknown'};
    view.live.addListener((_, type, error) => Object.assign(view, {type, error}));
    this.views.set(key, view);
  }

  #lookAway() {
    if (this.views.size < 2) return;
    const key = this.#random.pick([...this.views.keys()]);
    this.views.get(key).live.destroy();
    this.views.delete(key);
  }

  #drop() {
    this.tally.drops++;
    cut(this.zero.clientID);
  }

  #renew() {
    this.#renewals++;
    this.tally.tokens++;
    void this.zero.connection.connect({auth: this.#token()});
  }

  /** A change, which the backend refuses where a guest edits, or where there is nothing to edit. */
  #change() {
    const random = this.#random;
    const id = random.percent(8) ? 'no-such-issue' : random.pick(this.#world.issues);
    const number = ++this.#made;
    const unique = `${this.name}-${process.pid}-${number}`;
    const makers = [
      () => mutators.issue.setTitle({id, title: `By ${this.name}, ${number}`}),
      () => mutators.issue.setStatus({id, status: random.pick(STATUSES)}),
      () => mutators.issue.setPriority({id, priority: random.below(5)}),
      () => mutators.issue.assign({id, assigneeID: random.percent(30) ? null : this.userID}),
      () => mutators.issue.addLabel({id, labelID: `l${1 + random.below(8)}`}),
      () => mutators.issue.removeLabel({id, labelID: `l${1 + random.below(8)}`}),
      () => mutators.comment.add({id: unique, issueID: id, body: `Said ${number}`}),
    ];
    const request = random.pick(makers)();
    const {client, server} = this.zero.mutate(request);
    client.catch(() => {});
    const change = {what: `${request.mutator.mutatorName} of ${id}`, since: Date.now()};
    this.pending.set(number, change);
    this.tally.changes++;
    void server.then(
      result => this.#settled(number, change, result.type === 'error' ? 'refused' : 'confirmed'),
      () => this.#settled(number, change, 'failed'),
    );
  }

  #settled(number, change, how) {
    // Those of an instance that was closed count as abandoned.
    if (this.pending.get(number) !== change) return;
    this.pending.delete(number);
    this.tally[how]++;
    if (this.state !== 'connected') return;
    // What the server took: before it was there, nobody could have answered, and a process that stood still
    // did not hear of the answer.
    const since = Math.max(change.since, this.#connectedAt);
    const waited = Date.now() - since - this.#world.stoodStill(since);
    this.tally.longest = Math.max(this.tally.longest, waited);
    if (waited <= SLOW_MS) return;
    console.error(`${change.what} was ${how} after ${waited} ms of one connection\n${this.evidence()}`);
  }

  /** What keeps this tab from being at rest; undefined: nothing. */
  unrest() {
    if (!this.isOpen) return undefined;
    if (this.state !== 'connected') return `is ${this.state}`;
    const [change] = this.pending.values();
    if (change) return `waits for ${change.what}, made ${Date.now() - change.since} ms ago`;
    for (const [key, {type, error}] of this.views) {
      if (type !== 'complete') return `${key} is ${type} ${JSON.stringify(error) ?? ''}`;
    }
    return undefined;
  }

  /** All that may help to understand why it is not as it should be. */
  evidence() {
    if (!this.isOpen) return '';
    return [
      `${this.name} (client ${this.zero.clientID}, user ${this.userID}), states ${this.states.join(' ')}`,
      `  waits for: ${[...this.pending.values()].map(change => change.what).join('; ') || 'nothing'}`,
      `  last complaint: ${this.lastComplaint}`,
      ...lineOf(this.zero.clientID).frames.map(frame => `  ${frame}`),
    ].join('\n');
  }
}
