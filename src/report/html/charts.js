// One chart of the page, drawn by dygraphs: the table that the library wants, the readout, the keyboard, the numbers as a
// text. page.js makes a Chart for each figure. Every text of a run enters as textContent.
'use strict';

const DASHES = [null, [7, 3], [2, 3], [9, 3, 2, 3], [4, 2], [12, 4]];
const MAX_TEXT_ROWS = 12;

function formatNumber(value) {
  if (value === null || !isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size >= 1000) return Math.round(value).toLocaleString('en-US');
  if (size < 1e-3) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

function formatCount(value) {
  if (value >= 1e9) return Number((value / 1e9).toPrecision(4)) + 'B';
  if (value >= 1e6) return Number((value / 1e6).toPrecision(4)) + 'M';
  if (value >= 1e4) return Number((value / 1e3).toPrecision(4)) + 'k';
  return String(Number(value.toPrecision(6)));
}

function formatDuration(seconds) {
  if (seconds < 60) return Number(seconds.toPrecision(3)) + ' s';
  if (seconds < 3600) return Math.floor(seconds / 60) + ' min' + (seconds % 60 >= 1 ? ' ' + Math.floor(seconds % 60) + ' s' : '');
  return Math.floor(seconds / 3600) + ' h' + (seconds % 3600 >= 60 ? ' ' + Math.floor(seconds % 3600 / 60) + ' min' : '');
}

const AXES = {
  step: {word: 'step', format: (x) => 'step ' + Math.round(x).toLocaleString('en-US'), tick: formatCount},
  tokens: {word: 'tokens', format: (x) => formatCount(x) + ' tokens', tick: formatCount},
  seconds: {word: 'time', format: formatDuration, tick: formatDuration},
};

// An exponential moving average without the pull towards its first value; values that are not finite are passed over.
function smoothed(values, weight) {
  let sum = 0, mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

// The index of the last x that is not above `at`; 0 where all are.
function indexBefore(xs, at) {
  let low = 0, high = xs.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (xs[middle] <= at) low = middle; else high = middle - 1;
  }
  return low;
}

class Chart {
  // figure: the element; spec: an entry of data.charts; view: what all charts share (see page.js).
  constructor(figure, spec, view) {
    this.spec = spec;
    this.view = view;
    this.plot = figure.querySelector('.plot');
    this.readout = figure.querySelector('.readout');
    this.numbers = figure.querySelector('table');
    this.isSmoothed = spec.id === 'loss' || spec.id === 'grad_norm' || spec.id === 'tokens_per_second';
    this.canBeLog = spec.id === 'loss' || spec.id === 'eval_loss' || spec.id === 'grad_norm' || Boolean(spec.lines);
    this.lines = spec.lines
      ? spec.lines.map((line, i) => ({label: line.label, run: spec.run, style: i, of: view.data.runs[spec.run].series[line.key]}))
      : view.data.runs.map((run, i) => ({label: run.name, run: i, style: view.styleOf(i), of: run.series[spec.id]}));
    this.lines = this.lines.filter((line) => line.of && line.of.value.length);
    this.selected = -1;
    this.plot.addEventListener('keydown', (event) => this.onKey(event));
    this.plot.addEventListener('blur', () => this.leave());
    this.draw();
  }

  shown() { return this.lines.filter((line) => this.view.isShown(line.run)); }
  xs(line) { return line.of[this.view.axis]; }
  color(line) { return this.view.color(line.style); }

  // The rows of all lines, by x: [x, raw and smoothed of the first line, of the second …]; null: not logged there.
  table(lines) {
    const width = this.isSmoothed ? 2 : 1, rows = new Map();
    lines.forEach((line, l) => {
      const xs = this.xs(line), values = line.of.value;
      const smooth = this.isSmoothed ? smoothed(values, this.view.smoothing) : null;
      xs.forEach((x, i) => {
        if (!rows.has(x)) rows.set(x, [x].concat(new Array(width * lines.length).fill(null)));
        const row = rows.get(x);
        // NaN breaks a line where the run logged no finite number; null does not.
        row[1 + width * l] = values[i] === null ? NaN : values[i];
        if (smooth) row[2 + width * l] = smooth[i];
      });
    });
    return [...rows.values()].sort((a, b) => a[0] - b[0]);
  }

  options(lines) {
    const css = getComputedStyle(document.documentElement), axis = AXES[this.view.axis];
    const labels = ['x'], series = {}, colors = [];
    const isFaint = this.isSmoothed && this.view.smoothing > 0;
    const isSparse = lines.every((line) => line.of.value.length <= 24);
    lines.forEach((line, l) => {
      const color = this.color(line), name = 'line ' + l, dash = DASHES[line.style % DASHES.length];
      labels.push(name);
      colors.push(color);
      series[name] = {color: isFaint ? this.view.faint(color) : color, strokeWidth: isFaint ? 1 : 1.75,
                      strokePattern: isFaint ? null : dash, drawPoints: isSparse, pointSize: 3};
      if (!this.isSmoothed) return;
      labels.push(name + ', smoothed');
      colors.push(color);
      // Without smoothing the two curves are one; it is drawn once.
      series[name + ', smoothed'] = {color, strokeWidth: isFaint ? 2 : 0, strokePattern: isFaint ? dash : null};
    });
    return {
      labels, series, colors, connectSeparatedPoints: true, legend: 'never', highlightCircleSize: 3.5, rightGap: 12,
      axisLineColor: css.getPropertyValue('--line').trim(), gridLineColor: css.getPropertyValue('--grid').trim(),
      logscale: this.view.isLog && this.canBeLog, xRangePad: isSparse ? 12 : 2, yRangePad: 8,
      // A small difference in memory must not look like a large one.
      includeZero: this.spec.id === 'memory' || this.spec.id === 'tokens_per_second',
      axes: {x: {axisLabelFormatter: (x) => axis.tick(x), drawGrid: false, pixelsPerLabel: 52, axisLabelWidth: 60},
             y: {axisLabelFormatter: formatNumber, axisLabelWidth: 54, pixelsPerLabel: 34}},
      // Without the library's touch handlers: a finger scrolls the page, and a tap shows the numbers.
      interactionModel: {mousedown: Dygraph.defaultInteractionModel.mousedown, dblclick: () => this.view.zoom(null)},
      highlightCallback: (event, x) => this.tell(x),
      unhighlightCallback: () => this.tell(null),
      zoomCallback: (from, until) => this.view.zoom(this.isZoomed() ? [from, until] : null),
      dateWindow: this.view.range,
    };
  }

  isZoomed() { return this.graph.isZoomed('x'); }

  draw() {
    const lines = this.shown();
    this.rows = this.table(lines);
    this.plot.parentElement.classList.toggle('empty', !lines.length);
    if (this.graph) this.graph.destroy();
    this.graph = null;
    this.plot.replaceChildren();
    if (lines.length) this.graph = new Dygraph(this.plot, this.rows, this.options(lines));
    this.tell(null);
    this.writeNumbers(lines);
  }

  // While the slider moves only the rows change.
  redraw() {
    const lines = this.shown();
    if (!this.graph) return;
    this.rows = this.table(lines);
    this.graph.updateOptions({file: this.rows, ...this.options(lines)});
    this.tell(null);
  }

  setRange(range) { if (this.graph) this.graph.updateOptions({dateWindow: range, valueRange: null}); }

  valueAt(line, x) {
    const xs = this.xs(line), i = indexBefore(xs, x);
    return {x: xs[i], value: line.of.value[i]};
  }

  // The numbers at x beside the title; those at the end where x is null.
  tell(x) {
    const lines = this.shown();
    const at = x === null ? Math.max(...lines.map((line) => this.xs(line).at(-1))) : x;
    const parts = [];
    if (lines.length) {
      const where = document.createElement('span');
      where.textContent = AXES[this.view.axis].format(at);
      parts.push(where);
    }
    const most = 6;
    lines.slice(0, most).forEach((line) => {
      const part = document.createElement('span'), value = document.createElement('b');
      if (lines.length > 1) {
        part.append(this.view.swatch(line.style));
        part.title = line.label;
        // The lines of the other charts are the runs, whose names stand above all of them.
        if (this.spec.lines) part.append(line.label + ' ');
      }
      value.textContent = formatNumber(this.valueAt(line, at).value);
      part.append(value);
      parts.push(part);
    });
    this.readout.replaceChildren(...parts);
  }

  spoken(x) {
    return AXES[this.view.axis].format(x) + ': ' +
      this.shown().map((line) => line.label + ' ' + formatNumber(this.valueAt(line, x).value)).join(', ');
  }

  onKey(event) {
    if (!this.graph || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.rows.length - 1, stride = event.shiftKey ? Math.max(1, Math.round(last / 20)) : 1;
    const from = this.selected < 0 ? (event.key === 'ArrowLeft' ? last + stride : -stride) : this.selected;
    const to = {ArrowRight: from + stride, ArrowLeft: from - stride, Home: 0, End: last}[event.key];
    if (event.key === 'Escape') return this.leave();
    if (to === undefined) return;
    event.preventDefault();
    this.selected = Math.min(last, Math.max(0, to));
    const x = this.rows[this.selected][0];
    this.graph.setSelection(this.selected);
    this.tell(x);
    this.view.say(this.spoken(x));
  }

  leave() {
    if (this.selected < 0) return;
    this.selected = -1;
    if (this.graph) this.graph.clearSelection();
    this.tell(null);
  }

  // What the curve says, without the curve: rows spread evenly over the longest line.
  writeNumbers(lines) {
    const longest = lines.reduce((a, b) => (a && this.xs(a).length >= this.xs(b).length ? a : b), null);
    const cell = (kind, text) => Object.assign(document.createElement(kind), {textContent: text});
    const head = document.createElement('tr'), body = document.createElement('tbody');
    head.append(cell('th', AXES[this.view.axis].word), ...lines.map((line) => cell('th', line.label)));
    head.childNodes.forEach((th) => th.setAttribute('scope', 'col'));
    const xs = longest ? this.xs(longest) : [], count = Math.min(MAX_TEXT_ROWS, xs.length);
    for (let i = 0; i < count; ++i) {
      const x = xs[count === 1 ? 0 : Math.round(i * (xs.length - 1) / (count - 1))];
      const row = document.createElement('tr'), where = cell('th', AXES[this.view.axis].format(x));
      where.setAttribute('scope', 'row');
      row.append(where, ...lines.map((line) => cell('td', formatNumber(this.valueAt(line, x).value))));
      body.append(row);
    }
    const thead = document.createElement('thead');
    thead.append(head);
    this.numbers.className = 'numbers';
    this.numbers.replaceChildren(thead, body);
  }
}
