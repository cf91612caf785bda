// Serves the built page, and tells it where the sync server is.
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import {fileURLToPath} from 'node:url';

const DIST = fileURLToPath(new URL('../../demo/web/dist/', import.meta.url));
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
};

export class Page {
  static async start({port, server}) {
    if (!fs.existsSync(path.join(DIST, 'index.html'))) {
      throw new Error('the page is not built; run "npm run build --workspace demo"');
    }
    const page = new Page();
    page.http = http.createServer((request, response) => answer(request, response, server));
    await new Promise((resolve, reject) => {
      page.http.once('error', reject);
      page.http.listen(port, '127.0.0.1', resolve);
    });
    page.url = `http://localhost:${port}`;
    return page;
  }

  async stop() {
    const closed = new Promise(resolve => this.http.close(resolve));
    this.http.closeAllConnections();
    await closed;
  }
}

function answer(request, response, server) {
  const {pathname} = new URL(request.url, 'http://page');
  if (pathname === '/config.json') {
    response.writeHead(200, {'content-type': TYPES['.json'], 'cache-control': 'no-store'});
    response.end(JSON.stringify({cacheURL: server}));
    return;
  }
  const file = path.join(DIST, pathname === '/' ? 'index.html' : path.normalize(pathname));
  if (!file.startsWith(DIST) || !fs.existsSync(file) || !fs.statSync(file).isFile()) {
    response.writeHead(404, {'content-type': 'text/plain'});
    response.end('not found\n');
    return;
  }
  // Files under assets/ have their hash in the name.
  const cache = pathname.startsWith('/assets/') ? 'max-age=31536000, immutable' : 'no-store';
  response.writeHead(200, {'content-type': TYPES[path.extname(file)] ?? 'application/octet-stream', 'cache-control': cache});
  fs.createReadStream(file).pipe(response);
}
