// Drives the operator's dashboard of the `chat` example in a real browser, with chat clients that it shows.
//
//   npm ci
//   CHAT_BIN=../../target/release/examples/chat node dashboard.mjs
//
// CHAT_BIN     the server
// harness.mjs describes the other variables.

import assert from 'node:assert/strict';
import {
  DESKTOP,
  PHONE,
  Server,
  picture,
  run,
  unexpected,
  unnamed,
  until,
  visit as visitPath,
  within,
} from './harness.mjs';
import { Socket } from './socket.mjs';

const { CHAT_BIN } = process.env;
if (!CHAT_BIN) {
  console.error('CHAT_BIN must name the chat server');
  process.exit(2);
}
const PASSWORD = 'ein gutes Paßwort:1';
const server = new Server(CHAT_BIN, ['--admin-password', PASSWORD]);
const authorization = `Basic ${Buffer.from(`admin:${PASSWORD}`).toString('base64')}`;

// --- pages --------------------------------------------------------------------------------------------------

const $ = (page, id) => page.getByTestId(id);
const requests = path => /^\/admin\/(events|actions)(\?|$)/.test(path) || path === '/admin/';
async function visit(options = DESKTOP) {
  const page = await visitPath(server, '/admin', 'the dashboard', {
    options: { ...options, httpCredentials: { username: 'admin', password: PASSWORD } },
    requests,
  });
  await live(page);
  return page;
}
const live = page =>
  until('the dashboard is live', async () => (await $(page, 'link').getAttribute('data-state')) === 'live');
const text = (page, id) => $(page, id).textContent();
/// The row of a client whose row contains this text.
const row = (page, part) => $(page, 'client').filter({ hasText: part });
const shows = (page, part, count = 1) =>
  until(`${count} rows with ${part}`, async () => (await row(page, part).count()) === count);
/// The browser logs answers of 400 and above: these were asked for.
const forgive = pattern => {
  for (let n = unexpected.length - 1; n >= 0; n--) if (pattern.test(unexpected[n])) unexpected.splice(n, 1);
};
const notice = (page, part) => until(`the notice "${part}"`, async () => (await text(page, 'notices')).includes(part));

/// Nothing reaches over the right edge, and nothing can be scrolled sideways.
async function fits(page, what) {
  const wide = await page.evaluate(() => {
    const found = [];
    for (const node of [
      document.scrollingElement,
      document.body,
      ...document.querySelectorAll('.scroll, dialog[open]'),
    ])
      if (node.scrollWidth > node.clientWidth)
        found.push(`${node.tagName}.${node.className} scrolls: ${node.scrollWidth} > ${node.clientWidth}`);
    for (const node of document.querySelectorAll('body *')) {
      const box = node.getBoundingClientRect();
      if (
        box.width &&
        box.right > innerWidth + 1 &&
        !node.closest('.cut, svg, td, .facts, h1, .sr, thead') &&
        getComputedStyle(node).visibility !== 'hidden'
      )
        found.push(`${node.tagName}.${node.className} ends at ${Math.round(box.right)}`);
    }
    return found;
  });
  assert.deepEqual(wide, [], what);
}

// --- chat clients without a page ----------------------------------------------------------------------------

const clients = [];
/// Joins a room under a name; with `reads: false` it never reads what comes.
async function chat(name, room, options) {
  const client = await within(
    Socket.open(server.port, `/ws?name=${encodeURIComponent(name)}`, options),
    `${name} connects`,
  );
  clients.push(client);
  client.send(JSON.stringify({ type: 'join', room }));
  client.say = message => client.send(JSON.stringify({ type: 'message', room, text: message }));
  return client;
}

const everybodyLeaves = () => { for (const client of clients.splice(0)) client.close(); };
const post = (body, headers = {}) =>
  fetch(`${server.url}/admin/actions`, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { authorization, 'Content-Type': 'application/json', 'X-Wshub-Dashboard': '1', ...headers },
  });

// --- the checks ---------------------------------------------------------------------------------------------

