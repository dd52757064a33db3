// The lists. Each function shows its part of a tick; `ui` is what the operator has chosen, `act` is what buttons do.

/// Why each type of error is counted, in the words of the hub's documentation.
const REASONS = {
  connection_rejected: 'refused by on_upgrade',
  connection_rejected_draining: 'refused while draining or stopped (503)',
  connection_limit: 'a limit was reached (503 or 429)',
  upgrade_failed: 'no valid request, or gone during the handshake',
  origin_rejected: 'a page of another origin (403)',
  rate_limit_exceeded: 'messages above max_message_rate',
  read_error: 'reading from a connection failed',
  read_deadline_error: 'a peer was silent for the pong timeout',
  write_deadline_error: 'a write made no progress in time',
  write_error: 'writing to a connection failed',
  ping_error: 'a ping could not be sent',
  adapter_subscribe: 'no subscription at the message bus',
  adapter_publish: 'publishing to other nodes failed',
  adapter_decode: 'from the bus came what is no envelope',
  message_handling: 'a handler returned an error',
  panic: 'a handler or hook panicked',
  protocol_error: 'a peer broke the WebSocket protocol',
};

/// What a client is called: by the application, by its user, or by its id.
const called = (row, otherwise) =>
  row.name !== null ? visible(row.name) : row.user !== null ? visible(row.user) : otherwise;
const short = id => id.slice(0, 8);
const full = { queue: [256, 1 << 20] };

function emptiness(id, is_empty, text) {
  const node = byId(id);
  node.hidden = !is_empty;
  if (text !== undefined) put(node, text);
}

/// Text with a class in a cell that is written only when it changes.
function cell(node, text, kind = '') {
  if (node.className !== kind) node.className = kind;
  put(node, text);
}

const waiting = ([messages, size]) => messages ? `${brief(messages)} · ${bytes(size)}` : '0';
const roomsOf = row =>
  row.rooms.map(visible).join(', ') +
  (row.room_count > row.rooms.length ? ` +${row.room_count - row.rooms.length}` : '');

function showClients(list, now, ui, act) {
  put(
    byId('clients-count'),
    list.matching === list.total ? number(list.total) : `${number(list.matching)} of ${number(list.total)}`,
  );
  sync(byId('clients'), list.rows, row => row.id, row => {
    const open = make('button', { class: 'open mono', type: 'button', 'aria-haspopup': 'dialog' }, short(row.id));
    const kind =
      row.kind === 'websocket'
        ? make('span', { class: 'tag', title: 'WebSocket' }, 'WS')
        : make('span', { class: 'tag sse', title: 'event stream' }, 'SSE');
    const node = make(
      'tr',
      { 'data-testid': 'client', 'data-id': row.id },
      make('td', {}, open, kind),
      make('td', {}, make('bdi')),
      make('td', {}, make('bdi')),
      make('td', { class: 'mono' }),
      make('td', { class: 'num' }),
      make('td', {}),
      make('td', {}),
    );
    node.addEventListener('click', () => act.open(row.id, open));
    return node;
  }, (node, row) => {
    const [, user, rooms, address, since, queue, dropped] = node.children;
    node.classList.toggle('closing', row.closing);
    cell(user.firstChild, called(row, 'no user'), row.user === null && row.name === null ? 'none' : '');
    user.title = row.user === null ? '' : visible(row.user);
    cell(rooms.firstChild, row.room_count ? roomsOf(row) : 'no room', row.room_count ? '' : 'none');
    rooms.title = row.room_count > 1 ? roomsOf(row) : '';
    put(address, row.address ?? 'Unix socket');
    address.title = row.address ?? '';
    put(since, row.closing ? 'closing' : age(now - row.since / 1000));
    since.title = span(now - row.since / 1000);
    cell(queue, waiting(row.queue), row.queue[0] ? 'num hot' : 'num none');
    cell(dropped, brief(row.dropped[0]), row.dropped[0] ? 'num lost' : 'num none');
    dropped.title = row.dropped[0] ? `${plural(row.dropped[0], 'message')}, ${bytes(row.dropped[1])}` : '';
  });
  const why = ui.search || ui.room !== null ? 'No connection matches.' : 'Nobody is connected.';
  emptiness('clients-empty', !list.rows.length, why);
  byId('clients-more').hidden = list.rows.length >= list.matching;
  put(byId('clients-more-text'), `${number(list.rows.length)} of ${number(list.matching)} shown.`);
  byId('show-more').hidden = ui.rows >= ui.max_rows;
}

