// Reads the page's data, makes a chart for each figure and wires the toolbar. Says that it is done, and what went wrong, in
// data-report and data-errors of <html>: tests read them.
'use strict';

(() => {
  const root = document.documentElement;
  window.addEventListener('error', (event) => { root.dataset.errors = (root.dataset.errors || '') + event.message + '\n'; });
  const data = JSON.parse(document.getElementById('data').textContent);
  const element = (id) => document.getElementById(id);
  const hidden = new Set();
  const charts = [];

  // The baseline is grey; the others take the colours in turn.
  const styleOf = (run) => (data.runs.length > 1 && run === data.baseline ? -1 : run > data.baseline && data.runs.length > 1 ? run - 1 : run);
  const variable = (style) => (style < 0 ? '--run-base' : '--run-' + style % 6);

  const view = {
    data, styleOf, axis: 'step', smoothing: 0.6, isLog: false, range: null,
    isShown: (run) => !hidden.has(run),
    color: (style) => getComputedStyle(root).getPropertyValue(variable(style)).trim(),
    faint: (color) => color + '55',
    swatch(style) {
      const mark = document.createElement('i');
      mark.className = 'swatch';
      mark.style.borderTopColor = 'var(' + variable(style) + ')';
      mark.style.borderTopStyle = style > 0 ? (style % 2 ? 'dashed' : 'dotted') : 'solid';
      return mark;
    },
    say: (text) => { element('live').textContent = text; },
    zoom(range) {
      view.range = range;
      element('reset').hidden = range === null;
      charts.forEach((chart) => chart.setRange(range));
    },
  };
  const drawAll = () => charts.forEach((chart) => chart.draw());

  function isDark() {
    if (root.dataset.theme) return root.dataset.theme === 'dark';
    return matchMedia('(prefers-color-scheme: dark)').matches;
  }

  function wireTheme() {
    const button = element('theme');
    const show = () => { button.textContent = isDark() ? 'Light' : 'Dark'; };
    const asked = location.hash.slice(1);
    if (asked === 'dark' || asked === 'light') root.dataset.theme = asked;
    button.hidden = false;
    button.setAttribute('aria-label', 'Change between light and dark');
    button.addEventListener('click', () => {
      root.dataset.theme = isDark() ? 'light' : 'dark';
      show();
      drawAll();
    });
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { show(); drawAll(); });
    show();
  }

  function wireAxis() {
    const series = data.runs.flatMap((run) => Object.values(run.series));
    for (const input of document.querySelectorAll('input[name="axis"]')) {
      // An axis that a run cannot be put on is not offered.
      input.parentElement.hidden = !series.length || !series.every((columns) => columns[input.value]);
      input.addEventListener('change', () => {
        view.axis = input.value;
        view.zoom(null);
        drawAll();
      });
    }
  }

  function wireSmoothing() {
    const slider = element('smoothing');
    slider.addEventListener('input', () => {
      view.smoothing = Number(slider.value);
      element('smoothing-value').textContent = view.smoothing.toFixed(2);
      charts.forEach((chart) => { if (chart.isSmoothed) chart.redraw(); });
    });
    view.smoothing = Number(slider.value);
  }

  function wireRuns() {
    for (const mark of document.querySelectorAll('.card .swatch')) mark.replaceWith(view.swatch(styleOf(Number(mark.dataset.run))));
    if (data.runs.length < 2) return;
    const box = document.querySelector('.runs');
    data.runs.forEach((run, i) => {
      const button = document.createElement('button'), name = document.createElement('span');
      button.type = 'button';
      button.setAttribute('aria-pressed', 'true');
      name.textContent = run.name;
      button.append(view.swatch(styleOf(i)), name);
      button.addEventListener('click', () => {
        if (!hidden.delete(i)) hidden.add(i);
        button.setAttribute('aria-pressed', String(!hidden.has(i)));
        drawAll();
      });
      box.append(button);
    });
  }

  function wireToolbar() {
    document.querySelector('.toolbar').hidden = data.charts.length === 0;
    const log = element('log');
    log.addEventListener('change', () => {
      view.isLog = log.checked;
      drawAll();
    });
    element('reset').addEventListener('click', () => view.zoom(null));
  }

  wireTheme();
  wireAxis();
  wireSmoothing();
  wireRuns();
  wireToolbar();
  for (const spec of data.charts) charts.push(new Chart(element('chart-' + spec.id), spec, view));
  root.dataset.report = 'ready';
})();
