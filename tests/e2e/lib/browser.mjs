// Debian's Chromium, without a window.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {after, before} from 'node:test';
import {chromium} from 'playwright-core';

const CHROMIUM = process.env.CHROMIUM_BIN ?? '/usr/bin/chromium';

/** Starts it before the tests of the calling file; `window()` opens a page of its own profile. */
export function useBrowser() {
  const state = {};
  before(
    async () => {
      if (!fs.existsSync(CHROMIUM)) throw new Error(`no browser at ${CHROMIUM}; install chromium or set CHROMIUM_BIN`);
      state.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'kelvin-chromium-'));
      state.browser = await chromium.launch({
        executablePath: CHROMIUM,
        headless: true,
        env: {...process.env, HOME: state.dir, XDG_CONFIG_HOME: state.dir, XDG_CACHE_HOME: state.dir},
        args: [
          ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
          // Nothing may look for hosts outside.
          ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
          '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
        ],
      });
    },
    {timeout: 60_000},
  );
  after(async () => {
    await state.browser?.close();
    if (state.dir) fs.rmSync(state.dir, {recursive: true, force: true, maxRetries: 5});
  });
  return {
    /** Another person: nothing is shared with other windows. */
    async person(userID) {
      const context = await state.browser.newContext({viewport: {width: 1360, height: 850}, locale: 'en-GB'});
      await context.addInitScript(id => localStorage.setItem('demo-user', id), userID);
      return context;
    },
  };
}
