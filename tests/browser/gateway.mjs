// Drives the page of the `gateway` example in a real browser: sensors that are read a thousand times a second.
//
//   npm ci
//   GATEWAY_BIN=../../target/release/examples/gateway node gateway.mjs
//
// GATEWAY_BIN  the server
// harness.mjs tells the other variables.

import assert from 'node:assert/strict';
import { PHONE, Server, picture, run, unexpected, until, visit as visitPath } from './harness.mjs';

const { GATEWAY_BIN } = process.env;
if (!GATEWAY_BIN) {
  console.error('GATEWAY_BIN must name the gateway server');
  process.exit(2);
}
// A tick of a millisecond: the fastest sensor has a thousand readings a second.
const server = new Server(GATEWAY_BIN, ['--tick-us', '1000']);

const SENSORS = ['sensor/temperature', 'sensor/humidity', 'sensor/pressure', 'sensor/vibration'];
const state = page => page.locator('#state').textContent();
const box = (page, name) => page.locator(`[data-sensor="${name}"]`);
const fact = async (page, name, what) => Number(await box(page, name).getAttribute(`data-${what}`));
async function visit(options) {
  const page = await visitPath(server, '/', 'the page', { options });
  await until('the page is connected', async () => await state(page) === 'connected');
  return page;
}

const checks = {
  async 'the last values are there at once, and the readings before them'() {
    // Until the slowest sensor has been read.
    await new Promise(next => setTimeout(next, 400));
    const page = await visit();
    for (const name of SENSORS) {
      await until(`${name} is shown`, async () => /^\d+\.\d{3}$/.test(await box(page, name).locator('output').textContent()));
    }
    await until('a hundred readings are drawn', async () => await fact(page, 'sensor/vibration', 'readings') === 100);
    await picture(page, 'gateway');
  },

  async 'the values go on'() {
    const page = await visit();
    const first = await until('a value', () => fact(page, 'sensor/vibration', 'at'));
    await until('a later value', async () => await fact(page, 'sensor/vibration', 'at') > first + 500);
  },

  async 'a page that reads slowly gets the newest values and stays connected'() {
    const page = await visit();
    await until('a value', () => fact(page, 'sensor/vibration', 'at'));
    for (let round = 0; round < 3; round++) {
      // Nothing is read or painted meanwhile.
      await page.evaluate(() => { const end = performance.now() + 1500; while (performance.now() < end); });
      await until('the newest value is painted', async () => Date.now() - await fact(page, 'sensor/vibration', 'at') < 1000);
      assert.equal(await state(page), 'connected');
    }
  },

  async 'the page comes back after a restart of the server, on a phone'() {
    const page = await visit(PHONE);
    server.restarting = true;
    assert.equal(await server.stop(), 0, 'the server ends cleanly');
    await until('the page sees that the server is gone', async () => await state(page) === 'reconnecting');
    await server.start();
    await until('the page is connected again', async () => await state(page) === 'connected');
    server.restarting = false;
    const since = Date.now();
    await until('a new value', async () => await fact(page, 'sensor/vibration', 'at') > since);
    assert.ok(await page.evaluate(() => document.scrollingElement.scrollWidth <= innerWidth), 'nothing to scroll sideways');
    await picture(page, 'gateway-phone');
  },

  async 'the console stayed clean and the page asked for nothing else'() {
    assert.deepEqual(unexpected, []);
  },
};

await run(server, checks);
