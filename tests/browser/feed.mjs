// Drives the page of the `feed` example in a real browser: the same events over WebSocket and through `EventSource`.
//
//   npm ci
//   FEED_BIN=../../target/release/examples/feed node feed.mjs
//
// FEED_BIN     the server
// harness.mjs describes the other variables.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { PHONE, Server, Wire, picture, run, unexpected, until, visit as visitPath } from './harness.mjs';

const { FEED_BIN } = process.env;
if (!FEED_BIN) {
  console.error('FEED_BIN must name the feed server');
  process.exit(2);
}
const server = new Server(FEED_BIN);

const requests = path => ['/events', '/publish'].includes(path);
const shown = (page, list) => page.locator(`#${list} li`).allTextContents();
const state = (page, list) => page.locator(`#${list}-state`).textContent();
const connected = async page => {
  for (const list of ['ws', 'sse'])
    await until(`${list} is connected`, async () => (await state(page, list)) === 'connected');
};
async function visit(options) {
  const page = await visitPath(server, '/', 'the page', { options, requests });
  await connected(page);
  return page;
}
/// Publishes by hand; gives status and body.
const publish = async (body, method = 'POST') => {
  const answer = await fetch(`${server.url}/publish`, { method, body });
  return [answer.status, await answer.text()];
};
/// The newest event of both lists, which must be the same text.
const newest = (page, type) => until(`a ${type} is shown twice`, async () => {
  const [ws, sse] = [(await shown(page, 'ws'))[0], (await shown(page, 'sse'))[0]];
  return ws && sse && ws === sse && JSON.parse(ws).type === type && ws;
});
/// What an `EventSource` of its own, inside the page, gets while `work` is done: `count` events.
const listen = async (page, count, work) => {
  await page.evaluate(wanted => new Promise(ok => {
    const stream = new EventSource('/events');
    window.heard = new Promise(done => {
      const all = [];
      stream.onmessage = event => {
        all.push({ data: event.data, id: event.lastEventId, type: event.type });
        if (all.length === wanted) { stream.close(); done(all); }
      };
    });
    stream.onopen = ok;
  }), count);
  await work();
  return page.evaluate(() => window.heard);
};

