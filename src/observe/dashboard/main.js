// The stream of ticks, and what the operator has chosen to see.

const ui = { search: '', room: null, order: 'newest', rooms: '', rows: 50, max_rows: 200 };
let source = null, instance = null, tick = null, has_metrics = false, failures = 0, timer = 0, ask = 0;

// --- the stream ---------------------------------------------------------------------------------------------

function query() {
  const wanted = { search: ui.search, room: ui.room ?? '', order: ui.order, rooms: ui.rooms, rows: ui.rows };
  return new URLSearchParams(Object.entries(wanted).filter(([, value]) => value !== ''));
}

function tell(state, text, again = false) {
  byId('link').dataset.state = state;
  put(byId('link-text'), text);
  byId('link-again').hidden = !again;
  document.body.classList.toggle('stale', state === 'waiting' || state === 'refused');
}

function connect() {
  clearTimeout(timer);
  source?.close();
  source = new EventSource(`${base}/events?${query()}`);
  source.addEventListener('hello', ({ data }) => greet(JSON.parse(data)));
  source.addEventListener('tick', ({ data }) => { failures = 0; tell('live', 'live'); show(JSON.parse(data)); });
  source.onerror = lost;
}

/// The browser would come back by itself, but not after every failure; so it is done here.
async function lost() {
  const is_answer = source.readyState === EventSource.CLOSED;
  source.close();
  clearTimeout(timer);
  failures++;
  if (is_answer) {
    const status = await fetch(`${base}/`, { method: 'HEAD' }).then(answer => answer.status, () => 0);
    if (status === 401 || status === 403) return tell('refused', 'signed out: reload the page');
  }
  retry(Math.min(15, 2 ** Math.min(4, failures - 1)));
}

function retry(seconds) {
  if (seconds <= 0) {
    tell('waiting', 'reconnecting…');
    return connect();
  }
  tell('waiting', `reconnecting in ${seconds} s`, true);
  timer = setTimeout(retry, 1000, seconds - 1);
}
byId('link-again').addEventListener('click', () => retry(0));

function greet(hello) {
  if (instance !== hello.instance) { samples.length = 0; counted.length = 0; }
  ({ instance, has_metrics } = hello);
  ui.max_rows = hello.max_rows;
  full.queue = hello.queue;
  document.title = `${hello.title} – dashboard`;
  put(byId('title'), visible(hello.title));
  put(byId('node'), visible(hello.node));
  byId('node').title = visible(hello.node);
  byId('traces-panel').hidden = !hello.has_tracer;
  showEndpoints(hello.endpoints ?? []);
  remember(hello.history);
}

// --- a tick -------------------------------------------------------------------------------------------------

const act = {
  open(id, opener) {
    const row = find(id);
    if (!row) return;
    opener.focus();
    openClient(row, tick.at);
  },
  pick(room) { choose({ room: ui.room === room ? null : room }); },
};
const find = id => tick.clients.rows.find(row => row.id === id) ?? tick.slow.find(row => row.id === id);

function show(next) {
  tick = next;
  remember([tick.sample]);
  const { hub } = tick;
  put(byId('hub-state'), hub.state);
  byId('hub-state').dataset.state = hub.state;
  byId('open-drain').disabled = hub.state !== 'running';
  put(byId('uptime'), span(hub.uptime_ms));
  byId('adapter-fact').hidden = !hub.adapter;
  put(byId('adapter'), hub.adapter ?? '');
  drawTiles(has_metrics);
  showClients(tick.clients, tick.at, ui, act);
  showSlow(tick.slow, act);
  showRooms(tick.rooms, ui, act);
  showMembers(tick.members);
  showRemembered(tick.remembered);
  showErrors(tick.stats?.errors ?? [], tick.at);
  showNodes(tick.nodes, hub);
  showTotals(tick.stats, hub);
  showTraces(tick.traces, tick.at);
  if (byId('client-dialog').open) describeClient(find(shown), tick.at);
}

// --- choices ------------------------------------------------------------------------------------------------

/// Asks for another part of the hub. Typing asks when it pauses.
function choose(change, pause = 0) {
  Object.assign(ui, change);
  byId('room-filter').hidden = ui.room === null;
  if (ui.room !== null) byId('room-filter').replaceChildren('in', make('bdi', { class: 'cut' }, visible(ui.room)), '✕');
  byId('room-filter').setAttribute(
    'aria-label',
    ui.room === null ? '' : `Show all rooms, not only ${visible(ui.room)}`,
  );
  showOrder();
  clearTimeout(ask);
  ask = setTimeout(connect, pause);
}

function showOrder() {
  byId('order').value = ui.order;
  for (const button of document.querySelectorAll('th button')) {
    const is_up = ui.order === 'oldest' || ui.order === 'user';
    if (ui.order === button.dataset.order || ui.order === button.dataset.other)
      button.parentElement.setAttribute('aria-sort', is_up ? 'ascending' : 'descending');
    else button.parentElement.removeAttribute('aria-sort');
  }
}

byId('search').addEventListener('input', event => choose({ search: event.target.value }, 200));
byId('room-search').addEventListener('input', event => choose({ rooms: event.target.value }, 200));
byId('order').addEventListener('change', event => choose({ order: event.target.value }));
byId('room-filter').addEventListener('click', () => { choose({ room: null }); byId('search').focus(); });
byId('show-more').addEventListener('click', () => choose({ rows: ui.max_rows }));
for (const button of document.querySelectorAll('th button')) {
  const { order, other = 'newest' } = button.dataset;
  button.addEventListener('click', () => choose({ order: ui.order === order ? other : order }));
}
byId('open-send').addEventListener('click', () => openSend(ui.room));
byId('open-drain').addEventListener('click', () => openDrain(tick?.hub.clients ?? 0));
document.addEventListener('keydown', event => {
  const is_typing = event.target.closest?.('input, textarea, select, dialog');
  if (event.key !== '/' || is_typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  byId('search').focus();
});

showOrder();
connect();
