// Bars over time, drawn by uPlot (vendored), in the colours of the theme.

import { h } from "./dom.js";
import { count, usd } from "./format.js";

/** What a name means in the theme of now. */
function colour(name) {
  const probe = document.body.appendChild(h("i", { style: { color: `var(${name})` } }));
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** Spending by time, with what failed. Call `show(series)` with what /api/summary has. */
export function spendChart(label) {
  const place = h("div", { class: "chart", role: "img", "aria-label": label });
  let plot = null, latest = null;
  const watch = new ResizeObserver(() => plot?.setSize(size()));
  const size = () => ({ width: Math.max(200, place.clientWidth), height: Math.max(120, place.clientHeight) });

  function draw() {
    plot?.destroy();
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const bars = window.uPlot.paths.bars({ size: [0.72, 40], radius: 0.15 });
    plot = new window.uPlot({
      ...size(),
      padding: [10, 20, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      scales: { x: { range: (u, first, last) => [first - latest.step / 2, last + latest.step / 2] }, y: { range: (u, low, high) => [0, high > 0 ? high * 1.08 : 1] } },
      series: [{}, { label: "USD", paths: bars, fill: colour("--bar"), stroke: colour("--bar"), width: 0, points: { show: false } }],
      axes: [{ ...axis, grid: { show: false }, values: "{HH}:{mm}", space: 70, size: 28 }, { ...axis, size: 62, values: (u, ticks) => ticks.map((tick) => (tick === 0 ? "$0" : short(tick))) }],
      hooks: { setCursor: [(u) => told(u)] },
    }, data(), place);
  }

  const short = (value) => `$${value >= 1 ? value.toLocaleString("en", { maximumFractionDigits: 2 }) : value.toPrecision(2).replace(/0+$/, "")}`;
  const data = () => [latest.cost_usd.map((_, n) => latest.start + n * latest.step), latest.cost_usd];
  const tip = h("div", { class: "legend" });

  function told(u) {
    const n = u.cursor.idx;
    if (n === null || n === undefined || !latest) { tip.textContent = ""; return; }
    const at = new Date((latest.start + n * latest.step) * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
    tip.textContent = `${at}  ${usd(latest.cost_usd[n])}, ${count(latest.calls[n])} calls, ${count(latest.faults[n])} failed`;
  }

  const themed = () => { if (latest) draw(); };
  document.addEventListener("theme", themed);
  return {
    place,
    tip,
    show(series) {
      const same = latest && latest.step === series.step && plot;
      latest = series;
      place.setAttribute("aria-label", `${label}: ${usd(series.cost_usd.reduce((sum, each) => sum + each, 0))} in ${count(series.calls.reduce((sum, each) => sum + each, 0))} calls`);
      if (same) plot.setData(data()); else if (place.isConnected) { draw(); watch.observe(place); } else requestAnimationFrame(() => this.show(series));
    },
    close() { watch.disconnect(); document.removeEventListener("theme", themed); plot?.destroy(); plot = null; },
  };
}
