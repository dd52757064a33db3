(() => {
'use strict';
// Everything that comes from the server is hostile until shown: data reaches the document only as textContent
// and as attribute values, never as markup.
const LINES = 2000, TEXT = 2000, ROOM = 64, NAME = 32, SHOWN = 300, LOBBY = 'lobby', STORE = 'wshub-chat-name';
const ui = {};
for (const node of document.querySelectorAll('[data-testid]')) ui[node.dataset.testid] = node;
const rooms = document.getElementById('rooms'), people = document.getElementById('people');
const veil = document.querySelector('.veil'), main = document.querySelector('main'), log = ui.messages;
const collator = new Intl.Collator(undefined, { numeric: true });
const number = new Intl.NumberFormat('en');
const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const dated = new Intl.DateTimeFormat(undefined, {
  day: 'numeric',
  month: 'short',
  hour: '2-digit',
  minute: '2-digit',
});
const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });

// --- text -------------------------------------------------------------------------------------------------

const el = (tag, cls, text) => {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  if (text !== undefined) node.textContent = text;
  return node;
};
const set = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const sound = text => text.replace(/\p{Surrogate}/gu, '\ufffd');
const oneLine = text => sound(String(text ?? '')).replace(/[\p{Cc}\u2028\u2029\s]+/gu, ' ').trim();
const size = text => { let n = 0; for (const _ of text) n++; return n; };
// For attributes and titles, where nothing can isolate the direction of a name.
const plain = text => text.replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, '').slice(0, 200);
const plural = (n, one, many) => `${number.format(n)} ${n === 1 ? one : many}`;
const hue = text => {
  let h = 7;
  for (let i = 0; i < text.length; i++) h = (h * 31 + text.charCodeAt(i)) % 3600;
  return h / 10;
};
const paintFace = (node, name) => {
  set(node, (name.match(/[\p{L}\p{N}\p{Emoji_Presentation}]/u) || ['?'])[0].toUpperCase());
  node.style.setProperty('--h', hue(name));
};
const person = raw => {
  const name = oneLine(raw?.name);
  return { id: String(raw?.id), name: /[^\p{C}\p{Z}\p{M}]/u.test(name) ? name : 'nameless' };
};

// --- state ------------------------------------------------------------------------------------------------

let me = null;               // { id, name } of the present connection
let wish = '';               // the name that the user chose
const directory = new Map(); // every room that the server lists → how many are there
let current = null;          // the room that is shown
let goTo = LOBBY;            // the room to show as soon as the server has let us in
const mine = new Map();      // name → room that we are in, or were in when the connection was lost
const asked = new Set([LOBBY]);  // rooms that we asked for and have no answer yet
const sent = [];             // own messages that have not come back yet
const selves = new Map();    // ids that this page has had → the name it had with them

const newRoom = name => ({ name, live: false, members: new Map(), lines: [], total: 0, unread: 0, draft: '' });
const isMine = line => selves.get(line.id) === line.name;

// --- drawing ----------------------------------------------------------------------------------------------

let due = new Set(), scheduled = false;
function draw(...what) {
  what.forEach(w => due.add(w));
  if (scheduled) return;
  scheduled = true;
  const run = () => {
    const now = due;
    due = new Set();
    scheduled = false;
    if (now.has('rooms')) drawRooms();
    if (now.has('people')) drawPeople();
    if (now.has('lines')) drawLines();
  };
  if (document.hidden) setTimeout(run, 100); else requestAnimationFrame(run);
}

// Brings a list to the given items; nodes are kept by key, so that focus and hover survive.
function sync(list, items, make, update) {
  const old = list.nodes || new Map(), next = new Map();
  for (const item of items) next.set(item.key, old.get(item.key) || make(item));
  for (const [key, node] of old) if (!next.has(key)) node.remove();
  let at = list.firstChild;
  for (const item of items) {
    const node = next.get(item.key);
    update(node, item);
    if (node === at) at = at.nextSibling; else list.insertBefore(node, at);
  }
  list.nodes = next;
}

