// Agents or models: what each spent today, or in a longer time up to now.

import { get, post } from "./api.js";
import { ask, say } from "./dialogs.js";
import { badge, empty, h, put, renew, table } from "./dom.js";
import { count, percent, short, usd, when } from "./format.js";

const EVERY = 3000, SOON = 300; // ms between two looks, at most; and while there is more to read
const RANGES = [["today", "Today"], ["24h", "24 hours"], ["7d", "7 days"], ["30d", "30 days"]];

export const spenders = (by) => (root, { query }) => {
  const title = by === "agent" ? "Agents" : "Models";
  const body = h("div", {}), note = h("span", { class: "soft", role: "status" });
  let range = RANGES.some(([name]) => name === query.get("range")) ? query.get("range") : "today";
  const buttons = RANGES.map(([name, text]) => h("button", { type: "button", "aria-pressed": String(name === range), onclick: () => choose(name) }, text));
  put(root, h("div", { class: "title" }, h("h1", {}, title), note, h("div", { class: "end" }, h("div", { class: "switch", role: "group", "aria-label": "Time" }, buttons))), h("div", { class: "card" }, body));
  let asked = 0, timer = 0, looked = 0, stopped = new Map(), prices = new Map();

  function choose(name) {
    range = name;
    buttons.forEach((button, n) => button.setAttribute("aria-pressed", String(RANGES[n][0] === range)));
    history.replaceState(null, "", `#/${title.toLowerCase()}${range === "today" ? "" : `?range=${range}`}`);
    load();
  }

  async function load() {
    clearTimeout(timer);
    const number = asked += 1; // an answer to what was asked before the last choice is of no use
    looked = Date.now();
    try {
      const [page, kept, priced] = await Promise.all([get(`/api/spenders?by=${by}&range=${range}&limit=500`), by === "agent" ? get("/api/controls") : null, by === "model" ? get("/api/prices") : null]);
      if (number !== asked) return;
      note.textContent = page.complete ? `since ${when(page.since)}` : `since ${when(page.since)}; earlier calls are being read …`;
      if (!page.complete) timer = setTimeout(load, SOON);
      stopped = new Map((kept?.stopped ?? []).filter((one) => one.scope === "agent").map((one) => [one.value, one]));
      prices = new Map((priced?.models ?? []).map((one) => [one.model, one.known]));
      renew(body, [page.spenders, [...stopped.values()], [...prices]], () => draw(page.spenders));
    } catch (error) {
      if (number === asked) put(body, empty(`The ${title.toLowerCase()} cannot be shown`, error.message));
    }
  }

  function draw(list) {
    if (!list.length) return empty(range === "today" ? "No calls today" : "No calls in this time");
    const all = list.reduce((sum, one) => sum + (one.cost_usd ?? 0), 0);
    const columns = [[by === "agent" ? "Agent" : "Model", ""], ["Cost", "num"], ["Share", "num"], ["Calls", "num"], ["Failed", "num"], ["Refused", "num"], ["Tokens in", "num"], ["From caches", "num"], ["Tokens out", "num"], ["Tool calls", "num"], ["", ""]];
    return table(title, columns, list.map((one) => [
      h("span", {}, one.name === null ? h("span", { class: "soft" }, by === "agent" ? "(unknown)" : "(no model)") : h("a", { class: "mono", href: `#/runs?${new URLSearchParams({ [by]: one.name })}` }, one.name),
        stopped.has(one.name) ? [" ", badge("stopped", "bad", stopped.get(one.name).reason)] : null,
        prices.get(one.name) === false ? [" ", badge("no price", "warn")] : null),
      usd(one.cost_usd), all ? percent((one.cost_usd ?? 0) / all) : "–", count(one.calls), one.faults ? h("span", { class: "bad" }, count(one.faults)) : "0", count(one.refused),
      short(one.input_tokens), one.input_tokens ? percent(one.cache_read_tokens / one.input_tokens) : "–", short(one.output_tokens), count(one.tool_calls),
      by === "agent" && one.name ? h("div", { class: "actions" }, stop(one.name)) : null]));
  }

  function stop(name) {
    const held = stopped.has(name);
    return h("button", { type: "button", class: held ? "" : "danger", "aria-label": `${held ? "Resume" : "Stop"} ${name}`, onclick: () => ask({
      title: `${held ? "Let" : "Stop"} agent ${name}${held ? " go on" : ""}?`, done: held ? "Resume" : "Stop", danger: !held,
      text: held ? "Its next calls pass again." : "Its calls under way end within a second, with those of its sub-agents, and its next ones are refused.",
      fields: held ? [] : [{ name: "reason", label: "Reason (told to the agent)", maxlength: 500 }],
      act: (values) => post(held ? "/api/resume" : "/api/kill", { scope: "agent", value: name, reason: values.reason ?? "" }),
    }).then((done) => { if (done) { say(`Agent ${name} ${held ? "may go on" : "is stopped"}.`); load(); } }) }, held ? "Resume" : "Stop");
  }

  load();
  return { summary() { if (Date.now() - looked > EVERY) load(); }, again: load, close() { asked += 1; clearTimeout(timer); } };
};
