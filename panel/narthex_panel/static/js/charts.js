// Draw a node's history: one small chart a subject, with a cursor that all share.
const root = document.querySelector("[data-charts]");
const language = document.documentElement.lang || "en";
const HEIGHT = 150;
const REFRESH_MS = 15000;
const LIGHT = ["#1862b8", "#d9730d", "#2f855a", "#8b4fc4", "#b83263", "#0f7c8a"];
const DARK = ["#6cabf2", "#f2a65a", "#62c48b", "#bb8ff0", "#ee7ba6", "#4fc3d1"];
const charts = new Map();
const labels = Object.fromEntries(root.dataset.labels.split("|").map((pair) => pair.split("=")));
const units = root.dataset.units.split(" ");

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDark = () => document.documentElement.dataset.bsTheme === "dark";
const colours = () => (isDark() ? DARK : LIGHT);
const number = (value, digits) => new Intl.NumberFormat(language, {
  maximumFractionDigits: digits, minimumFractionDigits: 0,
}).format(value);

function show(unit, value) {
  if (value === null || value === undefined) return "—";
  if (unit === "ratio") {
    return new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: value < 0.1 ? 1 : 0 }).format(value);
  }
  if (unit === "load") return number(value, 2);
  let size = value;
  let index = 0;
  while (Math.abs(size) >= 1024 && index < units.length - 1) { size /= 1024; index += 1; }
  const rate = unit === "bytes_per_second" ? root.dataset.perSecond : "";
  return `${number(size, size < 10 && index > 0 ? 1 : 0)}\u00a0${units[index]}${rate}`;
}

function frame(chart) {
  const box = document.createElement("section");
  box.className = "chart";
  const head = document.createElement("div");
  head.className = "chart-head";
  const title = document.createElement("h3");
  title.textContent = root.dataset[`title${chart.name[0].toUpperCase()}${chart.name.slice(1)}`] ?? chart.name;
  title.title = chart.query;
  const legend = document.createElement("div");
  legend.className = "chart-legend";
  head.append(title, legend);
  const place = document.createElement("div");
  box.append(head, place);
  root.append(box);
  return { box, legend, place, plot: null, unit: chart.unit };
}

function keys(held, chart, index) {
  held.legend.replaceChildren(...chart.series.map((series, position) => {
    const key = document.createElement("span");
    key.className = "chart-key";
    key.style.color = colours()[position % LIGHT.length];
    const name = document.createElement("span");
    name.textContent = labels[series.label] ?? series.label;
    const value = document.createElement("b");
    const at = index ?? lastKnown(series.values);
    value.textContent = show(chart.unit, series.values[at]);
    key.append(name, value);
    return key;
  }));
}

function lastKnown(values) {
  for (let index = values.length - 1; index >= 0; index -= 1) if (values[index] !== null) return index;
  return values.length - 1;
}

function options(held, chart, width) {
  const ink = style("--ink-2");
  const line = style("--line");
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 }, font: "11px system-ui" };
  const pad = (value) => String(value).padStart(2, "0");
  return {
    width, height: HEIGHT,
    legend: { show: false },
    cursor: { sync: { key: "node" }, y: false, points: { size: 6 }, drag: { x: true, y: false } },
    scales: { y: { range: (_, low, high) => [0, chart.unit === "ratio" ? Math.max(1, high) : Math.max(high * 1.1, 0.1)] } },
    axes: [
      { ...axis, values: (_, ticks) => ticks.map((tick) => {
        const at = new Date(tick * 1000);
        return `${pad(at.getHours())}:${pad(at.getMinutes())}`;
      }), space: 60, size: 28 },
      { ...axis, size: chart.unit === "bytes_per_second" ? 76 : 48, values: (_, ticks) => ticks.map((tick) => show(chart.unit, tick)), space: 32 },
    ],
    series: [{}, ...chart.series.map((_, position) => {
      const colour = colours()[position % LIGHT.length];
      return { stroke: colour, width: 1.5, fill: chart.series.length === 1 || position === 0 ? `${colour}1f` : undefined, points: { show: false }, spanGaps: false };
    })],
    hooks: { setCursor: [(plot) => keys(held, held.chart, plot.cursor.idx ?? undefined)] },
  };
}

function draw(chart) {
  const held = charts.get(chart.name) ?? frame(chart);
  charts.set(chart.name, held);
  held.chart = chart;
  const empty = chart.problem || chart.times.length === 0 || chart.series.length === 0;
  if (empty) {
    held.plot?.destroy();
    held.plot = null;
    held.legend.replaceChildren();
    const none = document.createElement("div");
    none.className = "chart-none";
    none.textContent = chart.problem || root.dataset.none;
    held.place.replaceChildren(none);
    return;
  }
  const data = [chart.times, ...chart.series.map((series) => series.values)];
  keys(held, chart);
  const theme = isDark();
  if (held.plot && held.count === chart.series.length && held.theme === theme) held.plot.setData(data);
  else {
    held.plot?.destroy();
    held.place.replaceChildren();
    held.plot = new window.uPlot(options(held, chart, held.place.clientWidth), data, held.place);
    held.count = chart.series.length;
    held.theme = theme;
  }
}

async function load() {
  if (!document.hidden) {
    try {
      const answer = await fetch(root.dataset.charts);
      if (answer.ok) (await answer.json()).forEach(draw);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // fetch: the network failed, the page says so
    }
  }
  setTimeout(load, REFRESH_MS);
}

new ResizeObserver(() => {
  for (const held of charts.values()) {
    const width = held.place.clientWidth;
    if (held.plot && width && held.plot.width !== width) held.plot.setSize({ width, height: HEIGHT });
  }
}).observe(root);
new MutationObserver(() => {
  for (const held of charts.values()) if (held.chart) draw(held.chart);
}).observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
load();