function makeRoom({ key }) {
  const item = el('li'), button = el('button', 'room'), name = el('span', 'cut');
  button.type = 'button';
  name.append(el('bdi', '', key));
  button.append(name, el('span', 'badge'), el('span', 'join', 'Join'), el('span', 'count'), el('span', 'sr'));
  button.title = plain(key);
  item.dataset.testid = 'room';
  item.dataset.room = key;
  item.append(button);
  button.onclick = () => { openRoom(key); drawer(null); };
  return item;
}
function updateRoom(item, { key, members, room }) {
  const button = item.firstChild, [, badge, join, count, spoken] = button.children;
  const unread = room?.unread || 0;
  item.dataset.joined = !!room;
  item.dataset.members = members;
  item.dataset.unread = unread;
  button.classList.toggle('unread', unread > 0);
  if (room && room === current) button.setAttribute('aria-current', 'true');
  else button.removeAttribute('aria-current');
  badge.hidden = !unread;
  set(badge, unread > 99 ? '99+' : String(unread));
  badge.ariaHidden = count.ariaHidden = 'true';
  join.hidden = !!room;
  set(count, number.format(members));
  set(spoken, `, ${plural(members, 'person', 'people')}${unread ? `, ${unread} unread` : ''}`);
}
function drawRooms() {
  const joined = [...mine.values()].map(room => ({
    key: room.name,
    room,
    members: room.live ? room.members.size : directory.get(room.name) || 0,
  }));
  const others = [...directory].filter(([key]) => !mine.has(key)).map(([key, members]) => ({ key, members }));
  const hidden = others.length - SHOWN;
  if (hidden > 0) others.sort((a, b) => b.members - a.members).length = SHOWN;
  others.sort((a, b) => collator.compare(a.key, b.key));
  sync(ui['joined-rooms'], joined, makeRoom, updateRoom);
  sync(ui['other-rooms'], others, makeRoom, updateRoom);
  ui['others-title'].hidden = !others.length;
  set(ui['rooms-more'], hidden > 0 ? `and ${plural(hidden, 'smaller room', 'smaller rooms')}` : '');
  drawTitle();
}

function drawPeople() {
  const all = current ? [...current.members.values()] : [];
  const first = p => p.id === me?.id ? 0 : 1;
  all.sort((a, b) => first(a) - first(b) || collator.compare(a.name, b.name));
  sync(ui.members, all.slice(0, SHOWN).map(p => ({ key: p.id, p })), () => {
    const item = el('li', 'member'), face = el('span', 'face'), name = el('span', 'cut');
    face.ariaHidden = 'true';
    name.append(el('bdi'));
    item.append(face, name, el('span', 'count'));
    item.dataset.testid = 'member';
    return item;
  }, (item, { p }) => {
    const [face, name, you] = item.children, self = p.id === me?.id;
    paintFace(face, p.name);
    set(name.firstChild, p.name);
    set(you, self ? 'you' : '');
    item.title = plain(p.name);
    item.dataset.self = self;
  });
  set(ui['members-more'], all.length > SHOWN ? `and ${number.format(all.length - SHOWN)} more` : '');
  const count = current ? number.format(all.length) : '';
  set(ui['member-count'], count);
  set(ui['open-people'].lastElementChild, count);
}

function drawTitle() {
  let elsewhere = 0;
  for (const room of mine.values()) if (room !== current) elsewhere += room.unread;
  const unread = elsewhere + (current?.unread || 0), badge = ui['open-rooms'].lastElementChild;
  badge.hidden = !elsewhere;
  set(badge, elsewhere > 99 ? '99+' : String(elsewhere));
  document.title = `${unread ? `(${unread}) ` : ''}${current ? `${plain(current.name)} · ` : ''}wshub chat`;
}

// --- the log ----------------------------------------------------------------------------------------------

let drawn = 0;      // how many of the current room's lines have been drawn, counted from its beginning
let last = null;    // the newest line that has been drawn
let stuck = true;   // the view is at its bottom and stays there
let below = 0;      // lines that arrived below the view

const toBottom = () => { log.scrollTop = log.scrollHeight; stuck = true; below = 0; ui['new-messages'].hidden = true; };
log.addEventListener('scroll', () => {
  stuck = log.scrollHeight - log.scrollTop - log.clientHeight < 48;
  if (stuck && below) toBottom();
}, { passive: true });
new ResizeObserver(() => { if (stuck) toBottom(); }).observe(log);
ui['new-messages'].onclick = () => { toBottom(); log.focus({ preventScroll: true }); };

