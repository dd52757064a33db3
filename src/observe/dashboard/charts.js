// Live charts of the last minutes, drawn from samples: [at, clients, [received, queued, dropped], [in, out], errors].

const [LEAST, MOST] = [60_000, 180_000];
const [WIDTH, HEIGHT] = [180, 48];

/// What a tile shows: how to read a sample, whether it counts up, how its values read.
const TILES = [
  { id: 'clients', label: 'Connections', read: s => s[1], gauge: true, text: n => number(Math.round(n)) },
  { id: 'received', label: 'Received', read: s => s[2][0], text: brief, unit: '/s' },
  { id: 'delivered', label: 'Delivered', read: s => s[2][1], text: brief, unit: '/s', color: '--c2' },
  { id: 'dropped', label: 'Dropped', read: s => s[2][2], text: brief, unit: '/s', color: '--c3' },
  { id: 'bytes', label: 'Bytes out', read: s => s[3][1], text: bytes, unit: '/s', color: '--c4' },
  { id: 'errors', label: 'Errors', read: s => s[4], text: brief, unit: '/s', color: '--c3' },
];

const samples = [];

/// Takes new samples; those that are known already, or too old to be drawn, are left out.
function remember(more) {
  for (const sample of more) if (!samples.length || sample[0] > samples.at(-1)[0]) samples.push(sample);
  while (samples.length && samples[0][0] < samples.at(-1)[0] - MOST - 5000) samples.shift();
}

/// Points in time and their values; of counters, the rate since the point before.
function series({ read, gauge }) {
  if (gauge) return samples.map(s => [s[0], read(s)]);
  return samples.slice(1).map((s, i) => {
    const before = samples[i];
    // A counter that has been reset starts again from zero.
    return [s[0], Math.max(0, read(s) - read(before)) * 1000 / Math.max(1, s[0] - before[0])];
  });
}

class Tile {
  constructor(spec) {
    this.spec = spec;
    this.side = make('span');
    this.number = document.createTextNode('–');
    this.area = makeSvg('path', { class: 'area' });
    this.line = makeSvg('path', { class: 'line' });
    this.mark = makeSvg('line', { class: 'at', y1: 0, y2: HEIGHT, visibility: 'hidden' });
    this.chart = makeSvg(
      'svg',
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' },
      this.area,
      this.line,
      this.mark,
    );
    const value = make('div', { class: 'value', 'data-testid': `rate-${spec.id}` }, this.number);
    if (spec.unit) value.append(make('small', {}, spec.unit));
    this.node = make(
      'div',
      { class: 'tile' },
      make('div', { class: 'top' }, make('span', {}, spec.label), this.side),
      value,
      this.chart,
    );
    if (spec.color) this.node.style.setProperty('--c', `var(${spec.color})`);
    this.chart.addEventListener('pointermove', event => {
      this.pointed = event.offsetX / this.chart.clientWidth;
      this.point();
    });
    this.chart.addEventListener('pointerleave', () => { this.pointed = undefined; this.point(); });
  }

  read(value) { return this.spec.text(value) + (this.spec.unit ?? ''); }

  draw(has) {
    this.points = has ? series(this.spec) : [];
    const last = this.points.at(-1);
    this.number.data = last ? this.spec.text(last[1]) : '–';
    if (!last) return;
    this.end = samples.at(-1)[0];
    this.peak = Math.max(...this.points.map(([, v]) => v));
    this.length = Math.min(MOST, Math.max(LEAST, this.end - this.points[0][0]));
    const top = Math.max(this.peak, 1) * 1.1;
    const x = at => (WIDTH * (1 - (this.end - at) / this.length)).toFixed(2);
    const y = value => (HEIGHT - 1 - (HEIGHT - 3) * value / top).toFixed(2);
    const line = this.points.map(([at, v], i) => `${i ? 'L' : 'M'}${x(at)} ${y(v)}`).join('');
    this.line.setAttribute('d', line);
    this.area.setAttribute('d', `${line}L${WIDTH} ${HEIGHT}L${x(this.points[0][0])} ${HEIGHT}Z`);
    this.chart.setAttribute(
      'aria-label',
      `${this.spec.label}: now ${this.read(last[1])}, at most ${this.read(this.peak)} in the last ${span(this.length)}`,
    );
    this.point();
  }

  /// Beside the label: the value under the pointer, or the peak.
  point() {
    if (!this.points?.length) return put(this.side, '');
    if (this.pointed === undefined) {
      this.mark.setAttribute('visibility', 'hidden');
      return put(this.side, this.peak > 0 ? `peak ${this.spec.text(this.peak)}` : '');
    }
    const at = this.end - this.length * (1 - this.pointed);
    const [when, value] = this.points.reduce((best, p) => Math.abs(p[0] - at) < Math.abs(best[0] - at) ? p : best);
    const x = WIDTH * (1 - (this.end - when) / this.length);
    for (const end of ['x1', 'x2']) this.mark.setAttribute(end, x);
    this.mark.setAttribute('visibility', 'visible');
    put(this.side, `${this.read(value)}, ${span(this.end - when)} ago`);
  }
}

const tiles = TILES.map(spec => new Tile(spec));
byId('tiles').append(...tiles.map(tile => tile.node));

function drawTiles(has_metrics) {
  for (const tile of tiles) tile.draw(tile.spec.gauge || has_metrics);
}
