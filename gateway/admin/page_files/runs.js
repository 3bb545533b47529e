// The list of runs: pages are fetched as they are scrolled to, and only rows in sight are in the document.

import { get, runLink } from "./api.js";
import { badge, card, empty, h, put } from "./dom.js";
import { count, short, span, usd, when } from "./format.js";

const ROW = 40, HEAD = 36, PAGE = 200, SPARE = 12; // px, runs, rows out of sight
const ACTIVE_MS = 90e3;

export function state(run) {
  if (run.outcome) {
    const kind = { success: "good", failure: "bad", score: "info" }[run.outcome.outcome];
    return badge(run.outcome.outcome + (run.outcome.value === null ? "" : ` ${run.outcome.value}`), kind, run.outcome.note);
  }
  if (Date.now() - Date.parse(run.last_at) < ACTIVE_MS) return badge("active", "info");
  return run.errors ? badge(`${count(run.errors)} not ok`, "warn") : badge("quiet");
}

export const runHeading = () => h("div", { class: "row heading", "aria-hidden": true }, h("span", {}, "Began"), h("span", {}, "Run"), h("span", {}, "Agent"),
  h("span", { class: "opt" }, "Tenant"), h("span", { class: "num opt" }, "Calls"), h("span", { class: "num opt" }, "Tools"), h("span", { class: "num opt" }, "Tokens"), h("span", { class: "num" }, "Cost"), h("span", {}, "State"));

export function runLine(run, properties = {}) {
  const agents = run.agents.length > 1 ? `${run.agent ?? "–"} +${run.agents.length - 1}` : run.agent ?? "–";
  return h("a", { class: "row", href: runLink(run.id), ...properties },
    h("span", { class: "soft", title: run.started_at }, when(run.started_at)), h("span", { class: "mono", title: run.id }, run.id),
    h("span", { title: run.agents.join(", ") }, agents), h("span", { class: "soft opt" }, run.tenant), h("span", { class: "num opt" }, count(run.calls)),
    h("span", { class: "num opt" }, count(run.tool_calls)), h("span", { class: "num opt" }, short(run.usage.input_tokens + run.usage.output_tokens)),
    h("span", { class: "num", title: span(run.duration_ms) }, usd(run.cost_usd)), h("span", {}, state(run)));
}