function makeLine(line, before, today) {
  const own = isMine(line), when = new Date(line.at), valid = !Number.isNaN(when.getTime());
  const item = el('li', 'msg'),
    face = el('span', 'face'),
    by = el('div', 'by'),
    body = el('div', 'body'),
    text = el('div', 'text', line.text);
  const name = el('bdi', 'cut', own ? 'You' : line.name), time = el('time');
  if (before && before.id === line.id && before.name === line.name && Math.abs(line.at - before.at) < 240000)
    item.classList.add('cont');
  if (own) item.classList.add('own');
  face.ariaHidden = 'true';
  if (!own) paintFace(face, line.name);
  name.style.setProperty('--h', hue(line.name));
  name.title = plain(line.name);
  if (valid) {
    time.textContent = (when.toDateString() === today ? clock : dated).format(when);
    time.dateTime = when.toISOString();
  }
  text.dir = 'auto';
  by.append(name, time);
  body.append(text);
  if (line.text.length > 1200 || line.text.split('\n', 13).length > 12) {
    const more = el('button', '', 'Show all');
    more.type = 'button';
    text.classList.add('fold');
    more.onclick = () => { more.textContent = text.classList.toggle('fold') ? 'Show all' : 'Show less'; };
    body.append(more);
  }
  item.append(face, by, body);
  item.dataset.testid = 'message';
  item.dataset.own = own;
  text.dataset.testid = 'message-text';
  name.dataset.testid = 'message-name';
  return item;
}

// The full time of a message is worked out when somebody points at it.
log.addEventListener('pointerover', event => {
  const body = event.target.closest('.body'), at = body?.previousSibling.lastChild.dateTime;
  if (at && !body.title) body.title = full.format(new Date(at));
});

function drawLines() {
  const room = current;
  if (!room) return;
  const fresh = Math.min(room.total - drawn, room.lines.length);
  drawn = room.total;
  if (fresh > 0) {
    const batch = document.createDocumentFragment(), today = new Date().toDateString();
    for (const line of room.lines.slice(-fresh)) {
      batch.append(makeLine(line, last, today));
      last = line;
    }
    const surplus = log.childElementCount + fresh - LINES;
    if (surplus > 0) {
      const anchor = stuck ? null : log.lastChild, top = anchor?.getBoundingClientRect().top;
      for (let i = 0; i < surplus && log.firstChild; i++) log.firstChild.remove();
      log.firstChild?.classList.remove('cont');
      if (anchor?.isConnected) log.scrollTop += anchor.getBoundingClientRect().top - top;
    }
    log.append(batch);
  }
  if (stuck) toBottom();
  else if (fresh > 0) {
    below += fresh;
    set(ui['new-messages'], `${plural(below, 'new message', 'new messages')} ↓`);
    ui['new-messages'].hidden = false;
  }
}

// Draws the whole log anew; `keep` leaves the view where the reader has it.
function redrawLog(keep) {
  const top = log.scrollTop;
  log.ariaBusy = 'true';
  log.replaceChildren();
  last = null;
  drawn = current ? current.total - current.lines.length : 0;
  stuck = true;
  drawLines();
  if (keep) { log.scrollTop = top; stuck = log.scrollHeight - top - log.clientHeight < 48; }
  else toBottom();
  log.dataset.empty = current
    ? current.live
      ? 'No messages yet. Say hello!'
      : 'Joining…'
    : me
      ? 'Join a room, or create one.'
      : 'Connecting…';
  requestAnimationFrame(() => { log.ariaBusy = 'false'; });
}

function addLine(room, line) {
  room.lines.push(line);
  room.total++;
  if (room.lines.length > LINES + 200) room.lines = room.lines.slice(-LINES);
}

// --- rooms ------------------------------------------------------------------------------------------------

function show(room) {
  if (current) current.draft = ui.compose.value;
  current = room;
  if (room) room.unread = 0;
  set(ui['room-title'], room ? room.name : 'wshub chat');
  ui['room-title'].title = room ? plain(room.name) : '';
  ui.leave.hidden = !room;
  ui.compose.value = room ? room.draft : '';
  redrawLog(false);
  checkText();
  draw('rooms', 'people');
}
const toText = () => { if (matchMedia('(hover: hover)').matches && !ui['name-dialog'].open) ui.compose.focus(); };

