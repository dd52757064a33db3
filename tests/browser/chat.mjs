// Drives the page of the `chat` example in a real browser, against the real server.
//
//   npm ci
//   CHAT_BIN=../../target/release/examples/chat node chat.mjs
//
// CHAT_BIN     the server: run as `CHAT_BIN --addr 127.0.0.1:PORT`, it prints `listening on 127.0.0.1:PORT`
//              and ends on SIGTERM
// harness.mjs describes the other variables.
//
// Prints one line per check, and at the end how many passed and failed; exits with 1 if one failed.

import assert from 'node:assert/strict';
import {
  DESKTOP,
  PHONE,
  Server,
  Wire,
  picture,
  run,
  unexpected,
  unnamed,
  until,
  visit as visitPath,
  within,
} from './harness.mjs';

const { CHAT_BIN } = process.env;
if (!CHAT_BIN) {
  console.error('CHAT_BIN must name the chat server');
  process.exit(2);
}
const server = new Server(CHAT_BIN);

// --- pages --------------------------------------------------------------------------------------------------

/// A page in a profile of its own. `name: null` opens it without a name in its address.
async function visit(name, options = DESKTOP, through = server) {
  const prepare = page => {
    page.frames_received = [];
    page.on('websocket', socket =>
      socket.on('framereceived', ({ payload }) => page.frames_received.push(JSON.parse(payload))),
    );
  };
  const path = `/${name === null ? '' : `?name=${encodeURIComponent(name)}`}`;
  const page = await visitPath(through, path, `page of ${name ?? 'a new visitor'}`, { options, prepare });
  if (name !== null) await online(page);
  return page;
}

const $ = (page, id) => page.getByTestId(id);
const roomItem = (page, name) => page.locator(`[data-testid="room"][data-room=${JSON.stringify(name)}]`);
const state = page => $(page, 'state').getAttribute('data-state');
const title = page => $(page, 'room-title').textContent();
const texts = page => $(page, 'message-text').allTextContents();
const members = async page => (await $(page, 'member').locator('bdi').allTextContents()).sort();
const online = async page => {
  await until('the page is online', async () => await state(page) === 'online');
  await until('the page is in a room', async () => await $(page, 'compose').isEnabled());
};
const heard = (page, text) => until(`"${text.slice(0, 40)}" is shown`, async () => (await texts(page)).includes(text));
const say = async (page, text) => {
  await $(page, 'compose').fill(text);
  await until('the message can be sent', () => $(page, 'send').isEnabled());
  await $(page, 'compose').press('Enter');
  await heard(page, text);
};
const here = (page, names) =>
  until(`${names} are here`, async () => JSON.stringify(await members(page)) === JSON.stringify([...names].sort()));
/// Makes or joins a room by its name, as a person would.
async function enter(page, name) {
  const menu = $(page, 'open-rooms');
  if (await menu.isVisible()) await menu.click();
  await $(page, 'new-room').fill(name);
  await $(page, 'new-room').press('Enter');
  await until(`${name} is shown`, async () => await title(page) === name);
  await until('the room is joined', async () => await roomItem(page, name).getAttribute('data-joined') === 'true');
}
async function pick(page, name) {
  const menu = $(page, 'open-rooms');
  if (await menu.isVisible()) await menu.click();
  await roomItem(page, name).getByRole('button').click();
  await until(`${name} is shown`, async () => await title(page) === name);
}
async function leave(page) {
  const name = await title(page);
  await $(page, 'leave').click();
  await until(`${name} is left`, async () => await title(page) !== name);
}
const bottom = page => $(page, 'messages').evaluate(log => log.scrollHeight - log.scrollTop - log.clientHeight < 4);
const joinedFrame = (page, room) =>
  page.frames_received.findLast(frame => frame.type === 'joined' && frame.room === room);

/// Nothing that can be seen reaches over the right edge, and nothing can be scrolled sideways.
async function fits(page, what) {
  const wide = await page.evaluate(() => {
    const found = [];
    const root = document.scrollingElement, log = document.querySelector('[data-testid="messages"]');
    for (const node of [root, document.body, log])
      if (node.scrollWidth > node.clientWidth)
        found.push(`${node.tagName} scrolls: ${node.scrollWidth} > ${node.clientWidth}`);
    for (const node of document.querySelectorAll('header *, .compose *, .body, .by, aside *')) {
      if (node.parentElement.closest('.cut')) continue;
      const box = node.getBoundingClientRect();
      if (box.width && box.right > innerWidth + 1)
        found.push(`${node.tagName}.${node.className} ends at ${Math.round(box.right)}`);
    }
    return found;
  });
  assert.deepEqual(wide, [], what);
}

