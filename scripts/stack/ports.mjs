// Ports on loopback that nobody uses.
import net from 'node:net';

// Below the range from which the kernel takes the near ends of connections: a
// port that is given up for a moment (a server that restarts) stays free, and a
// client that keeps dialling it can never reach itself.
const LOWEST = 20_000;
const HIGHEST = 32_000;

export function isFree(port, host = '127.0.0.1') {
  return new Promise(resolve => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen(port, host, () => server.close(() => resolve(true)));
  });
}

export async function freePort() {
  for (let tries = 0; tries < 200; tries++) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST));
    if (await isFree(port)) return port;
  }
  throw new Error(`no free port between ${LOWEST} and ${HIGHEST} on 127.0.0.1`);
}

/** The port asked for by name, else the preferred one if it is free, else any. */
export async function choosePort(variable, preferred) {
  const asked = process.env[variable];
  if (asked) {
    const port = Number(asked);
    if (!Number.isInteger(port) || port < 1 || port > 65_535) {
      throw new Error(`${variable}=${asked} is not a port; give a number from 1 to 65535`);
    }
    if (!(await isFree(port))) throw new Error(`port ${port} (from ${variable}) is in use; free it or name another`);
    return port;
  }
  if (preferred && (await isFree(preferred))) return preferred;
  return freePort();
}