function showSlow(rows, act) {
  put(byId('slow-count'), rows.length ? number(rows.length) : '');
  emptiness('slow-empty', !rows.length);
  sync(byId('slow'), rows, row => row.id, row => {
    const fill = make('i');
    const node = make(
      'div',
      { role: 'listitem' },
      make(
        'button',
        { class: 'item', type: 'button', 'data-testid': 'slow-client', 'aria-haspopup': 'dialog' },
        make('bdi', { class: 'cut' }),
        make('span'),
        make('span', { class: 'meter' }, fill),
        make('span', { class: 'sub' }),
      ),
    );
    node.firstChild.addEventListener('click', event => act.open(row.id, event.currentTarget));
    return node;
  }, (node, row) => {
    const [who, lost, meter, sub] = node.firstChild.children;
    const part = Math.min(1, Math.max(row.queue[0] / full.queue[0], row.queue[1] / full.queue[1]));
    put(who, called(row, short(row.id)));
    cell(lost, row.dropped[0] ? `${brief(row.dropped[0])} dropped` : '', 'lost');
    meter.firstChild.style.width = `${(part * 100).toFixed(1)}%`;
    meter.classList.toggle('full', part >= 0.8);
    put(sub, row.queue[0] ? `${plural(row.queue[0], 'message')} waiting, ${bytes(row.queue[1])}` : 'nothing waits now');
  });
}

function showRooms(list, ui, act) {
  put(
    byId('rooms-count'),
    list.matching === list.total ? number(list.total) : `${number(list.matching)} of ${number(list.total)}`,
  );
  sync(byId('rooms'), list.rows, room => room.name, room => {
    const node = make(
      'div',
      { role: 'listitem' },
      make('button', { class: 'item', type: 'button', 'data-testid': 'room' }, nameOf(room.name), make('span')),
    );
    node.firstChild.firstChild.className = 'cut';
    node.firstChild.addEventListener('click', () => act.pick(room.name));
    return node;
  }, (node, room) => {
    node.firstChild.setAttribute('aria-pressed', String(ui.room === room.name));
    put(
      node.firstChild.lastChild,
      number(room.members) +
        (room.elsewhere ? ` + ${number(room.elsewhere)} elsewhere` : '') +
        (room.tracked ? ` · ${plural(room.tracked, 'member')}` : ''),
    );
    node.title = room.remembered ? `remembers ${held(...room.remembered)}` : '';
  });
  emptiness('rooms-empty', !list.rows.length, ui.rooms ? 'No room matches.' : 'There is no room.');
}

/// Who is in the room that the operator has picked, if it tracks members: users, over all nodes.
function showMembers(members) {
  const node = byId('room-members');
  node.hidden = !members?.total;
  if (node.hidden) return;
  const more = members.total - members.shown.length;
  const others = more ? ` and ${number(more)} more` : '';
  put(node, `${plural(members.total, 'member')} of this room: ${members.shown.map(visible).join(', ')}${others}`);
}

const held = (messages, values, size) =>
  [messages && plural(messages, 'message'), values && plural(values, 'value'), bytes(size)].filter(Boolean).join(', ');

/// What all rooms remember, and what of it was lost.
function showRemembered(all) {
  const lost = [
    all.gaps && plural(all.gaps, 'gap'),
    all.evictions && plural(all.evictions, 'room') + ' forgotten',
  ].filter(Boolean);
  const node = byId('rooms-memory');
  node.hidden = !all.rooms && !lost.length;
  const kept = held(all.messages, all.values, all.bytes);
  put(node, [`Remembered in ${plural(all.rooms, 'room')}: ${kept}`, ...lost].join('; '));
}

/// What had been counted at each of the last ticks, by type.
const counted = [];