/// A client without a page, inside `page` (so that its origin is the page's): joins a room and sends texts there,
/// `burst` at a time, each burst when the one before has come back. Resolves to what happened.
const client = (page, options) => within(page.evaluate(({ name, room, sends, burst }) => new Promise(ok => {
  const socket = new WebSocket(`ws://${location.host}/ws?name=${encodeURIComponent(name)}`);
  const done = outcome => { socket.close(); ok(outcome); };
  let id, sent = 0, back = 0;
  const more = () => {
    if (back === sends.length) return done('sent');
    for (const end = Math.min(sent + burst, sends.length); sent < end; sent++)
      socket.send(JSON.stringify({ type: 'message', room, text: sends[sent] }));
  };
  socket.onclose = () => ok('closed');
  socket.onmessage = ({ data }) => {
    const m = JSON.parse(data);
    if (m.type === 'welcome') { id = m.id; socket.send(JSON.stringify({ type: 'join', room })); }
    else if (m.type === 'joined') more();
    else if (m.type === 'error') done(`refused: ${m.code}`);
    else if (m.type === 'message' && m.from.id === id && ++back === sent) more();
  };
}), { burst: 50, ...options }), `a client sends ${options.sends.length} messages`, 90_000);

// --- the checks ---------------------------------------------------------------------------------------------

