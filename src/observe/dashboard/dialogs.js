// What an operator does. Every action is a POST that only this page can make.

const base = location.pathname.replace(/\/+$/, '');

/// Gives the server's answer, or throws its reason.
async function perform(action) {
  let answer;
  try {
    answer = await fetch(`${base}/actions`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'X-Wshub-Dashboard': '1' },
      body: JSON.stringify(action),
    });
  } catch {
    throw new Error('The server does not answer.');
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error ?? `The server answered ${answer.status}.`);
  return body;
}

function notify(text, kind = 'good') {
  const notice = make('p', { class: 'notice', 'data-kind': kind }, visible(text));
  byId('notices').append(notice);
  setTimeout(() => notice.remove(), 6000);
}

/// Runs the action when the form is sent, and tells what came of it in the dialog's result line.
function onSubmit(form, result, run) {
  const button = form.querySelector('[type=submit]');
  form.addEventListener('submit', async event => {
    event.preventDefault();
    button.disabled = true;
    put(result, '');
    try {
      result.dataset.kind = 'good';
      put(result, visible(await run(event) ?? ''));
    } catch (error) {
      result.dataset.kind = 'bad';
      put(result, visible(error.message));
    } finally {
      button.disabled = false;
    }
  });
}

/// Opens a dialog; when it closes, the focus goes back to where it was.
function open(dialog, first) {
  for (const result of dialog.querySelectorAll('.result')) put(result, '');
  dialog.showModal();
  first?.focus();
}

for (const dialog of document.querySelectorAll('dialog')) {
  for (const button of dialog.querySelectorAll('[data-close]')) button.addEventListener('click', () => dialog.close());
  // A click beside the dialog.
  dialog.addEventListener('mousedown', event => {
    const box = dialog.getBoundingClientRect();
    const is_inside =
      event.clientX >= box.left &&
      event.clientX <= box.right &&
      event.clientY >= box.top &&
      event.clientY <= box.bottom;
    if (event.target === dialog && !is_inside) dialog.close();
  });
}

function outcome({ queued, dropped, refused, published }) {
  const parts = [`Queued for ${plural(queued, 'client')}`];
  if (dropped) parts.push(`${number(dropped)} dropped`);
  if (refused) parts.push(`${number(refused)} cannot carry it`);
  if (published) parts.push('passed to the other nodes');
  return `${parts.join(', ')}.`;
}

// --- one client ---------------------------------------------------------------------------------------------

let shown = null, closing = null;

function openClient(row, now) {
  shown = row.id;
  describeClient(row, now);
  byId('client-text').value = '';
  byId('close-code').value = '1000';
  byId('close-reason').value = '';
  // A name that is cut names nobody.
  byId('close-user').hidden = row.user === null || row.user.endsWith('…');
  closing = row.user;
  open(byId('client-dialog'));
}

/// `row` is undefined when the client is in no list any more.
function describeClient(row, now) {
  byId('client-gone').hidden = row !== undefined;
  if (!row) return;
  put(byId('client-title'), called(row, 'Client'));
  const rows = [
    ['Id', row.id],
    ['User', row.user === null ? 'none' : visible(row.user)],
    ['Rooms', row.room_count ? roomsOf(row) : 'none'],
    ['Address', row.address ?? 'Unix socket'],
    ['Endpoint', `${visible(row.path)}, ${row.kind === 'websocket' ? 'WebSocket' : 'event stream'}`],
    ['Connected', `${new Date(row.since / 1000).toLocaleString()}, ${span(now - row.since / 1000)} ago`],
    ['Queue', row.queue[0] ? `${plural(row.queue[0], 'message')}, ${bytes(row.queue[1])}` : 'empty'],
    ['Dropped', row.dropped[0] ? `${plural(row.dropped[0], 'message')}, ${bytes(row.dropped[1])}` : 'nothing'],
  ];
  if (row.calls) rows.push(['Calls', `${plural(row.calls, 'call')} in flight`]);
  if (row.closing) rows.push(['State', 'closing']);
  describe(byId('client-details'), rows);
}

const clientResult = byId('client-dialog').querySelector('.result');
onSubmit(byId('client-send'), clientResult, async () => {
  const sent = await perform({ action: 'send', to: { client: shown }, text: byId('client-text').value });
  byId('client-text').value = '';
  return outcome(sent);
});
onSubmit(byId('client-call'), clientResult, async () => {
  let data;
  try {
    data = JSON.parse(byId('call-data').value || 'null');
  } catch {
    throw new Error('The data is no JSON.');
  }
  const { answer, refused } = await perform({
    action: 'call',
    client: shown,
    method: byId('call-method').value,
    data,
    seconds: 5,
  });
  if (refused) throw new Error(`Refused: ${refused.code}: ${refused.message}`);
  return `Answer: ${JSON.stringify(answer)}`;
});
onSubmit(byId('client-close'), clientResult, async event => {
  const what = { code: Number(byId('close-code').value), reason: byId('close-reason').value };
  const is_user = event.submitter === byId('close-user');
  await perform(
    is_user ? { action: 'close_user', user: closing, ...what } : { action: 'close', client: shown, ...what },
  );
  byId('client-dialog').close();
  notify(is_user ? `Closing ${closing} everywhere.` : `Closing ${short(shown)}.`);
});

// --- to many ------------------------------------------------------------------------------------------------

const kind = byId('send-kind');
function showKind() {
  byId('send-name-label').hidden = kind.value === 'all';
  byId('send-name').required = kind.value !== 'all';
  put(byId('send-name-title'), { room: 'Room', user: 'User', client: 'Client id' }[kind.value] ?? '');
}
kind.addEventListener('change', showKind);

function openSend(room) {
  if (room !== null) { kind.value = 'room'; byId('send-name').value = room; }
  showKind();
  open(byId('send-dialog'), byId('send-text'));
}
const sendResult = byId('send-dialog').querySelector('.result');
onSubmit(byId('send-form'), sendResult, async () => {
  const to = kind.value === 'all' ? 'all' : { [kind.value]: byId('send-name').value };
  const sent = await perform({ action: 'send', to, text: byId('send-text').value });
  byId('send-text').value = '';
  return outcome(sent);
});

// --- the end ------------------------------------------------------------------------------------------------

const sure = byId('drain-sure'), go = byId('drain-form').querySelector('[type=submit]');
sure.addEventListener('change', () => { go.disabled = !sure.checked; });

function openDrain(clients) {
  sure.checked = false;
  go.disabled = true;
  put(byId('drain-sure-text'), `Yes, drain it: ${plural(clients, 'client is', 'clients are')} connected`);
  open(byId('drain-dialog'));
}
onSubmit(byId('drain-form'), byId('drain-dialog').querySelector('.result'), async () => {
  await perform({ action: 'drain', seconds: Number(byId('drain-seconds').value), confirm: sure.checked });
  byId('drain-dialog').close();
  notify('The hub drains.');
});
