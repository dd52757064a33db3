// Drives the page of the `gateway` example in a real browser: sensors that are read a thousand times a second.
//
//   npm ci
//   GATEWAY_BIN=../../target/release/examples/gateway node gateway.mjs
//
// GATEWAY_BIN  the server
// harness.mjs describes the other variables.

import assert from 'node:assert/strict';
import { DESKTOP, PHONE, Server, picture, run, unexpected, until, visit as visitPath } from './harness.mjs';
import { Socket } from './socket.mjs';

const { GATEWAY_BIN } = process.env;
if (!GATEWAY_BIN) {
  console.error('GATEWAY_BIN must name the gateway server');
  process.exit(2);
}
// A tick of a millisecond: the fastest sensor has a thousand readings a second.
// One sensor sends readings, but answers no command.
const server = new Server(GATEWAY_BIN, [
  '--tick-us',
  '1000',
  '--silent',
  'sensor/humidity',
  '--admin-password',
  'secret',
]);

const SENSORS = ['sensor/temperature', 'sensor/humidity', 'sensor/pressure', 'sensor/vibration'];
const state = page => page.locator('#state').textContent();
const box = (page, name) => page.locator(`[data-sensor="${name}"]`);
const fact = async (page, name, what) => Number(await box(page, name).getAttribute(`data-${what}`));
async function visit(options) {
  const page = await visitPath(server, '/', 'the page', { options });
  await until('the page is connected', async () => await state(page) === 'connected');
  return page;
}

const result = (page, name) => box(page, name).locator('form output').textContent();
const says = (page, name, pattern) =>
  until(`${name} says ${pattern}`, async () => pattern.test(await result(page, name)));