const checks = {
  async 'a new visitor is asked for a name, once'() {
    const page = await visit(null);
    const dialog = $(page, 'name-dialog');
    await dialog.waitFor();
    await page.keyboard.press('Escape');
    await page.keyboard.press('Escape');
    await dialog.waitFor();
    assert.equal(await $(page, 'name-go').isEnabled(), false, 'an empty name is refused');
    await $(page, 'name-input').fill('n'.repeat(33));
    assert.match(await $(page, 'name-hint').textContent(), /32/);
    assert.equal(await $(page, 'name-go').isEnabled(), false, 'a name of 33 characters is refused');
    await picture(page, 'name');
    await $(page, 'name-input').fill('Nadia');
    await $(page, 'name-input').press('Enter');
    await online(page);
    assert.deepEqual(await members(page), ['Nadia']);
    await page.reload();
    await online(page);
    assert.equal(await dialog.isVisible(), false);
    assert.deepEqual(await members(page), ['Nadia']);
  },

  async 'two pages talk'() {
    const ana = await visit('Ana'), ben = await visit('Ben');
    assert.equal(await title(ana), 'lobby');
    await here(ana, ['Ana', 'Ben']);
    await here(ben, ['Ana', 'Ben']);
    await say(ana, 'Good morning');
    await heard(ben, 'Good morning');
    await say(ben, 'Good morning to you\nand a second line');
    await heard(ana, 'Good morning to you\nand a second line');
    const own = page => $(page, 'message').evaluateAll(all => all.slice(-2).map(item => item.dataset.own));
    assert.deepEqual(await own(ana), ['true', 'false']);
    assert.deepEqual(await own(ben), ['false', 'true']);
    await picture(ana, 'talk');
  },

  async 'the keyboard is enough'() {
    const ana = await visit('Ana'), ben = await visit('Ben');
    await $(ana, 'skip').focus();
    await ana.keyboard.press('Enter');
    await ana.keyboard.type('typed');
    await ana.keyboard.press('Shift+Enter');
    await ana.keyboard.type('on two lines');
    await ana.keyboard.press('Enter');
    await heard(ben, 'typed\non two lines');
    await $(ana, 'new-room').focus();
    await ana.keyboard.type('workshop');
    await ana.keyboard.press('Enter');
    await until('the new room is shown', async () => await title(ana) === 'workshop');
    await roomItem(ana, 'lobby').getByRole('button').focus();
    await ana.keyboard.press('Enter');
    await until('the lobby is shown', async () => await title(ana) === 'lobby');
    assert.deepEqual(await unnamed(ana), [], 'every control has a name');
  },

  async 'a room is created, joined by both, and left'() {
    const ana = await visit('Ana'), ben = await visit('Ben');
    await enter(ana, 'garden');
    await here(ana, ['Ana']);
    await until(
      'the other page lists the room',
      async () => (await roomItem(ben, 'garden').getAttribute('data-members')) === '1',
    );
    assert.equal(await roomItem(ben, 'garden').getAttribute('data-joined'), 'false');
    await pick(ben, 'garden');
    await here(ana, ['Ana', 'Ben']);
    await here(ben, ['Ana', 'Ben']);
    await say(ben, 'only for the garden');
    await heard(ana, 'only for the garden');
    await pick(ana, 'lobby');
    assert.equal((await texts(ana)).includes('only for the garden'), false);
    await pick(ana, 'garden');
    await leave(ben);
    await here(ana, ['Ana']);
    await until(
      'the room is no longer joined',
      async () =>
        (await roomItem(ben, 'garden')
          .getAttribute('data-joined')
          .catch(() => 'false')) !== 'true',
    );
    await leave(ana);
    assert.equal(await title(ana), 'lobby');
  },

  async 'unread messages are counted'() {
    const ana = await visit('Ana'), ben = await visit('Ben');
    for (const page of [ana, ben]) await enter(page, 'bell');
    await pick(ana, 'lobby');
    for (const text of ['one', 'two', 'three']) await say(ben, text);
    await until('three are unread', async () => await roomItem(ana, 'bell').getAttribute('data-unread') === '3');
    assert.match(await ana.title(), /^\(3\)/);
    await $(ana, 'compose').fill('a draft for the lobby');
    await pick(ana, 'bell');
    await until('none is unread', async () => await roomItem(ana, 'bell').getAttribute('data-unread') === '0');
    assert.equal(await $(ana, 'compose').inputValue(), '');
    await pick(ana, 'lobby');
    assert.equal(await $(ana, 'compose').inputValue(), 'a draft for the lobby');
  },

  async 'hostile names, rooms and texts stay text'() {
    const markup = '<img src=x onerror=alert(1)>', override = '\u202eevil\u202d\u2066 name', wide = 'W'.repeat(32);
    const ana = await visit('Ana'),
      mallory = await visit(markup),
      rtl = await visit(override),
      broad = await visit(wide);
    const room = '<b id=injected>"wild"</b>';
    const payloads = [
      markup,
      '<script>alert(2)</script>',
      '"><svg onload=alert(3)>',
      '\u202eturned around',
      'javascript:alert(4)',
      '&lt;b&gt; &amp; ${alert(5)}',
      '🔥👩‍👩‍👧‍👦🏳️‍🌈',
      'Z̸̡̧̛͎̺̮a̵̧̛̛l̶͎̈́g̷̛̼ò̵̹',
      'W'.repeat(2000),
      '\n'.repeat(500).replaceAll('\n', 'x\n').trim(),
      '__proto__',
      '{"type":"left","room":"lobby"}',
    ];
    for (const page of [ana, mallory, rtl, broad]) await enter(page, room);
    for (const text of payloads) await say(mallory, text);
    for (const page of [rtl, broad]) await say(page, 'short');
    for (const text of payloads) await heard(ana, text);
    await until('all are here', async () => (await members(ana)).length === 4);
    assert.ok((await members(ana)).includes(markup));
    // The client of this page may send what the page refuses: ten kilobytes in one word.
    const outcome = await client(mallory, { name: markup, room, sends: ['x'.repeat(10_000)] });
    if (outcome === 'sent') await heard(ana, 'x'.repeat(10_000));
    await until(
      'the names are drawn',
      async () => (await $(ana, 'message-name').filter({ hasText: 'evil' }).count()) > 0,
    );
    const seen = await ana.evaluate(() => ({
      elements: document.querySelectorAll('img, iframe, object, #injected, b, main svg[onload], [onerror], [onload], a')
        .length,
      scripts: document.querySelectorAll('script').length,
      globals: Object.getOwnPropertyNames(window).filter(name => /injected|wild/.test(name)),
      // A name that turns the writing direction must not reach beyond itself: the time stands to its right.
      turned: [...document.querySelectorAll('[data-testid="message"]:not(.cont) .by')].filter(
        by => by.firstChild.getBoundingClientRect().right > by.lastChild.getBoundingClientRect().left,
      ).length,
      isolated: [
        ...document.querySelectorAll(
          '[data-testid="message-name"], [data-testid="member"] bdi, [data-testid="room"] bdi',
        ),
      ].every(node => getComputedStyle(node).unicodeBidi.startsWith('isolate')),
    }));
    assert.deepEqual(seen, { elements: 0, scripts: 1, globals: [], turned: 0, isolated: true });
    await fits(ana, 'the page holds hostile content');
    await picture(ana, 'hostile');
    await say(ana, 'still here');
    await heard(rtl, 'still here');
  },

  async 'what is too long is refused with a hint'() {
    const ana = await visit('Ana');
    await $(ana, 'compose').fill('x'.repeat(2001));
    assert.match(await $(ana, 'compose-hint').textContent(), /2,001 of 2,000/);
    assert.equal(await $(ana, 'send').isEnabled(), false);
    await $(ana, 'compose').press('Enter');
    assert.equal((await $(ana, 'compose').inputValue()).length, 2001);
    await $(ana, 'compose').fill('🔥'.repeat(2000));
    assert.equal(await $(ana, 'send').isEnabled(), true, 'characters are counted, not code units');
    await $(ana, 'compose').fill('   \n ');
    assert.equal(await $(ana, 'send').isEnabled(), false, 'blanks are no message');
    await $(ana, 'new-room').fill('r'.repeat(65));
    await $(ana, 'new-room').press('Enter');
    assert.match(await $(ana, 'new-room-hint').textContent(), /64/);
    assert.equal(await title(ana), 'lobby');
    await enter(ana, 'r'.repeat(64));
    await leave(ana);
  },

  async 'the page fits a phone'() {
    const ana = await visit('Ana'), pia = await visit('W'.repeat(32), PHONE);
    const room = 'a room with a name that is as long as the names of rooms can be.';
    for (const page of [ana, pia]) await enter(page, room);
    await say(ana, 'm'.repeat(1900));
    await heard(pia, 'm'.repeat(1900));
    await say(pia, 'From a phone 📱');
    await heard(ana, 'From a phone 📱');
    assert.equal(await pia.evaluate(() => innerWidth), 390);
    await fits(pia, 'the log');
    await picture(pia, 'phone');
    await $(pia, 'open-rooms').click();
    await roomItem(pia, 'lobby').waitFor();
    await fits(pia, 'the rooms');
    await picture(pia, 'phone-rooms');
    await pia.keyboard.press('Escape');
    await roomItem(pia, 'lobby').waitFor({ state: 'hidden' });
    await $(pia, 'open-people').click();
    await until('two are here', async () => (await members(pia)).length === 2);
    await fits(pia, 'the people');
    await picture(pia, 'phone-people');
    await pia.getByRole('button', { name: 'Close' }).last().click({ position: { x: 5, y: 400 } });
    await $(pia, 'member').first().waitFor({ state: 'hidden' });
    await pick(pia, 'lobby');
    await $(pia, 'compose').tap();
    await say(pia, 'and from the lobby');
  },

  async 'a room with 2,000 messages stays usable'() {
    const ana = await visit('Ana'), ben = await visit('Ben');
    for (const page of [ana, ben]) await enter(page, 'crowd');
    const sends = Array.from({ length: 2000 }, (_, i) => `line ${i + 1} ${'of a long talk '.repeat(i % 7)}`.trim());
    assert.equal(await client(ben, { name: 'Loader', room: 'crowd', sends }), 'sent');
    await heard(ana, sends.at(-1));
    assert.deepEqual((await texts(ana)).slice(-2000), sends, 'every line, in order');
    assert.ok(await bottom(ana), 'the newest line is in view');
    const begin = Date.now();
    await say(ana, 'after the crowd');
    await heard(ben, 'after the crowd');
    assert.ok(Date.now() - begin < 5000, 'a message is quick');
    assert.equal(await $(ana, 'message').count(), 2000, 'the oldest line has gone');
    await pick(ana, 'lobby');
    await pick(ana, 'crowd');
    assert.ok(Date.now() - begin < 10_000, 'rooms are quick');
    assert.ok(await bottom(ana));

    await $(ana, 'messages').evaluate(log => { log.scrollTop = log.scrollHeight / 2; });
    await until('the reader is at an old line', async () => !await bottom(ana));
    const line = () => ana.evaluate(() => {
      const log = document.querySelector('[data-testid="messages"]'), box = log.getBoundingClientRect();
      const item = [...log.children].find(node => node.getBoundingClientRect().top >= box.top);
      return [item.querySelector('.text').textContent, Math.round(item.getBoundingClientRect().top)];
    });
    const before = await line();
    await say(ben, 'one more');
    await $(ana, 'new-messages').waitFor();
    const after = await line();
    assert.equal(after[0], before[0], 'the view stays where the reader is');
    assert.ok(Math.abs(after[1] - before[1]) <= 1, `the view moved from ${before[1]} to ${after[1]}`);
    await picture(ana, 'crowd');
    await $(ana, 'new-messages').click();
    await until('the newest line is in view', () => bottom(ana));
    await $(ana, 'new-messages').waitFor({ state: 'hidden' });

    const eve = await visit('Eve');
    await enter(eve, 'crowd');
    const { history } = await until('the history has come', async () => joinedFrame(eve, 'crowd'));
    assert.ok(history.length > 0, 'the server sends a history');
    const expected = history.slice(-2000).map(entry => entry.text);
    await until('the history is shown', async () => await $(eve, 'message').count() === expected.length);
    assert.deepEqual(await texts(eve), expected);
    assert.equal(expected.at(-1), 'one more');
    assert.ok(await bottom(eve));
    for (const page of [ana, ben, eve]) await leave(page);
  },

  async 'both pages come back after a restart of the server'() {
    const ana = await visit('Ana'), ben = await visit('Ben', PHONE);
    for (const page of [ana, ben]) await enter(page, 'harbour');
    await say(ana, 'before the storm');
    await heard(ben, 'before the storm');
    server.restarting = true;
    assert.equal(await server.stop(), 0, 'the server ends cleanly');
    for (const page of [ana, ben])
      await until('the page sees that the server is gone', async () => (await state(page)) !== 'online');
    await until('the page says what it does', async () =>
      /Reconnecting in \d+ s|Trying again in \d+ s/.test(await $(ana, 'state').textContent()),
    );
    await $(ana, 'compose').fill('written while away');
    assert.equal(await $(ana, 'send').isEnabled(), false);
    await $(ana, 'compose').press('Enter');
    assert.equal(await $(ana, 'compose').inputValue(), 'written while away');
    await fits(ben, 'the page without a server');
    await picture(ana, 'reconnecting');
    await picture(ben, 'phone-reconnecting');
    for (const page of [ana, ben]) page.frames_received.length = 0;
    await server.start();
    for (const page of [ana, ben]) await online(page);
    for (const page of [ana, ben]) {
      const { history } = await until('the room is joined again', async () => joinedFrame(page, 'harbour'));
      await until('the lobby is joined again', async () => joinedFrame(page, 'lobby'));
      assert.equal(await title(page), 'harbour');
      const expected = history.map(entry => entry.text);
      await until(
        'the log is what the server sent',
        async () => JSON.stringify(await texts(page)) === JSON.stringify(expected),
      );
    }
    server.restarting = false;
    for (const page of [ana, ben]) await here(page, ['Ana', 'Ben']);
    assert.equal(await $(ana, 'compose').inputValue(), 'written while away', 'the text is still there');
    await say(ana, 'written while away');
    await heard(ben, 'written while away');
    await say(ben, 'after the storm');
    await heard(ana, 'after the storm');
    for (const page of [ana, ben]) {
      const all = await texts(page);
      for (const text of ['written while away', 'after the storm'])
        assert.equal(all.filter(t => t === text).length, 1, 'no line is doubled');
      await pick(page, 'lobby');
      await here(page, ['Ana', 'Ben']);
    }
    await say(ben, 'and in the lobby too');
    await heard(ana, 'and in the lobby too');
  },

  async 'a page whose connection is cut goes on without a doubled or lost line'() {
    const wire = await new Wire(server).start();
    const ben = await visit('Ben'), ana = await visit('Ana', DESKTOP, wire);
    for (const page of [ana, ben]) await enter(page, 'wire');
    await say(ana, 'line 0');
    let line = 0;
    for (let round = 0; round < 3; round++) {
      await say(ben, `line ${++line}`);
      wire.restarting = true;
      ana.frames_received.length = 0;
      wire.cut();
      for (let more = 0; more < 3; more++) await say(ben, `line ${++line}`);
      await online(ana);
      const joined = await until('the room is joined again', async () => joinedFrame(ana, 'wire'));
      assert.equal(joined.recovery, 'complete');
      assert.ok(joined.history.length <= 4, 'only what is new is sent');
      await say(ben, `line ${++line}`);
      await heard(ana, `line ${line}`);
      const expected = Array.from({ length: line + 1 }, (_, n) => `line ${n}`);
      assert.deepEqual(await texts(ana), expected);
      await here(ana, ['Ana', 'Ben']);
    }
    wire.stop();
  },

  async 'the console stayed clean and the page asked for nothing else'() {
    assert.deepEqual(unexpected, []);
  },
};

await run(server, checks);