const checks = {
  async 'without the password there is nothing'() {
    for (const path of ['/admin', '/admin/', '/admin/events', '/admin/actions'])
      for (const headers of [{}, { authorization: `Basic ${btoa('admin:wrong')}` }, { authorization: 'Bearer x' }]) {
        const answer = await fetch(server.url + path, { headers });
        assert.equal(answer.status, 401, path);
        assert.match(answer.headers.get('www-authenticate'), /^Basic realm=/);
        assert.equal((await answer.text()).includes('<'), false);
      }
  },

  async 'an idle hub'() {
    const page = await visit();
    assert.equal(await text(page, 'hub-state'), 'running');
    assert.equal(await text(page, 'clients-count'), '0');
    assert.equal(await page.locator('#clients-empty').textContent(), 'Nobody is connected.');
    assert.match(await text(page, 'endpoints'), /\/ws.*The chat of the page.*protocol: chat JSON/);
    assert.equal(await page.locator('#title').textContent(), 'chat');
    await fits(page, 'an idle hub');
    await picture(page, 'dash-idle');
  },

  async 'a client appears, with its room and its traffic'() {
    const page = await visit();
    const ana = await chat('Ana', 'garden'), ben = await chat('Ben', 'garden');
    await shows(page, 'garden', 2);
    await until('the room is listed', async () =>
      (await $(page, 'room').allTextContents()).includes('garden2 · 2 members'),
    );
    await until('messages are counted', async () => {
      for (let n = 0; n < 20; n++) ana.say(`message ${n}`);
      return Number(await text(page, 'rate-received').then(t => t.replace(/[^\d.]/g, ''))) >= 5;
    });
    await until('deliveries are counted', async () => parseFloat(await text(page, 'rate-delivered')) >= 1);
    await until('bytes are counted', async () => /[1-9].*B\/s/.test(await text(page, 'rate-bytes')));
    await until('a trace is shown', async () => await $(page, 'trace').filter({ hasText: 'message' }).count() > 0);
    const trace = $(page, 'trace').filter({ hasText: 'message' }).first();
    await $(page, 'traces-pause').click();
    await trace.locator('summary').click();
    await until('its spans are shown', async () =>
      /send to room "garden"/.test((await trace.getByTestId('span').allTextContents()).join()),
    );
    await picture(page, 'dash-trace');
    ben.close();
    await shows(page, 'garden', 1);
    everybodyLeaves();
    await shows(page, 'garden', 0);
  },

  async 'a client that stops reading is shown as slow'() {
    const page = await visit();
    await chat('Stalled', 'flood', { reads: false });
    const talker = await chat('Talker', 'flood');
    await shows(page, 'flood', 2);
    const long = 'x'.repeat(2000);
    let waits = false;
    const talk = async () => { for (let n = 0; n < 200; n++) talker.say(long); };
    await until('its queue is seen to fill', async () => {
      await talk();
      waits ||= await $(page, 'slow-client').filter({ hasText: 'waiting' }).count() > 0;
      return waits;
    }, 60_000);
    await picture(page, 'dash-slow');
    // The chat's rooms remember, so a client that is behind reads on in the history: nothing is dropped, and it stays.
    assert.match(await page.locator('#totals').textContent(), /Messages dropped0/);
    await shows(page, 'flood', 2);
    everybodyLeaves();
  },

  async 'lists can be searched, ordered and narrowed to a room'() {
    const page = await visit();
    for (let n = 0; n < 60; n++) await chat(`guest ${n}`, n % 20 ? 'crowd' : 'corner');
    await until('all are counted', async () => await text(page, 'clients-count') === '60');
    assert.equal(await $(page, 'client').count(), 50, 'the list is bounded');
    assert.match(await page.locator('#clients-more').textContent(), /50 of 60 shown/);
    await page.keyboard.press('/');
    await page.keyboard.type('CORN');
    await until('three match', async () => await text(page, 'clients-count') === '3 of 60');
    await $(page, 'search').fill('no such thing');
    await until(
      'none matches',
      async () => (await page.locator('#clients-empty').textContent()) === 'No connection matches.',
    );
    await $(page, 'search').fill('');
    await page.locator('#show-more').click();
    await until('all are shown', async () => await $(page, 'client').count() === 60);
    await $(page, 'room').filter({ hasText: 'corner' }).click();
    await until('the members of a room', async () => await text(page, 'clients-count') === '3 of 60');
    assert.match(await text(page, 'room-filter'), /corner/);
    await $(page, 'room-filter').click();
    await until('all again', async () => await text(page, 'clients-count') === '60');
    await page.getByRole('button', { name: /^Age/ }).click();
    await until('oldest first', async () => await page.locator('th[aria-sort]').textContent() === 'Age');
    await $(page, 'room-search').fill('row');
    await until('rooms are searched', async () =>
      /^crowd57 · \d+ members$/.test((await $(page, 'room').allTextContents()).join()),
    );
    await fits(page, 'a crowd');
    await $(page, 'room-search').fill('');
    await until('rooms are back', async () => await $(page, 'room').count() === 3);
    await picture(page, 'dash-crowd');
    everybodyLeaves();
  },

  async 'a message arrives, and a client is closed'() {
    const page = await visit();
    const ana = await chat('Ana', 'garden'), ben = await chat('Ben', 'other');
    await shows(page, 'garden');
    await $(page, 'open-send').click();
    await $(page, 'send-kind').selectOption('room');
    await $(page, 'send-name').fill('garden');
    await $(page, 'send-text').fill('{"type":"error","code":"notice","message":"<b>down at noon</b>"}');
    await picture(page, 'dash-send');
    await $(page, 'send-go').click();
    await until('the outcome is told', async () => await text(page, 'send-result') === 'Queued for 1 client.');
    // The chat's rooms have positions, which its format adds to every message.
    const isNotice = text => {
      try {
        const { position, ...rest } = JSON.parse(text);
        return (
          Boolean(position) &&
          JSON.stringify(rest) === '{"type":"error","code":"notice","message":"<b>down at noon</b>"}'
        );
      } catch {
        return false;
      }
    };
    await until('it arrives', async () => ana.received.some(isNotice));
    assert.equal(ben.received.some(m => m.includes('noon')), false);
    await $(page, 'send-name').fill('nowhere');
    await $(page, 'send-text').fill('x');
    await $(page, 'send-go').click();
    await until('a room that is not there is told', async () =>
      /no recipient: room "nowhere"/.test(await text(page, 'send-result')),
    );
    await page.keyboard.press('Escape');
    await row(page, 'garden').getByRole('button').click();
    await $(page, 'client-text').fill('to you alone');
    await $(page, 'client-send').click();
    await until('it arrives', async () => ana.received.includes('to you alone'));
    await $(page, 'close-code').fill('1005');
    await $(page, 'client-close').click();
    await until('a code that may not be sent is refused', async () =>
      /1005 is not a close code/.test(await text(page, 'client-result')),
    );
    await $(page, 'close-code').fill('4001');
    await $(page, 'close-reason').fill('tidying <up>');
    await picture(page, 'dash-client');
    await $(page, 'client-close').click();
    assert.deepEqual(await within(ana.ended, 'the client is closed'), [4001, 'tidying <up>']);
    forgive(/status of (404|422)/);
    await notice(page, 'Closing');
    await shows(page, 'garden', 0);
    await shows(page, 'other', 1);
    everybodyLeaves();
  },

  async 'the keyboard is enough'() {
    const page = await visit();
    const ana = await chat('Ana', 'garden');
    await shows(page, 'garden');
    await page.keyboard.press('/');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'search');
    for (let n = 0; n < 8 && !(await page.evaluate(() => document.activeElement.matches('#clients .open'))); n++)
      await page.keyboard.press('Tab');
    const focused = () => page.evaluate(() => document.activeElement.closest('tr')?.dataset.id);
    const id = await focused();
    assert.ok(id, 'the row can be reached');
    await chat('Newer', 'other');
    await shows(page, 'other');
    assert.equal(await focused(), id, 'the focus stays with its row while the list changes');
    await page.keyboard.press('Enter');
    await $(page, 'client-dialog').waitFor();
    for (
      let n = 0;
      n < 12 && !(await page.evaluate(() => document.activeElement.matches('[data-testid=client-close]')));
      n++
    )
      await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    assert.deepEqual(await within(ana.ended, 'the client is closed'), [1000, '']);
    assert.deepEqual(await unnamed(page), [], 'every control has a name');
    everybodyLeaves();
  },

  async 'hostile names stay text'() {
    const page = await visit();
    const hostile = [
      '<img src=x onerror=alert(1)>',
      '"><script>alert(2)</script>',
      '\u202egnp.evil\u202c',
      'W'.repeat(64),
      '__proto__',
      'constructor',
      '&lt;b&gt;',
      '🔥👩‍👩‍👧‍👦',
      "'); DROP TABLE rooms; --",
    ];
    for (const name of hostile) await chat(name, name);
    await shows(page, '<img src=x onerror=alert(1)>');
    await shows(page, '⟨202E⟩gnp.evil');
    await shows(page, 'W'.repeat(32));
    await shows(page, '🔥👩‍👩‍👧‍👦');
    for (const name of ['__proto__', 'constructor', '&lt;b&gt;', "'); DROP TABLE"]) await shows(page, name);
    await until('all rooms are listed', async () => await $(page, 'room').count() === hostile.length + 1);
    // The path of the request is the client's too, and so is what it says.
    const long = await chat('n'.repeat(6000), '<svg onload=alert(3)>' + 'r'.repeat(100_000));
    long.send('<b>no JSON</b>');
    await until(
      'its error is counted',
      async () => (await $(page, 'error').filter({ hasText: 'message_handling' }).count()) === 1,
    );
    const found = await page.evaluate(() => ({
      elements: document.querySelectorAll('img, b, iframe, object, [onerror], [onload], main script').length,
      scripts: document.querySelectorAll('script').length,
    }));
    assert.deepEqual(found, { elements: 0, scripts: 1 });
    await fits(page, 'hostile names');
    await $(page, 'room').filter({ hasText: 'onerror' }).click();
    await until('filtered by a hostile name', async () => /^1 of/.test(await text(page, 'clients-count')));
    await picture(page, 'dash-hostile');
    everybodyLeaves();
  },

  async 'the page fits a phone'() {
    const page = await visit(PHONE);
    await chat('W'.repeat(32), 'a room with a name that is as long as the names of rooms can be.');
    const ana = await chat('Ana', 'garden');
    for (let n = 0; n < 12; n++) await chat(`guest ${n}`, n % 3 ? 'lobby' : 'garden');
    await shows(page, 'garden', 5);
    for (let n = 0; n < 30; n++) ana.say(`message ${n}`);
    await until('traffic', async () => parseFloat(await text(page, 'rate-delivered')) > 0);
    await fits(page, 'a phone');
    await picture(page, 'dash-phone', { fullPage: true });
    await row(page, 'garden').last().getByRole('button').tap();
    await $(page, 'client-dialog').waitFor();
    await fits(page, 'a dialog on a phone');
    await picture(page, 'dash-phone-client');
    await $(page, 'client-dialog').getByRole('button', { name: 'Close this window' }).tap();
    await page.locator('#order').selectOption('oldest');
    await until('oldest first', async () => /W{32}|as long as/.test(await $(page, 'client').first().textContent()));
    everybodyLeaves();
  },

  async 'actions of other pages are refused'() {
    const ana = await chat('Ana', 'garden');
    const body = { action: 'send', to: 'all', text: 'forged' };
    assert.equal((await post(body, { 'X-Wshub-Dashboard': '1', origin: 'http://evil.example' })).status, 403);
    assert.equal((await post(body, { 'sec-fetch-site': 'cross-site' })).status, 403);
    assert.equal((await post(body, { 'Content-Type': 'text/plain' })).status, 415);
    assert.equal((await post(body, { authorization: '' })).status, 401);
    // A page of another origin, in a browser that knows the password: its request needs a permission that it does not
    // get.
    const page = await visitPath(server, '/', 'a page of the chat', {
      options: { ...DESKTOP, httpCredentials: { username: 'admin', password: PASSWORD } },
      requests: path => path.startsWith('/ws') || path === '/admin/actions',
      prepare: () => {},
    });
    const status = await page
      .evaluate(() =>
        fetch('/admin/actions', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{}' }).then(
          a => a.status,
        ),
      )
      .catch(() => 0);
    assert.ok([401, 403].includes(status), `${status}`);
    forgive(/status of 40[13]/);
    assert.equal(ana.received.some(m => m.includes('forged')), false);
    everybodyLeaves();
  },

  async 'the page comes back after a restart of the server'() {
    const page = await visit();
    await chat('Ana', 'harbour');
    await shows(page, 'harbour');
    server.restarting = true;
    assert.equal(await server.stop(), 0, 'the server ends cleanly while somebody watches');
    await until('the page sees it', async () => await $(page, 'link').getAttribute('data-state') === 'waiting');
    await picture(page, 'dash-waiting');
    await server.start();
    await live(page);
    server.restarting = false;
    await shows(page, 'harbour', 0);
    await chat('Ben', 'haven');
    await shows(page, 'haven');
    everybodyLeaves();
    server.restarting = true;
    await server.stop();
    server.args = ['--admin-password', 'another'];
    await server.start();
    await until('another password ends it', async () => await $(page, 'link').getAttribute('data-state') === 'refused');
    assert.match(await text(page, 'link'), /signed out/);
    await server.stop();
    server.args = ['--admin-password', PASSWORD];
    await server.start();
    server.restarting = false;
    forgive(/status of 401/);
  },

  // What the example has not: drawn from a stream made up here.
  async 'a cluster, and everything at its largest'() {
    const long = 'name '.repeat(32), at = Date.now();
    const client = n => ({
      id: `${String(n).padStart(8, '0')}-0000-4000-8000-000000000000`,
      name: n % 3 ? null : long,
      user: n % 2 ? `user ${n}` : null,
      rooms: Array.from({ length: n % 7 }, (_, i) => `room ${i}`),
      room_count: (n % 7) * 3,
      address: n % 5 ? `[2001:db8:aaaa:bbbb:cccc:dddd:eeee:${n}]:65535` : null,
      path: '/ws',
      since: (at - n ** 3 * 1000) * 1000,
      queue: [n % 4 ? 0 : n * 1000, n * 1e6],
      dropped: [n % 9 ? 0 : n * 1e6, n * 1e9],
      kind: n % 4 ? 'websocket' : 'event stream',
      closing: n % 11 === 1,
    });
    const clients = Array.from({ length: 200 }, (_, n) => client(n));
    const spans = [
      ['outer', 'middleware', null, 0, 9e6],
      ['handler', 'handler', 0, 1e6, 7e6],
      [long, 'custom', 1, 2e6, 1e6],
      ['send', 'send', 1, 4e6, 3e6],
    ].map(([name, kind, parent, start_ns, duration_ns]) => ({
      name,
      kind,
      parent,
      start_ns,
      duration_ns,
      target: 'everyone',
      queued: 9000,
      dropped: 12,
      refused: 0,
      published: true,
    }));
    const traces = Array.from({ length: 40 }, (_, n) => ({
      id: 40 - n,
      client: clients[n].id,
      endpoint: '/ws',
      event: n % 5 ? 'order.created' : null,
      kind: 'text',
      bytes: 12345,
      started_us: (at - n * 700) * 1000,
      duration_ns: 1e7 / (n + 1),
      spans,
      spans_left_out: 3,
      outcome: [
        { result: 'ok' },
        { result: 'error', type: 'message_handling', text: long },
        { result: 'closed', code: 1008, reason: 'policy' },
        { result: 'panic', text: 'index out of bounds' },
      ][n % 9 === 0 ? n % 4 : 0],
    }));
    const types = [
      'connection_rejected',
      'connection_rejected_draining',
      'connection_limit',
      'upgrade_failed',
      'origin_rejected',
      'rate_limit_exceeded',
      'panic',
      'till_is_empty',
    ];
    const history = Array.from({ length: 300 }, (_, n) => [
      at - (300 - n) * 1000,
      8900 + Math.round(80 * Math.sin(n / 20)),
      [n * 900 + 300 * Math.sin(n / 9), n * 81e4 + 9e4 * Math.sin(n / 5), n > 200 ? (n - 200) * 12 : 0],
      [n * 1e5, n * 4e7 + 5e6 * Math.sin(n / 7)],
      Math.floor(n / 20) * 7,
    ]);
    const hello = {
      instance: 'made up',
      title: 'checkout',
      version: '0',
      node: 'eu-west-1a',
      now: at,
      has_metrics: true,
      has_tracer: true,
      queue: [256, 1 << 20],
      max_connections: 10000,
      max_rows: 200,
      history,
      endpoints: [
        {
          path: '/ws',
          kind: 'websocket',
          description: 'Orders and their states',
          tags: { team: 'checkout', protocol: 'JSON' },
          middleware: ['token', 'recovery', 'metrics'],
        },
        { path: '/events/' + 'x'.repeat(200), kind: 'event_stream', description: '', tags: {}, middleware: [] },
      ],
    };
    const tick = {
      at,
      sample: [at, 9000, [900 * 300, 81e4 * 300, 1200], [3e7, 1.2e10], 105],
      remembered: { rooms: 1200, messages: 123456, values: 4321, bytes: 6.4e7, gaps: 1234, evictions: 56 },
      hub: {
        state: 'running',
        uptime_ms: 9e8,
        clients: 9000,
        users: 4321,
        rooms: 1234,
        everywhere: 26123,
        adapter: 'disconnected',
      },
      nodes: ['eu-west-1a', 'eu-west-1b', 'x'.repeat(160)].map((id, n) => ({
        id,
        clients: 9000 + n,
        rooms: 1234,
        seen_ms: n * 1700,
      })),
      slow: clients.filter(c => c.queue[0]).slice(-8),
      traces,
      stats: {
        connections: 123456,
        joins: 98765,
        leaves: 87654,
        latency_us: 123.4,
        broadcast_us: 45678,
        published: 1234567,
        from_others: 2345678,
        unpublished: 12,
        errors: types.map((type, n) => [type, 10 ** n]),
      },
      clients: { total: 9000, matching: 9000, rows: clients },
      rooms: {
        total: 1234,
        matching: 1234,
        rows: Array.from({ length: 200 }, (_, n) => ({
          name: n ? `room ${n}` : 'r'.repeat(256),
          members: 9000 - n,
          elsewhere: n % 3 ? 17000 : 0,
        })),
      },
    };
    const body = `event: hello\ndata: ${JSON.stringify(hello)}\n\nevent: tick\ndata: ${JSON.stringify(tick)}\n\n`;
    for (const [name, options] of [
      ['dash-large', { viewport: { width: 1440, height: 1500 } }],
      ['dash-large-phone', PHONE],
    ]) {
      const page = await visit(options);
      await page.route('**/admin/events*', route => route.fulfill({ contentType: 'text/event-stream', body }));
      await page.locator('#order').evaluate(select => {
        select.value = 'queue';
        select.dispatchEvent(new Event('change'));
      });
      await until('the cluster is shown', async () => /eu-west-1b9,0011,2341 s/.test(await text(page, 'nodes')));
      await until('all rows are there', async () => (await $(page, 'client').count()) === 200);
      assert.match(await page.locator('#adapter').textContent(), /disconnected/);
      assert.match(await $(page, 'room').nth(1).textContent(), /room 1.*17,000 elsewhere/);
      assert.match(
        await text(page, 'remembered'),
        /1,200 rooms.*123,456 messages.*4,321 values.*1,234 gaps.*56 rooms forgotten/,
      );
      await $(page, 'trace').first().locator('summary').click();
      await fits(page, 'the largest page');
      await picture(page, name, { fullPage: name === 'dash-large-phone' });
    }
  },

  async 'a drain asks first'() {
    const page = await visit();
    await chat('Ana', 'garden');
    await shows(page, 'garden');
    await $(page, 'open-drain').click();
    assert.equal(await $(page, 'drain-go').isEnabled(), false);
    await page.keyboard.press('Enter');
    await $(page, 'drain-dialog').waitFor({ state: 'hidden' });
    assert.equal(await text(page, 'hub-state'), 'running', 'the first key does no harm');
    await $(page, 'open-drain').click();
    await $(page, 'drain-sure').check();
    await picture(page, 'dash-drain');
    await $(page, 'drain-go').click();
    await until('the hub drains', async () => await text(page, 'hub-state') === 'draining');
    assert.equal(await $(page, 'open-drain').isEnabled(), false);
    assert.equal((await fetch(`${server.url}/readyz`)).status, 503);
    await notice(page, 'drains');
    await picture(page, 'dash-draining');
    everybodyLeaves();
    await shows(page, 'garden', 0);
  },

  async 'the console stayed clean and the page asked for nothing else'() {
    assert.deepEqual(unexpected, []);
  },
};

await run(server, checks);
