// Elements, texts and numbers. Data reaches the document as text only.

const byId = id => document.getElementById(id);

/// An element with attributes and children; strings among them become text.
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function makeSvg(tag, attributes = {}, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/// Sets the text, unless it is there already: what has not changed keeps its selection.
function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/// What would be invisible, or turn the writing around, shown as its number.
const visible = text => text.replace(/[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu,
  c => `⟨${c.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}⟩`);

/// A name in its own writing direction.
const nameOf = text => make('bdi', {}, visible(text));

/// The nodes of each list, by the keys of their items.
const lists = new WeakMap();

/// Makes `parent` hold one node for each item, in their order. `build` makes the node of a new item, `fill` writes an
/// item into its node. Nodes stay with their items, and so does the focus.
function sync(parent, items, key, build, fill) {
  if (!lists.has(parent)) lists.set(parent, new Map());
  const rows = lists.get(parent);
  const wanted = new Set(items.map(key));
  const focused = document.activeElement;
  for (const [old, node] of rows) if (!wanted.has(old)) { node.remove(); rows.delete(old); }
  let next = parent.firstElementChild;
  for (const item of items) {
    let node = rows.get(key(item));
    if (!node) rows.set(key(item), node = build(item));
    fill(node, item);
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true });
}

const whole = new Intl.NumberFormat('en');
const number = n => whole.format(n);

/// Three figures: 0, 0.4, 12.3, 950, 1.2k, 3.4M.
function brief(n) {
  if (n >= 999.5e6) return `${(n / 1e9).toFixed(n < 9.95e9 ? 1 : 0)}G`;
  if (n >= 999.5e3) return `${(n / 1e6).toFixed(n < 9.95e6 ? 1 : 0)}M`;
  if (n >= 9999.5) return `${(n / 1e3).toFixed(n < 99.95e3 ? 1 : 0)}k`;
  return n >= 99.5 || Number.isInteger(n) ? number(Math.round(n)) : n.toFixed(1);
}

function bytes(n) {
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (n < 1000 || unit === 'GiB') return `${unit === 'B' || n >= 99.5 ? Math.round(n) : n.toFixed(1)} ${unit}`;
    n /= 1024;
  }
}

/// The two largest units: 3 d 4 h, 12 min 5 s.
function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  const [d, h, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${s % 60} s` : `${s} s`;
}

/// The largest unit: 3 d, 4 h, 12 min.
const age = ms => span(ms).split(' ').slice(0, 2).join(' ');

function micros(us) {
  if (us < 999.5) return `${us < 10 ? us.toFixed(1) : Math.round(us)} µs`;
  return us < 999_500 ? `${(us / 1e3).toFixed(us < 9950 ? 1 : 0)} ms` : `${(us / 1e6).toFixed(1)} s`;
}

const plural = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

/// Makes a description list show these names and values.
function describe(list, rows) {
  sync(
    list,
    rows.flatMap(([name, value]) => [
      ['dt', name, name],
      ['dd', name, value],
    ]),
    ([tag, name]) => tag + name,
    ([tag]) => make(tag),
    (node, [, , text]) => put(node, text),
  );
}
