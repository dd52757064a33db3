// How messages were handled: a line for each, as long as it took; opened, what ran when.

const OUTCOMES = { ok: 'ok', error: 'error', closed: 'closed', panic: 'panic' };
let is_paused = false;

function place(node, start, length, whole) {
  node.style.left = `${(100 * start / Math.max(1, whole)).toFixed(2)}%`;
  node.style.width = `${(100 * length / Math.max(1, whole)).toFixed(2)}%`;
}

/// What became of a trace that did not end well, in words.
function reason({ result, type, text, code, reason: why }) {
  return { error: `${type}: ${text}`, closed: `closed with ${code} ${why}`, panic: `panic: ${text}` }[result] ?? '';
}

const spanName = one => one.kind === 'send' ? `send to ${visible(one.target)}` : visible(one.name);
function spanCounts(one) {
  if (one.kind !== 'send') return one.kind;
  return one.dropped ? `${brief(one.queued)} −${brief(one.dropped)}` : `→ ${brief(one.queued)}`;
}

function spanLine(one, depth, whole) {
  const label = make('span', { class: 'label cut' }, make('bdi', {}, spanName(one)));
  label.style.setProperty('--depth', depth);
  const bar = make('i', { class: one.kind });
  place(bar, one.start_ns, one.duration_ns, whole);
  return make(
    'div',
    { class: 'span', 'data-testid': 'span' },
    label,
    make('div', { class: 'track' }, bar),
    make('span', { class: 'num' }, micros(one.duration_ns / 1000)),
    make('span', { class: 'num mute cut' }, spanCounts(one)),
  );
}

function details(trace) {
  const depths = [];
  const node = make('div', { class: 'spans' });
  for (const one of trace.spans) {
    depths.push(one.parent === null ? 0 : depths[one.parent] + 1);
    node.append(spanLine(one, depths.at(-1), trace.duration_ns));
  }
  if (trace.spans_left_out) node.append(make('p', { class: 'hint' }, `${plural(trace.spans_left_out, 'span')} more`));
  if (trace.outcome.result !== 'ok')
    node.append(make('p', { class: 'fault' }, make('bdi', {}, visible(reason(trace.outcome)))));
  node.append(
    make(
      'p',
      { class: 'hint' },
      `${trace.kind === 'text' ? 'text' : 'binary'} message of ${bytes(trace.bytes)} from `,
      make('span', { class: 'mono' }, trace.client),
      ' at ',
      nameOf(trace.endpoint),
    ),
  );
  return node;
}

function traceLine(trace) {
  const is_ok = trace.outcome.result === 'ok';
  const event = make(
    'span',
    { class: trace.event === null ? 'event cut none' : 'event cut' },
    trace.event === null ? 'no event' : nameOf(trace.event),
  );
  const parts = trace.spans.slice(0, 12).map(one => {
    const node = make('i', { class: one.kind });
    place(node, one.start_ns, one.duration_ns, trace.duration_ns);
    return node;
  });
  const track = make('div', { class: 'track' }, make('div', { class: 'whole' }, ...parts));
  const summary = make(
    'summary',
    {},
    make('span', { class: 'when mute' }),
    event,
    make('span', { class: 'who mono mute' }, short(trace.client)),
    track,
    make('span', { class: 'took num' }, micros(trace.duration_ns / 1000)),
    make('span', { class: is_ok ? 'outcome ok' : 'outcome fault' }, OUTCOMES[trace.outcome.result] ?? '?'),
  );
  const node = make('details', { class: is_ok ? 'trace' : 'trace bad', 'data-testid': 'trace' }, summary);
  // Most are never opened.
  node.addEventListener('toggle', () => { if (node.open && !node.children[1]) node.append(details(trace)); });
  return node;
}

function showTraces(traces, now) {
  if (is_paused) return;
  put(byId('traces-count'), traces.length ? `newest ${traces.length}` : '');
  byId('traces-empty').hidden = traces.length > 0;
  const slowest = Math.max(1, ...traces.map(trace => trace.duration_ns));
  sync(byId('traces'), traces, trace => trace.id, traceLine, (node, trace) => {
    const ms = now - trace.started_us / 1000;
    put(node.querySelector('.when'), ms < 1000 ? 'now' : `${age(ms)} ago`);
    node.querySelector('.whole').style.width = `${(100 * trace.duration_ns / slowest).toFixed(2)}%`;
  });
}

byId('traces-pause').addEventListener('click', event => {
  is_paused = !is_paused;
  event.currentTarget.setAttribute('aria-pressed', String(is_paused));
  put(event.currentTarget, is_paused ? 'Resume' : 'Pause');
});