function showErrors(errors, at) {
  counted.push([at, new Map(errors)]);
  while (counted.length > 1 && counted[1][0] <= at - 60_000) counted.shift();
  const before = counted[0][1];
  emptiness('errors-empty', !errors.length);
  byId('errors-table').hidden = !errors.length;
  sync(
    byId('errors'),
    [...errors].sort((a, b) => b[1] - a[1]),
    ([type]) => type,
    ([type]) =>
      make(
        'tr',
        { 'data-testid': 'error' },
        make(
          'td',
          {},
          make('span', { class: 'mono' }, visible(type)),
          make('span', { class: 'why' }, REASONS[type] ?? 'the application’s own'),
        ),
        make('td'),
        make('td', { class: 'num' }),
      ),
    (node, [type, count]) => {
      const recent = Math.max(0, count - (before.get(type) ?? 0));
      cell(node.children[1], number(recent), recent ? 'num lost' : 'num none');
      put(node.children[2], number(count));
    },
  );
}

function showNodes(nodes, hub) {
  byId('nodes-panel').hidden = !hub.adapter;
  if (!hub.adapter) return;
  put(byId('nodes-count'), `${plural(nodes.length, 'node')}, ${plural(hub.everywhere, 'client')}`);
  sync(
    byId('nodes'),
    nodes,
    node => node.id,
    node =>
      make(
        'tr',
        {},
        make('td', { class: 'mono', title: visible(node.id) }, nameOf(node.id)),
        make('td', { class: 'num' }),
        make('td', { class: 'num' }),
        make('td', { class: 'num' }),
      ),
    (row, node) => {
      put(row.children[1], number(node.clients));
      put(row.children[2], number(node.rooms));
      put(row.children[3], row.previousElementSibling ? span(node.seen_ms) : 'here');
    },
  );
}

function showEndpoints(endpoints) {
  put(byId('endpoints-count'), number(endpoints.length));
  emptiness('endpoints-empty', !endpoints.length);
  byId('endpoints').replaceChildren(...endpoints.map(({ path, kind, description, tags, middleware }) => {
    const tag = text => make('span', { class: 'tag' }, nameOf(text));
    const marks = make(
      'div',
      { class: 'tags' },
      make(
        'span',
        { class: kind === 'websocket' ? 'tag' : 'tag sse' },
        kind === 'websocket' ? 'WebSocket' : 'event stream',
      ),
    );
    marks.append(...Object.entries(tags).map(([name, value]) => tag(`${name}: ${value}`)), ...middleware.map(tag));
    return make(
      'div',
      { class: 'endpoint', role: 'listitem' },
      make('span', { class: 'path mono' }, nameOf(path)),
      make('span', { class: description ? '' : 'none' }, description ? nameOf(description) : 'no description'),
      marks,
    );
  }));
}

function showTotals(stats, hub) {
  emptiness('totals-empty', !stats);
  const rows = [['Users now', number(hub.users)], ['Calls in flight', number(hub.calls)]];
  if (hub.members) rows.push(['Members of rooms', number(hub.members)]);
  if (stats) {
    const [, , [received, sent, dropped], [received_bytes, sent_bytes]] = samples.at(-1);
    rows.push(
      ['Connections', number(stats.connections)],
      ['Messages received', `${number(received)} · ${bytes(received_bytes)}`],
      ['Messages delivered', `${number(sent)} · ${bytes(sent_bytes)}`],
      ['Messages dropped', number(dropped)],
      ['Room joins, leaves', `${number(stats.joins)}, ${number(stats.leaves)}`],
      ['Handlers, on average', stats.latency_us ? micros(stats.latency_us) : '–'],
      ['Broadcasts, on average', stats.broadcast_us ? micros(stats.broadcast_us) : '–'],
    );
    if (stats.call_timeouts || stats.late_replies)
      rows.push(['Calls timed out, answered late', `${number(stats.call_timeouts)}, ${number(stats.late_replies)}`]);
    if (hub.adapter)
      rows.push(
        ['Published to other nodes', number(stats.published)],
        ['Received from them', number(stats.from_others)],
        ['Not published', number(stats.unpublished)],
      );
  }
  describe(byId('totals'), rows);
}
