// The sockets of the stock client, which can be cut, and what went over them of late.
import {WebSocket as Socket} from 'ws';

const KEPT = 40;
const SHOWN = 400;
const lines = new Map();

/** What a client's sockets carried last, and its present one. */
export function lineOf(clientID) {
  if (!lines.has(clientID)) lines.set(clientID, {socket: undefined, frames: []});
  return lines.get(clientID);
}

export function forgetLine(clientID) {
  lines.delete(clientID);
}

function note(line, text) {
  const [, time] = new Date().toISOString().split('T');
  line.frames.push(`${time} ${text.length > SHOWN ? `${text.slice(0, SHOWN)}… (${text.length})` : text}`);
  if (line.frames.length > KEPT) line.frames.shift();
}

globalThis.WebSocket = class extends Socket {
  #line;

  constructor(url, ...rest) {
    super(url, ...rest);
    const parameters = new URL(url).searchParams;
    this.#line = lineOf(parameters.get('clientID'));
    this.#line.socket = this;
    note(this.#line, `connects at ${parameters.get('baseCookie')}, lmid ${parameters.get('lmid')}`);
    // Browsers do not throw when nobody listens for errors; "ws" does.
    this.on('error', error => note(this.#line, `error ${error.message}`));
    this.on('close', code => note(this.#line, `closed ${code}`));
    this.on('message', data => note(this.#line, `< ${data}`));
  }

  send(data, ...rest) {
    note(this.#line, `> ${data}`);
    super.send(data, ...rest);
  }
};

/** Cuts a client's socket, as a lost network does. */
export function cut(clientID) {
  lines.get(clientID)?.socket?.terminate();
}