function openRoom(name) {
  const room = mine.get(name);
  if (room) {
    if (room !== current) show(room);
    if (!room.live) transmit({ type: 'join', room: name });
    toText();
    return;
  }
  goTo = name;
  asked.add(name);
  if (!transmit({ type: 'join', room: name })) notice('You are not connected. The room opens as soon as you are.');
}
function forget(room) {
  mine.delete(room.name);
  if (room === current) show([...mine.values()].pop() || null);
  draw('rooms');
}
ui.leave.onclick = () => {
  if (!current) return;
  const room = current, told = transmit({ type: 'leave', room: room.name });
  if (!told || !room.live) forget(room);
};
ui['new-room-form'].onsubmit = event => {
  event.preventDefault();
  const name = oneLine(ui['new-room'].value);
  if (!name || !checkRoom()) return;
  ui['new-room'].value = '';
  openRoom(name);
  drawer(null);
};
function checkRoom() {
  const n = size(oneLine(ui['new-room'].value));
  set(
    ui['new-room-hint'],
    n > ROOM ? `A room's name has at most ${ROOM} characters; this one has ${number.format(n)}.` : '',
  );
  return n <= ROOM;
}
ui['new-room'].oninput = checkRoom;

// --- writing ----------------------------------------------------------------------------------------------

function checkText() {
  const box = ui.compose, n = size(box.value), over = n > TEXT;
  box.style.height = 'auto';
  box.style.height = `${Math.min(box.scrollHeight + 2, 160)}px`;
  box.disabled = !current;
  const ready = !!(me && current?.live);
  const hint = over ? `${number.format(n)} of ${number.format(TEXT)} characters: too long to send.`
    : n > TEXT * .9 ? `${number.format(n)} of ${number.format(TEXT)} characters`
    : n && !me ? 'Not connected. Your text stays here until you are.'
    : n && current && !ready ? 'Joining the room…' : '';
  set(ui['compose-hint'], hint);
  ui['compose-hint'].classList.toggle('bad', over);
  box.setAttribute('aria-invalid', over);
  return ui.send.disabled = over || !ready || !box.value.trim(), !ui.send.disabled;
}
ui.compose.oninput = checkText;
ui.compose.onkeydown = event => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  say();
};
ui['compose-form'].onsubmit = event => { event.preventDefault(); say(); };
function say() {
  if (!checkText()) return;
  const text = sound(ui.compose.value.trim()), room = current.name;
  if (!transmit({ type: 'message', room, text })) return;
  sent.push({ room, text });
  ui.compose.value = '';
  stuck = true;
  toBottom();
  checkText();
}
// A message that the server did not take goes back into the box, unless something new stands there.
function giveBack({ room, text }) {
  const home = mine.get(room);
  if (home && home === current) { if (!ui.compose.value) ui.compose.value = text; }
  else if (home && !home.draft) home.draft = text;
  checkText();
}
ui.skip.onclick = () => ui.compose.focus();

function notice(message) {
  const box = el('div', 'notice'), close = el('button', 'icon', '✕');
  const gone = () => { clearTimeout(timer); box.remove(); }, timer = setTimeout(gone, 7000);
  box.dataset.testid = 'notice';
  close.type = 'button';
  close.ariaLabel = 'Dismiss';
  close.onclick = gone;
  box.append(el('span', '', String(message).slice(0, 500)), close);
  ui.notices.append(box);
  while (ui.notices.childElementCount > 3) ui.notices.firstChild.remove();
}

// --- the connection ---------------------------------------------------------------------------------------

let socket = null, tries = 0, since = 0, retryAt = 0, retryTimer = 0, ticker = 0, patience = 0;

