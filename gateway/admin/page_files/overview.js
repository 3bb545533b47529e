// Spending now, what is the matter, and who spends.

import { get, runLink } from "./api.js";
import { spendChart } from "./chart.js";
import { badge, card, empty, h, put, renew } from "./dom.js";
import { calls, count, percent, short, until, usd, when } from "./format.js";
import { runLine, runHeading } from "./runs.js";

const NAMES = { slo_burn: "Objective missed", price_unknown: "Prices unknown", journal_lag: "Records lag", journal_lost: "Records lost", ledger_unavailable: "No ledger",
  no_worker: "No worker", workers_missing: "Workers missing", draining: "Ending", reload_failed: "Reload failed", needs_restart: "Restart needed" };
const GRADE = { critical: "bad", warning: "warn", info: "info" };

const tile = (name, value, note, kind = "") => h("div", { class: "card tile" }, h("div", { class: "name" }, name),
  h("div", { class: `value ${kind}` }, value), h("div", { class: "note" }, note));

function spendTile(name, spend, end) {
  const some = spend.unknown_cost_calls ? ` + ${calls(spend.unknown_cost_calls)} of unknown cost` : "";
  const by = spend.projected_usd === null ? "adding up" : `${usd(spend.projected_usd)} by ${end}`;
  return tile(name, usd(spend.cost_usd), by + some);
}

function conditions(list) {
  if (!list.length) return empty("All is well", "No breaker is open, no budget nears its end, nothing is stopped.");
  return h("ul", { class: "conditions", tabindex: 0, "aria-label": "Conditions" }, list.map((one) => h("li", {}, badge(one.severity, GRADE[one.severity]),
    h("div", {}, h("b", {}, one.run ? h("a", { href: runLink(one.run) }, one.subject) : one.subject ?? NAMES[one.kind] ?? one.kind),
      h("p", {}, one.text, one.since ? h("span", { title: one.since }, ` Since ${when(one.since)}.`) : null)))));
}

function top(list, link, nameless = "(unknown)") {
  if (!list.length) return empty("No calls today");
  const most = Math.max(...list.map((one) => one.cost_usd ?? 0));
  return h("ol", { class: "spenders" }, list.map((one) => h("li", {},
    h("span", { class: "cut" }, one.name ?? nameless), h("span", { class: "num" }, usd(one.cost_usd), h("span", { class: "soft" }, `  ${calls(one.calls)}`)),
    h("div", { class: "share", "aria-hidden": true }, h("span", { style: { width: `${most > 0 ? ((one.cost_usd ?? 0) / most) * 100 : 0}%` } })))),
  h("li", {}, h("a", { href: link }, "All of today")));
}

function service(slo) {
  const worst = slo.burns.reduce((found, burn) => (burn.rate !== null && (found === null || burn.rate > found) ? burn.rate : found), null);
  const firing = slo.burns.some((burn) => burn.firing);
  const note = worst === null ? "too few calls to judge" : `objective ${percent(slo.objective, 1)}, burning ${worst.toFixed(1)}×`;
  return tile("Answered by models, 24 h", slo.availability === null ? "–" : percent(slo.availability, slo.availability > 0.9995 ? 0 : 2), note, firing ? "bad" : "");
}

export function overview(root) {
  const tiles = h("div", { class: "tiles" }), matters = h("div", {}), agents = h("div", {}), models = h("div", {}), latest = h("div", {});
  const chart = spendChart("Spending by time");
  let span = "minutes", summary = null, rows = [];
  const spans = [["minutes", "1 h"], ["tens", "24 h"]].map(([name, text]) => h("button", { type: "button", "aria-pressed": String(name === span),
    onclick: (event) => {
      span = name;
      for (const other of spans) other.setAttribute("aria-pressed", String(other === event.target));
      if (summary) chart.show(summary[span]);
    } }, text));
  put(root, h("h1", { class: "out" }, "Overview"), tiles,
    h("div", { class: "cols" }, card("Spending", chart.place, chart.tip, h("div", { class: "switch" }, spans)), card("What is the matter", matters)),
    h("div", { class: "cols even" }, card("Agents today", agents), card("Models today", models)), card("Latest runs", latest, h("a", { href: "#/runs" }, "All runs")));

  function list() {
    put(latest, rows.length ? [runHeading(), rows.slice(0, 8).map((row) => runLine(row))]
      : empty("No calls yet", "Point an agent here: ", h("code", {}, `export OPENAI_BASE_URL=http://${summary?.listen ?? "127.0.0.1:8787"}/v1`)));
  }
  const load = () => get("/api/runs?limit=8").then((page) => { rows = page.runs; list(); }, () => {});
  load();
  return {
    summary(data) {
      const first = summary === null;
      summary = data;
      if (first && !rows.length) list();
      const { hour, day, month, today, calls_per_second, inflight, slo } = data;
      renew(tiles, [hour, day, month, today, calls_per_second, inflight, slo], () => [spendTile("This hour", data.hour, until(data.hour.until)), spendTile("Today", data.day, until(data.day.until)),
        spendTile("This month", data.month, "its end"),
        tile("Calls per second", data.calls_per_second.toFixed(data.calls_per_second < 10 ? 2 : 0), `${count(data.inflight)} under way, ${short(data.today.calls)} today`),
        service(data.slo),
        tile("Tokens today", short(data.today.input_tokens + data.today.output_tokens),
          data.today.input_tokens ? `${percent(data.today.cache_read_tokens / data.today.input_tokens)} of input from prompt caches` : "none yet")]);
      renew(matters, data.conditions, () => conditions(data.conditions));
      renew(agents, data.agents, () => top(data.agents, "#/agents"));
      renew(models, data.models, () => top(data.models, "#/models", "(no model)"));
      chart.show(data[span]);
    },
    runs(changed, more) {
      if (more) { load(); return; }
      const by = new Map(rows.map((row) => [row.id, row]));
      for (const row of changed) by.set(row.id, row);
      rows = [...by.values()].sort((a, b) => (a.started_at < b.started_at ? 1 : -1)).slice(0, 50);
      list();
    },
    again: load,
    close: () => chart.close(),
  };
}