const checks = {
  async 'what is published is shown on both sides'() {
    const page = await visit();
    await page.locator('#type').fill('price');
    await page.locator('#payload').fill('{"cents": 120, "text": "ü <b>\\n"}');
    await page.getByRole('button').click();
    const text = await newest(page, 'price');
    assert.match(
      text,
      /^\{"type":"price","payload":\{"cents": 120, "text": "ü <b>\\n"\},"timestamp":"[\d-]{10}T[\d:]{8}\.\d{9}Z"\}$/,
    );
    await until('the page says so', async () => await page.locator('#answer').textContent() === 'sent to 2');
    await picture(page, 'feed');
  },

  async 'payloads of many lines come through EventSource as they were'() {
    const page = await visit();
    const payloads = [
      '{\n  "a": [\n    1,\n    2\n  ]\n}',
      '"one line"',
      '\n\n[\n\n]\n',
      '{"data: x":\n"data: y\\n\\n: z"}',
      'null',
    ];
    const heard = await listen(page, payloads.length, async () => {
      for (const payload of payloads) assert.equal((await publish(`{"type":"lines","payload":${payload}}`))[0], 200);
    });
    const bodies = heard.map(({ data }) => /^\{"type":"lines","payload":([^]*),"timestamp":"[^"]*"\}$/.exec(data)[1]);
    assert.deepEqual(bodies, payloads.map(payload => payload.trim()));
    assert.deepEqual([...new Set(heard.map(({ type }) => type))], ['message']);
    await newest(page, 'lines');
    const shownBodies = (await shown(page, 'sse')).reverse();
    assert.deepEqual(shownBodies, heard.map(({ data }) => data));
  },

  async 'a large event comes whole and many come in order'() {
    const page = await visit();
    const large = JSON.stringify('x\n'.repeat(100_000));
    const heard = await listen(page, 301, async () => {
      await publish(`{"type":"large","payload":${large}}`);
      for (let n = 0; n < 300; n++) await publish(`{"type":"n","payload":${n}}`);
    });
    assert.equal(JSON.stringify(JSON.parse(heard[0].data).payload), large);
    assert.deepEqual(
      heard.slice(1).map(({ data }) => JSON.parse(data).payload),
      Array.from({ length: 300 }, (_, n) => n),
    );
  },

  async 'an EventSource that is cut twenty times in a busy feed misses nothing'() {
    const wire = await new Wire(server).start();
    wire.restarting = true;
    const page = await visitPath(wire, '/', 'a page on a bad wire', { requests });
    await page.evaluate(() => {
      Object.assign(window, { got: [], opened: 0 });
      const stream = new EventSource('/events');
      stream.onopen = () => window.opened++;
      stream.onmessage = event => {
        const { type, payload } = JSON.parse(event.data);
        if (type === 'busy') window.got.push(payload);
      };
      stream.addEventListener('gap', event => window.got.push(`gap ${event.data}`));
    });
    await until('the stream is open', () => page.evaluate(() => window.opened === 1));
    let n = 0, over = false;
    const publisher = (async () => {
      while (!over) {
        assert.equal((await publish(`{"type":"busy","payload":${n++}}`))[0], 200);
        await new Promise(next => setTimeout(next, 60));
      }
    })();
    for (let cuts = 1; cuts <= 20; cuts++) {
      await new Promise(next => setTimeout(next, 150));
      wire.cut();
      await until(`the stream is open again, ${cuts}`, () => page.evaluate(cuts => window.opened > cuts, cuts));
    }
    over = true;
    await publisher;
    const all = Array.from({ length: n }, (_, i) => i);
    await until('everything has come', async () => (await page.evaluate(() => window.got.length)) >= n);
    assert.deepEqual(await page.evaluate(() => window.got), all);
    wire.stop();
  },

  async 'bad requests get a reason and nobody hears of them'() {
    const page = await visit();
    for (const body of [
      '',
      '{',
      '[]',
      '{"type":1,"payload":1}',
      '{"type":"x"}',
      '{"payload":1}',
      '{"type":"x","payload":nonsense}',
    ]) {
      const [status, text] = await publish(body);
      assert.equal(status, 400, body);
      assert.ok(JSON.parse(text).error.length > 5, text);
    }
    assert.equal((await publish(`{"type":"x","payload":"${'x'.repeat(512 * 1024)}"}`))[0], 413);
    for (const method of ['PUT', 'DELETE']) assert.equal((await publish('{"type":"x","payload":1}', method))[0], 405);
    assert.equal((await fetch(`${server.url}/publish`)).status, 405);
    assert.equal((await fetch(`${server.url}/events`, { method: 'HEAD' })).status, 405);
    assert.equal((await fetch(`${server.url}/events`, { method: 'POST', body: 'x' })).status, 405);
    await publish('{"type":"good","payload":1}');
    await newest(page, 'good');
    assert.equal((await shown(page, 'sse')).length, 1);
    assert.equal((await shown(page, 'ws')).length, 1);
  },

  async 'a page of an allowed origin listens with its cookies, and asks before it sends headers'() {
    const page_server = createServer((_, answer) =>
      answer.setHeader('content-type', 'text/html').end('<!doctype html><title>x</title>'),
    );
    await new Promise(ok => page_server.listen(0, '127.0.0.1', ok));
    const origin = `http://127.0.0.1:${page_server.address().port}`;
    const other = new Server(FEED_BIN, ['--allow-origin', origin]);
    await other.start();
    try {
      const page = await visitPath({ url: origin, restarting: false }, '/', 'the other page', { requests: () => true });
      await page.evaluate(url => new Promise((ok, fail) => {
        const stream = new EventSource(url, { withCredentials: true });
        window.heard = new Promise(done => { stream.onmessage = event => { stream.close(); done(event.data); }; });
        stream.onopen = ok;
        stream.onerror = () => fail(new Error(`state ${stream.readyState}`));
      }), `${other.url}/events`);
      await fetch(`${other.url}/publish`, { method: 'POST', body: '{"type":"far","payload":1}' });
      assert.equal(JSON.parse(await page.evaluate(() => window.heard)).type, 'far');
      // A header of its own makes the browser send OPTIONS first.
      const status = await page.evaluate(async url => {
        const stop = new AbortController();
        const answer = await fetch(url, {
          headers: { 'Last-Event-ID': '7' },
          credentials: 'include',
          signal: stop.signal,
        });
        stop.abort();
        return answer.status;
      }, `${other.url}/events`);
      assert.equal(status, 200);
    } finally {
      assert.equal(await other.stop(), 0, 'the other server ends cleanly');
      page_server.closeAllConnections();
      page_server.close();
    }
  },

  async 'both sides come back after a restart of the server, on a phone'() {
    const page = await visit(PHONE);
    server.restarting = true;
    assert.equal(await server.stop(), 0, 'the server ends cleanly');
    for (const list of ['ws', 'sse'])
      await until(`${list} sees that the server is gone`, async () => (await state(page, list)) === 'reconnecting');
    await server.start();
    await connected(page);
    server.restarting = false;
    await publish('{"type":"again","payload":1}');
    await newest(page, 'again');
    assert.ok(
      await page.evaluate(() => document.scrollingElement.scrollWidth <= innerWidth),
      'nothing to scroll sideways',
    );
    await picture(page, 'feed-phone');
  },

  async 'the console stayed clean and the page asked for nothing else'() {
    assert.deepEqual(unexpected, []);
  },
};

await run(server, checks);
