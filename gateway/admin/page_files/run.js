// One run: what it cost of what it may, who took part, and every call and tool on a line of time.

import { get, post, runPath } from "./api.js";
import { ask, say, sheet } from "./dialogs.js";
import { badge, card, empty, h, meter, put } from "./dom.js";
import { amount, count, percent, short, some, span, usd, when } from "./format.js";
import { state } from "./runs.js";

const AT_ONCE = 400; // lines; more on demand
const PAUSE = 1000; // ms between two looks at a run that goes on
const TICKS = 5;
const NOTES = { canary: "canary", fallback: "fallback", taper: "tapered", clamped_to: "clamped", retry_withheld: "not retried", cascade: "checked", cascade_withheld: "not asked anew" };

const tile = (name, value, note, kind = "") => h("div", { class: "card tile" }, h("div", { class: "name" }, name),
  h("div", { class: `value ${kind}` }, value), h("div", { class: "note" }, note));

export function run(root, { argument: id }) {
  const title = h("div", { class: "title" }), tiles = h("div", { class: "tiles" }), rest = h("div", {});
  put(root, title, tiles, rest);
  let timer = 0, looking = false, again = false, limit = AT_ONCE, found = null, stopped = null, closed = false;

  async function load() {
    if (looking) { again = true; return; }
    looking = true;
    try {
      const [detail, controls] = await Promise.all([get(runPath(id)), get("/api/controls").catch(() => ({ stopped: [] }))]);
      stopped = controls.stopped.find((one) => one.scope === "run" && one.value === id) ?? null;
      found = detail;
      if (!closed) draw();
    } catch (error) {
      if (!found && !closed) put(root, empty(error.status === 404 ? "There is no such run" : "The run cannot be shown", error.message));
    }
    looking = false;
    if (again && !closed) { again = false; timer = setTimeout(load, PAUSE); }
  }

  // -- what may be decided ---------------------------------------------------------------------------------------

  const kill = () => ask({ title: "Stop this run?", text: "Its calls under way end within a second, its next ones are refused with your reason.", done: "Stop", danger: true,
    fields: [{ name: "reason", label: "Reason (told to the agent)", maxlength: 500 }], act: (values) => post(`${runPath(id)}/kill`, values) })
    .then((done) => { if (done) { say(done.in_force ? "The run is stopped." : "The run will be stopped: not every worker knows it yet."); load(); } });

  const resume = () => ask({ title: "Let this run go on?", text: stopped.reason ? `It was stopped: ${stopped.reason}` : null, done: "Resume", act: () => post(`${runPath(id)}/resume`, {}) })
    .then((done) => { if (done) { say("The run may go on."); load(); } });

  const raise = () => ask({ title: "Raise the budget", text: "The whole budget of the run from now on, not what is added.", done: "Set the budget",
    fields: [{ name: "budget_usd", label: "Budget in USD", type: "number", min: "0.000001", step: "any", required: true, value: found.budget?.limit_usd ? Math.max(found.budget.limit_usd * 2, 0.01) : null },
      { name: "reason", label: "Reason", maxlength: 500 }],
    act: (values) => post(`${runPath(id)}/raise`, { budget_usd: Number(values.budget_usd), reason: values.reason }) })
    .then((done) => { if (done) { say(`The budget of the run is ${usd(done.budget_usd)}.`); load(); } });

  // -- what is shown ---------------------------------------------------------------------------------------------

  function draw() {
    const focus = document.activeElement?.id;
    put(title, h("h1", { class: "mono" }, id), state(found), stopped ? badge("stopped", "bad", stopped.reason) : null,
      h("span", { class: "soft" }, `${found.tenant} · began ${when(found.started_at)}`),
      h("div", { class: "end" }, h("button", { type: "button", id: "raise", onclick: raise }, "Raise budget …"),
        stopped ? h("button", { type: "button", id: "resume", onclick: resume }, "Resume …") : h("button", { type: "button", id: "kill", class: "danger", onclick: kill }, "Stop run …")));
    const usage = found.usage;
    put(tiles, tile("Cost", usd(found.cost_usd), found.unknown_cost_calls ? `${some(found.unknown_cost_calls, "call")} of unknown cost` : found.budget?.limit_usd ? `of ${usd(found.budget.limit_usd)}` : "no budget of its own"),
      tile("Calls", count(found.calls), found.errors ? `${count(found.errors)} not ok` : "all ok"),
      tile("Tokens", short(usage.input_tokens + usage.output_tokens), `${short(usage.input_tokens)} in, ${short(usage.output_tokens)} out`),
      tile("From prompt caches", usage.input_tokens ? percent(usage.cache_read_tokens / usage.input_tokens) : "–", lost(found.prompt_cache)),
      tile("Tools", count(found.tool_calls), found.tool_errors ? `${count(found.tool_errors)} failed` : "none failed"),
      tile("Time", span(found.duration_ms), some(found.steps, "step")));
    const lines = lay(found);
    put(rest, h("div", { class: "stack" },
      h("div", { class: "cols even" }, h("div", { class: "stack" }, card("Budget", budget(found.budget)), found.outcomes.length ? card("Outcome", outcomes(found.outcomes)) : null), card("Agents", tree(found.tree))),
      signals(lines),
      card("Timeline", waterfall(lines), h("div", { class: "legend", "aria-hidden": true }, [["model", "model"], ["cached", "answered from cache"], ["tool", "tool"], ["failed", "failed or refused"]].map(([kind, text]) => h("span", {}, h("i", { class: kind }), text))))));
    if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
  }

  const lost = (cache) => (cache?.lost_usd ? `${usd(cache.lost_usd)} lost to misses` : "of the input");

  function budget(view) {
    if (!view) return empty("No budget of its own", "Raise the budget to set one, or configure ", h("code", {}, "runs:"));
    return h("div", { class: "budget stack" }, view.accounts.filter((one) => one.rule !== "rate").map((one) => h("div", {},
      h("div", {}, h("strong", {}, amount(one.spent, one.unit)), h("span", { class: "soft" }, ` of ${amount(one.limit, one.unit)}`),
        one.reserved ? h("span", { class: "soft" }, `, ${amount(one.reserved, one.unit)} held by calls under way`) : null),
      meter(`${one.unit} of the run`, one.spent, one.reserved, one.limit), h("div", { class: "soft" }, `${amount(one.remaining, one.unit)} left${unsure(one)}`))));
  }

  /** A budget counts the worst case of what nobody knows the use of; the cost does not. */
  function unsure(one) {
    const more = one.unit === "usd" ? one.spent - (found.cost_usd ?? 0) : 0;
    return more > 1e-6 ? `; ${usd(more)} of what is spent is the worst case of calls whose use is not known` : "";
  }

  const outcomes = (list) => h("dl", { class: "facts" }, list.map((one) => [h("dt", {}, when(one.at)), h("dd", {}, badge(one.outcome, { success: "good", failure: "bad" }[one.outcome] ?? "info"), one.value === null ? null : ` ${one.value}`, one.note ? ` ${one.note}` : null)]));

  function tree(agents) {
    const names = new Set(agents.map((one) => one.agent)), seen = new Set();
    const below = (parent) => agents.filter((one) => one.agent !== parent && (names.has(one.parent_agent) ? one.parent_agent : undefined) === parent);
    const branch = (list) => h("ul", { class: "tree" }, list.filter((one) => !seen.has(one) && seen.add(one)).map((one) => {
      const under = below(one.agent);
      return h("li", {}, h("div", { class: "node" }, h("strong", {}, one.agent ?? "(unknown)"), one.agent_version ? h("span", { class: "soft" }, one.agent_version) : null,
        h("span", { class: "soft" }, `${some(one.calls, "call")}, ${some(one.tool_calls, "tool")}, ${some(one.usage.input_tokens + one.usage.output_tokens, "token")}`),
        h("span", { class: "end" }, usd(one.cost_usd))), under.length ? branch(under) : null);
    }));
    const roots = agents.filter((one) => !names.has(one.parent_agent) || one.parent_agent === one.agent);
    return branch(roots.length ? roots : agents); // a circle has no root
  }

  function signals(lines) {
    const calls = lines.filter((line) => line.call?.loop), ends = lines.filter((line) => line.call && ["budget_exceeded", "run_stopped", "limit_reached"].includes(line.call.error));
    if (!calls.length && !ends.length) return null;
    const last = [...calls.map((line) => [line, badge(`loop: ${line.call.loop.action}`, line.call.loop.action === "stop" ? "bad" : "warn"), `${line.call.loop.signals.join(", ").replaceAll("_", " ")}${line.call.loop.reason ? `: ${line.call.loop.reason}` : ""}`]),
      ...ends.map((line) => [line, badge(line.call.error.replaceAll("_", " "), "bad"), line.call.message ?? ""])].sort((a, b) => b[0].start - a[0].start);
    return card("Signals", h("dl", { class: "facts" }, last.slice(0, 6).map(([line, sign, text]) => [h("dt", {}, `step ${line.step}`), h("dd", {}, sign, ` ${text}`)]),
      last.length > 6 ? [h("dt", {}, ""), h("dd", { class: "soft" }, `and ${count(last.length - 6)} before`)] : null));
  }

  /** Lines of the waterfall in the order of time, a heading at each change of agent or step. */
  function lay(run) {
    const depths = new Map();
    const depth = (agent, seen = new Set()) => {
      const node = run.tree.find((one) => one.agent === agent);
      if (!node || node.parent_agent === null || seen.has(agent)) return 0;
      return depths.get(agent) ?? 1 + depth(node.parent_agent, seen.add(agent));
    };
    const groups = [];
    for (const node of run.tree) {
      const indent = depth(node.agent);
      depths.set(node.agent, indent);
      for (const step of node.steps) {
        const lines = [...step.call_list.map((call) => ({ call, start: Date.parse(call.started_at), ms: call.duration_ms, step: step.step })),
          ...step.tools.map((tool) => ({ tool, start: Date.parse(tool.started_at), ms: tool.duration_ms, step: step.step }))].sort((a, b) => a.start - b.start);
        groups.push({ group: step, agent: node.agent, indent, start: Date.parse(step.started_at), ms: Date.parse(step.last_at) - Date.parse(step.started_at), step: step.step, lines });
      }
    }
    groups.sort((a, b) => a.start - b.start);
    return groups.flatMap((group) => [group, ...group.lines.map((line) => ({ ...line, indent: group.indent }))]);
  }

  function waterfall(lines) {
    if (!lines.length) return empty("No calls");
    const start = Math.min(...lines.map((line) => line.start)), end = Math.max(start + 1, ...lines.map((line) => line.start + line.ms));
    const place = (line) => ({ left: `${((line.start - start) / (end - start)) * 100}%`, width: `${Math.max(0, (line.ms / (end - start)) * 100)}%` });
    const ticks = Array.from({ length: TICKS + 1 }, (_, n) => h("span", { style: { left: `${(n / TICKS) * 100}%` } }, span(((end - start) * n) / TICKS)));
    const shown = lines.slice(0, limit);
    return h("div", { class: "waterfall scroll" }, h("div", { class: "span axis", "aria-hidden": true }, h("span", {}, "Step, call or tool"), h("div", { class: "track" }, ticks), h("span", { class: "num" }, "Tokens, time"), h("span", { class: "num" }, "Cost")),
      shown.map((line) => (line.group ? heading(line, place(line)) : line.call ? callLine(line, place(line)) : toolLine(line, place(line)))),
      lines.length > limit ? h("div", { class: "empty" }, h("button", { type: "button", id: "more", onclick: () => { limit += AT_ONCE * 4; draw(); } }, `Show more of ${count(lines.length)} lines`)) : null,
      found.truncated ? h("p", { class: "empty" }, "Not all calls are listed; the totals are complete.") : null);
  }

  const pad = (line, more = 0) => ({ "padding-left": `${line.indent * 18 + more}px` });

  const heading = (line, at) => h("div", { class: "span group" }, h("span", { class: "label", style: pad(line) }, h("span", { class: "text" }, `${line.agent ?? "(unknown)"} · step ${line.step}`)),
    h("div", { class: "track" }, h("span", { class: "bar whole", style: at })), h("span", { class: "num" }, short(line.group.usage.input_tokens + line.group.usage.output_tokens)), h("span", { class: "num" }, usd(line.group.cost_usd)));

  function marks(call) {
    const noted = Object.entries(NOTES).filter(([name, text]) => call.notes[name] && call.budget !== text).map(([name, text]) => badge(name === "canary" ? `canary ${call.notes.canary_arm ?? ""}` : text, "info", `${name}: ${call.notes[name]}`));
    return [call.cache && !["miss", "bypass"].includes(call.cache) ? badge(`cache: ${call.cache}`, "good", `saved ${usd(call.saved_usd)}`) : null,
      call.budget && call.budget !== "granted" ? badge(call.budget, call.budget === "refused" || call.budget === "stopped" ? "bad" : "warn", call.notes.taper ?? null) : null,
      call.loop ? badge(`loop: ${call.loop.action}`, "warn", call.loop.signals.join(", ")) : null,
      call.attempts > 1 ? badge(`${call.attempts} attempts`, "warn") : null, noted,
      call.outcome === "ok" || call.budget === "refused" ? null : badge(call.error ?? call.outcome.replaceAll("_", " "), call.outcome === "cancelled" ? "" : "bad", call.message)];
  }

  function callLine(line, at) {
    const call = line.call, ok = call.outcome === "ok" || call.outcome === "cancelled";
    const kind = !ok ? "failed" : call.cache === "exact" || call.cache === "semantic" || call.cache === "joined" ? "cached" : "";
    const first = call.ttft_ms !== null && line.ms > 0 ? h("span", { class: "first", style: { width: `${Math.min(100, (call.ttft_ms / line.ms) * 100)}%` } }) : null;
    const text = `${call.model ?? "call"}${call.upstream ? ` @ ${call.upstream}` : ""}`;
    return h("button", { type: "button", class: "span", id: `call-${call.id}`, title: `${text}, ${span(line.ms)}`, onclick: () => showCall(call.id) },
      h("span", { class: "label", style: pad(line, 14) }, h("span", { class: "text mono" }, text), marks(call)),
      h("span", { class: "track" }, h("span", { class: `bar ${kind}`, style: at }, first)), h("span", { class: "num" }, short(call.usage.input_tokens + call.usage.output_tokens)), h("span", { class: "num" }, usd(call.cost_usd)));
  }

  const toolLine = (line, at) => h("div", { class: "span", title: `${line.tool.name}, ${line.tool.exact ? "" : "at most "}${span(line.ms)}` },
    h("span", { class: "label", style: pad(line, 14) }, h("span", { class: "text mono" }, `⚙ ${line.tool.server ? `${line.tool.server}/` : ""}${line.tool.name}`), line.tool.is_error ? badge("failed", "bad") : null),
    h("div", { class: "track" }, h("span", { class: `bar ${line.tool.is_error ? "failed" : "tool"}`, style: at })), h("span", { class: "num soft" }, span(line.ms)), h("span", {}));

  async function showCall(callId) {
    let call;
    try { call = await get(`/api/calls/${encodeURIComponent(callId)}`); } catch (error) { say(error.message); return; }
    const facts = [];
    const add = (name, value) => { if (value !== null && value !== undefined && value !== "" && !(Array.isArray(value) && !value.length)) facts.push(h("dt", {}, name), h("dd", {}, value)); };
    add("Began", call.started_at);
    add("Took", `${span(call.duration_ms)}${call.ttft_ms === null ? "" : `, first token after ${span(call.ttft_ms)}`}, gateway ${call.overhead_ms.toFixed(2)} ms`);
    add("Outcome", `${call.outcome}, status ${call.status}`);
    add("Error", call.error && [call.error.code, call.error.type, call.error.source, call.error.message].filter(Boolean).join(" · "));
    add("Model", call.model_used && call.model_used !== call.model_requested ? `${call.model_requested} → ${call.model_used}` : call.model_requested);
    add("Attempts", call.attempts.map((one) => h("div", {}, `${one.upstream}${one.model ? ` ${one.model}` : ""}: ${one.status ?? one.error_code ?? "–"} after ${span(one.duration_ms)}`)));
    add("Tokens", `${count(call.usage.input_tokens)} in (${count(call.usage.cache_read_tokens)} cached), ${count(call.usage.output_tokens)} out (${count(call.usage.reasoning_tokens)} reasoning), from ${call.usage_source}`);
    add("Cost", `${usd(call.cost_usd)} (${call.cost_status}${call.price_version ? `, ${call.price_version}` : ""})`);
    add("Components", Object.entries(call.cost_components).map(([name, value]) => `${name} ${usd(value)}`).join(", "));
    add("Budget", call.budget && `${call.budget.decision}, ${usd(call.budget.reserved_usd)} reserved${call.budget.account ? `, ${call.budget.account}` : ""}${call.budget.taper ? `, ${call.budget.taper}` : ""}`);
    add("Cache", call.cache && `${call.cache.result}${call.cache.reason ? ` (${call.cache.reason})` : ""}, saved ${usd(call.cache.saved_usd)}`);
    add("Loop", call.loop && `${call.loop.signals.join(", ")}: ${call.loop.action}${call.loop.reason ? `, ${call.loop.reason}` : ""}`);
    add("Asked for tools", call.tool_uses.map((one) => one.name).join(", "));
    add("Key", call.key_id);
    add("Route", `${call.method} ${call.route} → ${call.upstream}`);
    add("Trace", call.trace_id && h("span", { class: "mono" }, call.trace_id));
    add("Notes", Object.entries(call.notes).map(([name, value]) => h("div", {}, `${name}: ${value}`)));
    sheet(`Call ${call.id}`, h("dl", { class: "facts", tabindex: 0 }, facts));
  }

  load();
  return {
    runs(changed, more) { if (more || changed.some((one) => one.id === id)) { if (looking) again = true; else { clearTimeout(timer); timer = setTimeout(load, found ? 300 : 0); } } },
    again: load,
    close() { closed = true; clearTimeout(timer); },
  };
}