export function runs(root, { query }) {
  let rows = [], cursor = null, loading = null, more = true, at = 0, filter = { search: query.get("search") ?? "", agent: query.get("agent") ?? "", model: query.get("model") ?? "", order: query.get("order") ?? "recent" };
  const note = h("span", { class: "soft", role: "status" });
  const space = h("div", { class: "space" }), heading = runHeading();
  const list = h("div", { class: "list", role: "group", "aria-label": "Runs", onscroll: () => draw(), onkeydown: (event) => move(event) }, heading, space);
  const search = h("input", { id: "search", type: "search", placeholder: "Search id, agent or tenant  ( / )", "aria-label": "Search runs", value: filter.search, oninput: () => later() });
  const order = h("select", { "aria-label": "Order", onchange: () => restart() }, [["recent", "Latest first"], ["cost", "Dearest first"]].map(([value, text]) => h("option", { value, selected: value === filter.order }, text)));
  const narrowed = ["agent", "model"].filter((name) => filter[name]);
  put(root, h("div", { class: "title" }, h("h1", {}, "Runs"), narrowed.map((name) => [badge(`${name}: ${filter[name]}`, "info"), h("a", { href: "#/runs" }, "all")]), note,
    h("div", { class: "finder", role: "search" }, search, order)), h("div", { class: "card" }, list));

  let timer = 0;
  const later = () => { clearTimeout(timer); timer = setTimeout(restart, 200); };

  function restart() {
    filter = { ...filter, search: search.value.trim(), order: order.value };
    const kept = new URLSearchParams(Object.entries(filter).filter(([name, value]) => value && !(name === "order" && value === "recent")));
    history.replaceState(null, "", kept.size ? `#/runs?${kept}` : "#/runs");
    loading?.abort();
    [rows, cursor, more, loading, at] = [[], null, true, null, 0];
    list.scrollTop = 0;
    load();
  }

  async function load() {
    if (loading || !more) return;
    const abort = loading = new AbortController();
    const asked = new URLSearchParams({ limit: filter.order === "cost" ? 1000 : PAGE });
    for (const [name, value] of Object.entries({ ...filter, cursor })) if (value) asked.set(name, value);
    try {
      const page = await get(`/api/runs?${asked}`, abort.signal);
      if (loading !== abort) return;
      const known = new Set(rows.map((row) => row.id));
      rows = rows.concat(page.runs.filter((row) => !known.has(row.id)));
      [cursor, more, loading] = [page.next, page.next !== null, null];
      draw();
    } catch (error) {
      if (error.name === "AbortError") return;
      loading = null;
      more = rows.length > 0;
      if (!rows.length) put(list, empty("The runs cannot be shown", error.message)); else note.textContent = error.message;
    }
  }

  function draw() {
    note.textContent = rows.length ? `${count(rows.length)}${more ? " and more" : ""}` : "";
    if (!rows.length && !more) {
      put(list, filter.search || narrowed.length ? empty("No run matches", "Search looks at ids, agents and tenants.") : empty("No runs yet", "The first call of an agent begins one."));
      return;
    }
    if (space.parentNode !== list) put(list, heading, space);
    space.style.height = `${rows.length * ROW}px`;
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE), last = Math.min(rows.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
    const focused = list.contains(document.activeElement);
    at = Math.min(at, Math.max(0, rows.length - 1));
    const tab = at >= first && at < last ? at : first;
    put(space, rows.slice(first, last).map((row, n) => runLine(row, { tabindex: first + n === tab ? 0 : -1, style: { top: `${(first + n) * ROW}px` }, data: { n: first + n } })));
    if (focused) space.querySelector(`[data-n="${at}"]`)?.focus({ preventScroll: true });
    if (more && last + PAGE / 2 > rows.length) load();
  }

  function move(event) {
    const page = Math.max(1, Math.floor((list.clientHeight - HEAD) / ROW) - 1);
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined || !rows.length) return;
    event.preventDefault();
    const now = Number(document.activeElement?.dataset.n ?? at);
    at = Math.max(0, Math.min(rows.length - 1, now + by));
    if (at * ROW < list.scrollTop) list.scrollTop = at * ROW;
    else if ((at + 1) * ROW + HEAD > list.scrollTop + list.clientHeight) list.scrollTop = (at + 1) * ROW + HEAD - list.clientHeight;
    draw();
    space.querySelector(`[data-n="${at}"]`)?.focus({ preventScroll: true });
  }

  const matches = (row) => !filter.search || [row.id, row.agent ?? "", row.tenant].some((text) => text.toLowerCase().includes(filter.search.toLowerCase()));

  load();
  const resized = () => draw(), aging = setInterval(resized, 30e3); // what was active is not for ever
  window.addEventListener("resize", resized);
  return {
    search: true,
    runs(changed) {
      const places = new Map(rows.map((row, n) => [row.id, n]));
      const fresh = [];
      for (const row of changed) {
        if (places.has(row.id)) rows[places.get(row.id)] = row;
        else if (filter.order === "recent" && !narrowed.length && matches(row) && (!rows.length || row.started_at >= rows[0].started_at)) fresh.push(row);
      }
      if (fresh.length) {
        rows = fresh.sort((a, b) => (a.started_at < b.started_at ? 1 : -1)).concat(rows);
        at += fresh.length;
        if (list.scrollTop > 0) list.scrollTop += fresh.length * ROW; // what is read stays where it is
        else if (!list.contains(document.activeElement)) at = 0;
      }
      draw();
    },
    again: restart,
    close() { loading?.abort(); clearTimeout(timer); clearInterval(aging); window.removeEventListener("resize", resized); },
  };
}