function setState(state, text) {
  ui.state.dataset.state = state;
  set(ui.state.firstChild, text);
  ui.retry.hidden = state !== 'reconnecting' && state !== 'offline';
}
const transmit = message => {
  if (!me || socket?.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(message));
  return true;
};
function hangUp() {
  clearTimeout(patience);
  const old = socket;
  socket = null;
  if (old) { old.onmessage = old.onclose = null; old.close(); }
  if (me) set(ui.spoken, 'Connection lost.');
  me = null;
  for (const room of mine.values()) room.live = false;
  for (const message of sent.splice(0)) giveBack(message);
  checkText();
}
function connect() {
  hangUp();
  clearTimeout(retryTimer);
  clearInterval(ticker);
  setState('connecting', 'Connecting…');
  const url = new URL('/ws', location.href);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  url.hash = '';
  url.search = `?name=${encodeURIComponent(wish)}`;
  since = 0;
  socket = new WebSocket(url);
  socket.onmessage = event => receive(event.data);
  socket.onclose = event => {
    if (event.reason && ![1000, 1001, 1012].includes(event.code))
      notice(`The server closed the connection: ${event.reason}`);
    retryLater();
  };
  patience = setTimeout(retryLater, 10000);
}
function retryLater() {
  hangUp();
  if (since && performance.now() - since > 5000) tries = 0;
  const step = Math.min(15000, 1000 * 2 ** tries++);
  const wait = step * (.5 + Math.random() / 2);
  retryAt = performance.now() + wait;
  retryTimer = setTimeout(connect, wait);
  clearInterval(ticker);
  ticker = setInterval(countDown, 250);
  countDown();
}
function countDown() {
  const seconds = Math.max(1, Math.ceil((retryAt - performance.now()) / 1000));
  if (navigator.onLine === false) setState('offline', `Offline. Trying again in ${seconds} s`);
  else setState('reconnecting', `Reconnecting in ${seconds} s`);
}
const retryNow = () => { if (wish && !socket) connect(); };
ui.retry.onclick = retryNow;
addEventListener('online', () => { tries = 0; retryNow(); });
addEventListener('pageshow', event => { if (event.persisted) retryNow(); });
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  retryNow();
  if (current) current.unread = 0;
  draw('rooms');
});

const toLine = m => ({ ...person(m?.from), text: String(m?.text), at: Number(m?.at) });
const list = value => Array.isArray(value) ? value : [];
const on = {
  welcome(m) {
    clearTimeout(patience);
    since = performance.now();
    me = person(m);
    directory.clear();
    selves.set(me.id, me.name);
    setState('online', 'Online');
    set(ui.spoken, 'Connected.');
    paintSelf(me.name);
    for (const room of new Set([...mine.keys(), ...asked]))
      transmit({ type: 'join', room, since: mine.get(room)?.position });
    if (!current) redrawLog(false);
    checkText();
  },
  room(m) {
    if (typeof m.name === 'string') directory.set(m.name, Number(m.members) || 0);
    draw('rooms');
  },
  // Nobody is left in the room.
  removed(m) {
    directory.delete(m.key);
    draw('rooms');
  },
  joined(m) {
    if (typeof m.room !== 'string') return;
    const known = mine.get(m.room), room = known || newRoom(m.room);
    const seen = room.lines.at(-1)?.at;
    mine.set(room.name, room);
    asked.delete(room.name);
    room.live = true;
    room.members = new Map(list(m.members).map(person).map(p => [p.id, p]));
    // What came while the page was away; or all that the server has, if it cannot say what that is.
    const lines = list(m.history).map(toLine);
    const added = m.recovery === 'complete' ? lines : lines.filter(line => line.at > seen);
    room.lines = (m.recovery === 'complete' ? room.lines.concat(lines) : lines).slice(-LINES);
    room.total += lines.length;
    room.position = m.position;
    if (known && m.recovery === 'gap') notice(`Some lines in ${plain(room.name)} are missing.`);
    if (known && room !== current && seen) room.unread += added.length;
    if (goTo === room.name || !current) { goTo = null; show(room); toText(); }
    else if (room === current) { redrawLog(!stuck); checkText(); }
    draw('rooms', 'people');
  },
  left(m) {
    const room = mine.get(m.room);
    if (room) forget(room);
  },
  arrived(m, room = mine.get(m.room)) {
    if (!room?.live) return;
    const p = person(m.member);
    room.members.set(p.id, p);
    draw('rooms', 'people');
  },
  departed(m, room = mine.get(m.room)) {
    if (!room?.live) return;
    room.members.delete(person(m.member).id);
    draw('rooms', 'people');
  },
  message(m, room = mine.get(m.room)) {
    if (!room?.live) return;
    const line = toLine(m);
    addLine(room, line);
    if (line.id === me?.id) {
      const i = sent.findIndex(s => s.room === room.name);
      if (i >= 0) sent.splice(i, 1);
    } else if (room !== current || document.hidden) {
      room.unread++;
      draw('rooms');
      if (document.hidden) drawTitle();
    }
    if (room === current) draw('lines');
  },
  gap(m, room = mine.get(m.room)) {
    if (room?.live) notice(`Some lines in ${plain(room.name)} are missing.`);
  },
  error(m) {
    asked.clear();
    if (sent.length) giveBack(sent.shift());
    notice(m.message || m.code || 'The server reported an error.');
  },
};
// Positions are EPOCH.OFFSET.
function isOld(position, known) {
  const [epoch, offset] = position.split('.'), [own, last] = known.split('.');
  return epoch === own && Number(offset) <= Number(last);
}
function receive(data) {
  let m;
  try { m = JSON.parse(data); } catch { return; }
  if (!m || !Object.hasOwn(on, m.type)) return;
  const room = m.type !== 'joined' && m.position && mine.get(m.room);
  // A room's messages come once and in order; after a second `join` it may have shown some already.
  if (room?.position && isOld(m.position, room.position)) return;
  if (room?.live) room.position = m.position;
  on[m.type](m);
}

