// What every browser test needs: waiting with a deadline, the example's process, pages that are watched, the run.
//
// CHROMIUM     the browser (default: /usr/bin/chromium)
// SCREENSHOTS  a directory: pictures of pages are saved there

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const { CHROMIUM = '/usr/bin/chromium', SCREENSHOTS } = process.env;
const DEADLINE = 20_000;
const WHOLE_RUN = 300_000;
export const DESKTOP = { viewport: { width: 1280, height: 800 } };
export const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };

if (SCREENSHOTS) mkdirSync(SCREENSHOTS, { recursive: true });

// --- waiting ------------------------------------------------------------------------------------------------

export const within = (promise, what, ms = DEADLINE) => {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`${what}: not within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

/// Asks `probe` until its answer is truthy, and returns that answer.
export async function until(what, probe, ms = DEADLINE) {
  const end = Date.now() + ms;
  for (;;) {
    const answer = await within(probe(), what, ms);
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`${what}: not within ${ms} ms`);
    await new Promise(next => setTimeout(next, 30));
  }
}

// --- the server ---------------------------------------------------------------------------------------------

/// An example: run as `BIN --addr 127.0.0.1:PORT ARGS`, it prints `listening on 127.0.0.1:PORT` and ends on SIGTERM. It
/// comes back on the port that it had.
export class Server {
  child = null;
  port = 0;
  /// While it restarts, failed connects may be logged.
  restarting = false;

  constructor(bin, args = []) { this.bin = bin; this.args = args; }

  get url() { return `http://127.0.0.1:${this.port}`; }

  async start() {
    const child = spawn(this.bin, ['--addr', `127.0.0.1:${this.port}`, ...this.args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let printed = '', complaints = '';
    child.stderr.on('data', data => { complaints = (complaints + data).slice(-4000); });
    const listening = new Promise((ok, fail) => {
      child.on('error', fail);
      child.on('exit', code => fail(new Error(`the server ended with ${code} before it listened: ${complaints}`)));
      child.stdout.on('data', data => {
        printed = (printed + data).slice(-4000);
        const found = /listening on 127\.0\.0\.1:(\d+)\s/.exec(printed);
        if (found) ok(Number(found[1]));
      });
    });
    this.child = child;
    this.port = await within(listening, 'the server listens');
  }

  /// SIGTERM; returns the exit code.
  async stop() {
    const child = this.child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return child?.exitCode;
    const ended = new Promise(ok => child.on('exit', (code, signal) => ok(code ?? signal)));
    child.kill('SIGTERM');
    return within(ended, 'the server ends on SIGTERM');
  }

  kill() {
    if (this.child && this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGKILL');
  }

  get isGone() { return this.child.exitCode !== null || this.child.signalCode !== null; }
}

/// A way to the server that can be cut: connections through it are passed on as they are. A stand-in for `server` in
/// `visit`.
export class Wire {
  sockets = new Set();
  /// While connections are cut, failed ones may be logged.
  restarting = false;

  constructor(server) { this.server = server; }

  async start() {
    this.listener = createServer(near => {
      const far = connect(this.server.port, '127.0.0.1');
      for (const [one, other] of [[near, far], [far, near]]) {
        one.pipe(other);
        one.on('error', () => other.destroy());
        one.on('close', () => { this.sockets.delete(one); other.destroy(); });
        this.sockets.add(one);
      }
    });
    await new Promise(ok => this.listener.listen(0, '127.0.0.1', ok));
    this.url = `http://127.0.0.1:${this.listener.address().port}`;
    return this;
  }

  /// Ends all connections, in the middle of whatever they carry.
  cut() { for (const socket of this.sockets) socket.resetAndDestroy(); }

  stop() { this.listener.close(); this.cut(); }
}

// --- pages --------------------------------------------------------------------------------------------------

let browser;
const open = new Set();

/// What no page may do: console errors, page errors, dialogs, requests that it must not make.
export const unexpected = [];

/// A page in a profile of its own, watched. `requests` says which URLs it may ask for besides its own.
export async function visit(server, path, who, { options = DESKTOP, requests = () => false, prepare = () => {} } = {}) {
  const context = await browser.newContext({ colorScheme: 'light', reducedMotion: 'reduce', ...options });
  context.setDefaultTimeout(DEADLINE);
  open.add(context);
  const page = await context.newPage();
  const note = what => unexpected.push(`${who}: ${what}`);
  page.on('console', message => {
    if (message.type() !== 'error' && message.type() !== 'warning') return;
    if (
      server.restarting &&
      /^WebSocket connection to '[^']*' failed|^Failed to load resource: net::ERR_/.test(message.text())
    )
      return;
    note(`console ${message.type()}: ${message.text()}`);
  });
  page.on('pageerror', error => note(error));
  page.on('crash', () => note('crashed'));
  page.on('dialog', dialog => { note(`dialog ${dialog.message()}`); dialog.dismiss().catch(() => {}); });
  page.on('request', request => {
    const is_own =
      request.isNavigationRequest() ||
      request.url().startsWith('data:') ||
      requests(request.url().slice(server.url.length));
    if (!is_own) note(`request of ${request.url()}`);
  });
  prepare(page);
  await page.goto(server.url + path);
  return page;
}

export async function picture(page, name, options = {}) {
  if (!SCREENSHOTS) return;
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: join(SCREENSHOTS, `${name}-${colorScheme}.png`), ...options });
  }
  await page.emulateMedia({ colorScheme: 'light' });
}

// --- the run ------------------------------------------------------------------------------------------------

const leaveAll = async () => {
  for (const context of open) await context.close();
  open.clear();
};

/// Runs the checks one after the other, prints a line for each and the sum, and ends the process.
export async function run(server, checks) {
  let passed = 0, failed = 0;
  const guard = setTimeout(() => {
    console.log(`FAILED the whole run: not within ${WHOLE_RUN} ms\n${passed} passed, ${failed + 1} failed`);
    server.kill();
    process.exit(1);
  }, WHOLE_RUN);

  try {
    await server.start();
    browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: [
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
      timeout: 60_000,
    });
    for (const [name, check] of Object.entries(checks)) {
      const begin = Date.now();
      try {
        await check();
        passed++;
        console.log(`ok      ${name} (${((Date.now() - begin) / 1000).toFixed(1)} s)`);
      } catch (error) {
        failed++;
        console.log(`FAILED  ${name}\n${String(error.stack ?? error).slice(0, 4000).replace(/^/gm, '        ')}`);
        let n = 0;
        if (SCREENSHOTS)
          for (const context of open)
            for (const page of context.pages())
              await page.screenshot({ path: join(SCREENSHOTS, `failed-${failed}-${++n}.png`) }).catch(() => {});
        server.restarting = false;
        if (server.isGone) await server.start();
      }
      await leaveAll();
    }
    assert.equal(await server.stop(), 0, 'the server ends cleanly');
  } catch (error) {
    failed++;
    console.log(`FAILED  the run itself\n${String(error.stack ?? error).replace(/^/gm, '        ')}`);
  } finally {
    await browser?.close().catch(() => {});
    server.kill();
    clearTimeout(guard);
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}

/// The controls of a page that a screen reader could not name.
export const unnamed = page =>
  page.locator('button, input, textarea, select').evaluateAll(all => {
    const hasName = node => node.ariaLabel || node.textContent.trim() || node.closest('label') || node.title;
    return all.filter(node => node.checkVisibility() && !hasName(node)).map(node => node.outerHTML.slice(0, 80));
  });
