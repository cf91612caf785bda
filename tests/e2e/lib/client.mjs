// The stock client under Node, used the way that a page uses it.
import {tokenOf} from '../../../demo/shared/identity.mjs';
import {mutators} from '../../../demo/shared/mutators.mjs';
import {schema} from '../../../demo/shared/schema.mjs';
import {eventually, within} from './waiting.mjs';

if (!globalThis.WebSocket) {
  const {WebSocket} = await import('ws');
  // Browsers do not throw when nobody listens for errors; "ws" does.
  globalThis.WebSocket = class extends WebSocket {
    constructor(...args) {
      super(...args);
      this.on('error', () => {});
    }
  };
}
const {Zero} = await import('@rocicorp/zero');

const open = new Set();
let count = 0;

export async function closeClients() {
  await Promise.all([...open].map(client => client.close()));
}

export class Client {
  #watches = new Set();
  #options;
  /** How often the server said that it does not know this client (any more). */
  replaced = 0;
  /** Names of the connection states of the present instance, oldest first. */
  states;

  constructor(app, {userID = 'u1', ...options} = {}) {
    this.#options = {
      cacheURL: app.stack.server.url,
      userID,
      auth: userID === null ? undefined : tokenOf(userID),
      context: userID === null ? undefined : {userID},
      schema,
      mutators,
      kvStore: 'mem',
      // Clients of one storage key would share a client group.
      storageKey: `e2e-${process.pid}-${count++}`,
      logLevel: 'error',
      logSink: process.env.E2E_VERBOSE ? undefined : {log() {}},
      onUpdateNeeded: reason => {
        throw new Error(`the server asked for an update of the app: ${JSON.stringify(reason)}`);
      },
      ...options,
    };
    this.#start();
    open.add(this);
  }

  // A page would be loaded again (or the provider would replace the client): the
  // same queries, on a new instance.
  #start() {
    const zero = new Zero({
      ...this.#options,
      onClientStateNotFound: () => {
        if (this.zero !== zero) return;
        this.replaced++;
        this.#start();
        void zero.close();
      },
    });
    const states = [];
    zero.connection.state.subscribe(state => states.push(state.name));
    this.states = states;
    this.zero = zero;
    for (const watch of this.#watches) watch.start(zero);
  }

  get state() {
    return this.zero.connection.state.current.name;
  }

  connected(ms) {
    return eventually('a connection', () => this.state === 'connected', ms);
  }

  /** Subscribes and waits for the server's answer. */
  async watch(request) {
    const watch = new Watch(request);
    this.#watches.add(watch);
    watch.start(this.zero);
    await watch.complete();
    return watch;
  }

  /** Runs a mutator; `local` and `remote` give its two results. */
  change(request) {
    const result = this.zero.mutate(request);
    return {
      local: within('the local result', result.client),
      remote: within('the result of the backend', result.server),
    };
  }

  async close() {
    open.delete(this);
    for (const watch of this.#watches) watch.stop();
    await this.zero.close();
  }
}

class Watch {
  #view;

  constructor(request) {
    this.request = request;
  }

  start(zero) {
    this.type = 'unknown';
    this.error = undefined;
    const view = zero.materialize(this.request);
    this.#view = view;
    view.addListener((_, type, error) => {
      if (this.#view !== view) return;
      this.type = type;
      this.error = error;
    });
  }

  /** The rows, or the row of a query for one. */
  get data() {
    return this.#view.data;
  }

  async complete(ms) {
    await eventually('an answer to a query', () => this.type !== 'unknown', ms);
    if (this.type === 'error') throw new Error(`the query failed: ${JSON.stringify(this.error)}`);
  }

  sees(what, test, ms) {
    return eventually(what, () => test(this.data), ms);
  }

  stop() {
    this.#view?.destroy();
  }
}