// --- name and drawers -------------------------------------------------------------------------------------

function paintSelf(name) {
  const [face, label] = ui['own-name'].children;
  paintFace(face, name);
  set(label, name);
  ui['own-name'].ariaLabel = `${plain(name)}: change your name`;
}
function checkName() {
  const n = size(oneLine(ui['name-input'].value)), over = n > NAME;
  set(ui['name-hint'], over ? `At most ${NAME} characters; this has ${number.format(n)}.` : '');
  ui['name-hint'].classList.toggle('bad', over);
  ui['name-go'].disabled = over || !n;
  return !ui['name-go'].disabled;
}
function askName() {
  ui['name-input'].value = wish;
  ui['name-cancel'].hidden = !wish;
  checkName();
  if (!ui['name-dialog'].open) ui['name-dialog'].showModal();
  ui['name-input'].select();
}
ui['name-input'].oninput = checkName;
ui['name-cancel'].onclick = () => ui['name-dialog'].close();
ui['name-dialog'].onclose = () => { if (!wish) askName(); };
ui['name-form'].onsubmit = event => {
  event.preventDefault();
  if (!checkName()) return;
  const name = oneLine(ui['name-input'].value), changed = name !== wish;
  wish = name;
  ui['name-dialog'].close();
  if (!changed) return;
  try { localStorage.setItem(STORE, name); } catch { /* private mode: the name lasts as long as the page */ }
  const url = new URL(location.href);
  if (url.searchParams.has('name')) { url.searchParams.delete('name'); history.replaceState(null, '', url); }
  paintSelf(name);
  connect();
};
ui['own-name'].onclick = () => { drawer(null); askName(); };

let opened = null, opener = null;
function drawer(side, by) {
  if (opened === side) return;
  opened = side;
  for (const panel of [rooms, people]) panel.classList.toggle('open', panel === side);
  ui['open-rooms'].ariaExpanded = side === rooms;
  ui['open-people'].ariaExpanded = side === people;
  veil.hidden = !side;
  main.inert = !!side;
  if (side) { opener = by; side.querySelector('[data-close]').focus(); } else opener?.focus();
}
ui['open-rooms'].onclick = () => drawer(rooms, ui['open-rooms']);
ui['open-people'].onclick = () => drawer(people, ui['open-people']);
for (const button of document.querySelectorAll('[data-close]')) button.onclick = () => drawer(null);
addEventListener('keydown', event => { if (event.key === 'Escape') drawer(null); });
matchMedia('(max-width: 820px)').onchange = () => drawer(null);

const clip = name => [...oneLine(name)].slice(0, NAME).join('');
wish = clip(new URLSearchParams(location.search).get('name'));
if (!wish) try { wish = clip(localStorage.getItem(STORE)); } catch { /* private mode */ }
if (wish) { paintSelf(wish); connect(); } else { paintSelf('?'); askName(); }
})();