const checks = {
  async 'the last values are there at once, and the readings before them'() {
    // Until the slowest sensor has been read.
    await new Promise(next => setTimeout(next, 400));
    const page = await visit();
    for (const name of SENSORS) {
      await until(`${name} is shown`, async () =>
        /^\d+\.\d{3}$/.test(await box(page, name).locator(':scope > output').textContent()),
      );
    }
    await until('a hundred readings are drawn', async () => await fact(page, 'sensor/vibration', 'readings') === 100);
    await picture(page, 'gateway');
  },

  async 'the values go on'() {
    const page = await visit();
    const first = await until('a value', () => fact(page, 'sensor/vibration', 'at'));
    await until('a later value', async () => await fact(page, 'sensor/vibration', 'at') > first + 500);
  },

  async 'a command is answered: a reading now, and an interval'() {
    const page = await visit();
    const sensor = box(page, 'sensor/temperature');
    await until('a value', () => fact(page, 'sensor/temperature', 'at'));
    await sensor.getByLabel('Interval').fill('60000');
    await sensor.getByRole('button', { name: 'Set' }).click();
    await says(page, 'sensor/temperature', /^a reading every 60000 ms$/);
    // It is read no more by itself: what is painted now stays, until it is read by hand.
    await until('the readings stop', async () => {
      const before = await fact(page, 'sensor/temperature', 'at');
      await new Promise(next => setTimeout(next, 600));
      return before === await fact(page, 'sensor/temperature', 'at');
    });
    const before = await fact(page, 'sensor/temperature', 'at');
    await sensor.getByRole('button', { name: 'Read now' }).click();
    await says(page, 'sensor/temperature', /^\d+\.\d{3}, read at /);
    await until('the reading is shown to all', async () => await fact(page, 'sensor/temperature', 'at') > before);
    await sensor.getByLabel('Interval').fill('50');
    await sensor.getByLabel('Interval').press('Enter');
    await says(page, 'sensor/temperature', /^a reading every 50 ms$/);
    const then = await fact(page, 'sensor/temperature', 'at');
    await until('it is read again', async () => await fact(page, 'sensor/temperature', 'at') > then + 200);
  },

  async 'a sensor that does not answer is a timeout, and everything else goes on'() {
    const page = await visit();
    const sensor = box(page, 'sensor/humidity');
    await sensor.getByRole('button', { name: 'Read now' }).click();
    await says(page, 'sensor/humidity', /^waiting…$/);
    assert.equal(await sensor.getByRole('button', { name: 'Read now' }).isDisabled(), true);
    const at = await fact(page, 'sensor/vibration', 'at');
    await says(page, 'sensor/humidity', /^timeout: no answer within 2s$/);
    assert.equal(await sensor.locator('output.bad').count(), 1);
    assert.ok(await fact(page, 'sensor/vibration', 'at') > at + 1000, 'readings came meanwhile');
    assert.equal(await sensor.getByRole('button', { name: 'Read now' }).isDisabled(), false);
    assert.equal(await state(page), 'connected');
    await picture(page, 'gateway-timeout');
    await box(page, 'sensor/pressure').getByRole('button', { name: 'Read now' }).click();
    await says(page, 'sensor/pressure', /^\d+\.\d{3}, read at /);
  },

  async 'an operator calls a page, and one that does not answer'() {
    const page = await visit();
    const admin = await visitPath(server, '/admin', 'the dashboard', {
      options: { ...DESKTOP, httpCredentials: { username: 'admin', password: 'secret' } },
      requests: path => /^\/admin\/(events|actions)(\?|$)/.test(path),
    });
    const $ = id => admin.getByTestId(id);
    const call = async (path, method, data) => {
      await $('search').fill(path);
      const listed = () => $('client').evaluateAll(rows => rows.map(row => row.dataset.id).join());
      await until(`the client ${path} alone`, async () => await listed() === path);
      await $('client').getByRole('button').click();
      await $('call-method').fill(method);
      await $('call-data').fill(data);
      await $('client-call').click();
    };
    const told = pattern => until(`${pattern}`, async () => pattern.test(await $('client-result').textContent()));
    const silent = await Socket.open(server.port, '/ws');
    await until('both are listed', async () => await $('clients-count').textContent() === '2');
    const ids = await $('client').evaluateAll(rows => rows.map(row => row.dataset.id));
    // Newest first: the silent one, then the page.
    await call(ids[1], 'identify', '');
    await told(/^Answer: \{"sensors":4\}$/);
    await until('the page lights up', async () => await page.locator('body.here').count() === 1);
    await $('call-method').fill('dance');
    await $('client-call').click();
    await told(/^Refused: unknown_method: dance$/);
    await $('call-data').fill('{no JSON');
    await $('client-call').click();
    await told(/^The data is no JSON\.$/);
    await picture(admin, 'dash-call');
    await admin.keyboard.press('Escape');
    await call(ids[0], 'identify', '{"n":1}');
    await until('the call arrives', async () =>
      silent.received.some(text => text.includes('"method":"identify","data":{"n":1}')),
    );
    await until('it is in flight', async () => /Calls in flight1/.test(await admin.locator('#totals').textContent()));
    await told(/^no answer within 5 s$/);
    for (let n = unexpected.length - 1; n >= 0; n--) if (/status of 504/.test(unexpected[n])) unexpected.splice(n, 1);
    silent.close();
  },

  async 'a page that reads slowly gets the newest values and stays connected'() {
    const page = await visit();
    await until('a value', () => fact(page, 'sensor/vibration', 'at'));
    for (let round = 0; round < 3; round++) {
      // Nothing is read or painted meanwhile.
      await page.evaluate(() => { const end = performance.now() + 1500; while (performance.now() < end); });
      await until(
        'the newest value is painted',
        async () => Date.now() - (await fact(page, 'sensor/vibration', 'at')) < 1000,
      );
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
    assert.ok(
      await page.evaluate(() => document.scrollingElement.scrollWidth <= innerWidth),
      'nothing to scroll sideways',
    );
    await picture(page, 'gateway-phone');
  },

  async 'the console stayed clean and the page asked for nothing else'() {
    assert.deepEqual(unexpected, []);
  },
};

await run(server, checks);
