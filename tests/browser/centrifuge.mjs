// Drives the page of the `centrifuge` example in a real browser: it speaks the client protocol by hand and recovers.
//
//   npm ci
//   CENTRIFUGE_BIN=../../target/release/examples/centrifuge node centrifuge.mjs
//
// CENTRIFUGE_BIN  the server
// harness.mjs describes the other variables.

import assert from 'node:assert/strict';
import { PHONE, Server, Wire, picture, run, unexpected, until, visit as visitPath } from './harness.mjs';

const { CENTRIFUGE_BIN } = process.env;
if (!CENTRIFUGE_BIN) {
  console.error('CENTRIFUGE_BIN must name the centrifuge server');
  process.exit(2);
}
const server = new Server(CENTRIFUGE_BIN);

const connected = page =>
  until('the page is connected', async () => (await page.locator('#state').textContent()).startsWith('connected'));
async function visit(channel, { through = server, ...options } = {}) {
  const page = await visitPath(through, `/?channel=${encodeURIComponent(channel)}`, `page of ${channel}`, { options });
  await connected(page);
  return page;
}
/// The lines of one kind: `live`, `recovered`, `lost`. Without a kind, all publications in the order in which they are
/// shown.
const lines = (page, kind) => page.locator(kind ? `#log .${kind}` : '#log div').allTextContents();
const publications = async page => (await lines(page)).filter(line => /^\d+: /.test(line));
const numbered = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => `${from + n}: line ${from + n}`);
const shows = (page, expected) => until(`${expected.length} publications are shown`, async () =>
  JSON.stringify(await publications(page)) === JSON.stringify(expected));
/// Publishes the lines FROM to TO, each with its number as its offset.
async function publish(channel, from, to = from) {
  for (let n = from; n <= to; n++) {
    const answer = await fetch(`${server.url}/api/publish`, {
      method: 'POST', headers: { 'X-API-Key': 'test-api-key' }, body: JSON.stringify({ channel, data: `line ${n}` }),
    });
    assert.equal((await answer.json()).result.offset, n);
  }
}
async function cut(page) {
  await page.locator('#cut').click();
  await until('the page is cut off', () => page.locator('#back').isEnabled());
}
async function comeBack(page) {
  await page.locator('#back').click();
  await connected(page);
}

const checks = {
  async 'two pages see what either publishes'() {
    const [one, other] = [await visit('both'), await visit('both')];
    await publish('both', 1);
    for (const [n, page] of [[2, one], [3, other]]) {
      await page.locator('#text').fill(`line ${n}`);
      await page.getByRole('button', { name: 'Publish' }).click();
      await shows(other, numbered(1, n));
    }
    await shows(one, numbered(1, 3));
    const markup = '<img src=x onerror=alert(1)>';
    await one.locator('#text').fill(markup);
    await one.locator('#text').press('Enter');
    await shows(other, [...numbered(1, 3), `4: ${markup}`]);
    assert.deepEqual(await lines(other, 'lost'), []);
  },

  async 'what is published while the page is cut off is recovered'() {
    const page = await visit('cut'), witness = await visit('cut');
    await publish('cut', 1, 2);
    await shows(page, numbered(1, 2));
    await cut(page);
    await publish('cut', 3, 7);
    await shows(witness, numbered(1, 7));
    await shows(page, numbered(1, 2));
    await comeBack(page);
    await shows(page, numbered(1, 7));
    assert.deepEqual(await lines(page, 'recovered'), ['recovered, 5 missed', ...numbered(3, 7)]);
    await publish('cut', 8);
    await shows(page, numbered(1, 8));
    await cut(page);
    await comeBack(page);
    await publish('cut', 9);
    await shows(page, numbered(1, 9));
    assert.equal((await lines(page, 'recovered')).at(-1), 'recovered, 0 missed');
    assert.deepEqual(await lines(witness, 'recovered'), []);
    await picture(page, 'centrifuge');
  },

  async 'a page that is cut twenty times in a busy channel loses nothing and shows nothing twice'() {
    const wire = await new Wire(server).start();
    wire.restarting = true;
    const page = await visit('busy', { through: wire });
    let n = 0, over = false;
    const publisher = (async () => {
      while (!over) {
        await publish('busy', ++n);
        await new Promise(next => setTimeout(next, 20));
      }
    })();
    let returns = 0;
    for (let round = 1; round <= 20; round++) {
      wire.cut();
      returns = await until(`the page is back, ${round}`, async () => {
        const back = (await lines(page, 'recovered')).filter(line => line.startsWith('recovered')).length;
        return back > returns && back;
      });
    }
    over = true;
    await publisher;
    await shows(page, numbered(1, n));
    assert.deepEqual(await lines(page, 'lost'), []);
    assert.ok((await lines(page, 'recovered')).length > 40, 'the cuts have been in the middle of publications');
    assert.ok((await lines(page, 'live')).length > 0);
    wire.stop();
  },

  async 'what the history no longer holds is told, and the page goes on'() {
    const page = await visit('smallhistory:page');
    await publish('smallhistory:page', 1);
    await shows(page, numbered(1, 1));
    await cut(page);
    await publish('smallhistory:page', 2, 3);
    await comeBack(page);
    await shows(page, numbered(1, 3));
    assert.deepEqual(await lines(page, 'lost'), []);
    await cut(page);
    await publish('smallhistory:page', 4, 6);
    await comeBack(page);
    assert.deepEqual(await lines(page, 'lost'), ['some publications were missed and are no longer held']);
    await publish('smallhistory:page', 7);
    await shows(page, [...numbered(1, 3), ...numbered(7, 7)]);
  },

  async 'the page comes back after a restart of the server, on a phone'() {
    const page = await visit('restart', PHONE);
    await publish('restart', 1);
    await shows(page, numbered(1, 1));
    server.restarting = true;
    assert.equal(await server.stop(), 0, 'the server ends cleanly');
    await until('the page sees it', async () => !(await page.locator('#state').textContent()).startsWith('connected'));
    await server.start();
    await connected(page);
    server.restarting = false;
    // The history began anew, and so did its offsets.
    await until('the loss is told', async () => (await lines(page, 'lost')).length === 1);
    await publish('restart', 1);
    await shows(page, [...numbered(1, 1), ...numbered(1, 1)]);
    assert.ok(
      await page.evaluate(() => document.scrollingElement.scrollWidth <= innerWidth),
      'nothing to scroll sideways',
    );
    await picture(page, 'centrifuge-phone');
  },

  async 'the console stayed clean and the page asked for nothing else'() {
    assert.deepEqual(unexpected, []);
  },
};

await run(server, checks);
