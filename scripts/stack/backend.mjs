// The sample backend as a process of its own.
import {fileURLToPath} from 'node:url';
import {Child} from './child.mjs';

const MAIN = fileURLToPath(new URL('../../demo/backend/main.mjs', import.meta.url));

export class Backend {
  static async start({upstream, port, verbose}) {
    const backend = new Backend();
    backend.url = `http://127.0.0.1:${port}`;
    backend.child = new Child('The backend', process.execPath, [MAIN], {
      env: {...process.env, UPSTREAM_DB: upstream, PORT: String(port)},
      verbose,
    });
    try {
      await backend.child.until(async () => (await fetch(`${backend.url}/health`)).ok, 'ready', 30_000);
    } catch (e) {
      await backend.stop();
      throw e;
    }
    return backend;
  }

  async stop() {
    await this.child.stop('SIGTERM', 5_000);
  }
}
