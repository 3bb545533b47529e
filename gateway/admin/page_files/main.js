// The frame: views by the address behind #, events for whoever is shown, theme, keys, and what is said of the line.

import { follow, get, onTokenNeeded } from "./api.js";
import { ask, sheet } from "./dialogs.js";
import { empty, h, put } from "./dom.js";
import { clock, usd } from "./format.js";
import { breakers } from "./breakers.js";
import { budgets } from "./budgets.js";
import { overview } from "./overview.js";
import { run } from "./run.js";
import { runs } from "./runs.js";
import { spenders } from "./spenders.js";

const main = document.getElementById("main"), banner = document.getElementById("banner"), live = document.getElementById("live");
const VIEWS = { "": overview, runs, run, agents: spenders("agent"), models: spenders("model"), budgets, breakers };
const KEYS = [["g o", "Overview"], ["g r", "Runs"], ["g a", "Agents"], ["g m", "Models"], ["g b", "Budgets and keys"], ["g k", "Breakers"],
  ["/", "Search runs"], ["↑ ↓", "Move in the list of runs"], ["t", "Theme: system, light, dark"], ["?", "This list"], ["Esc", "Close"]];
const GO = { o: "#/", r: "#/runs", a: "#/agents", m: "#/models", b: "#/budgets", k: "#/breakers" };

let shown = null, summary = null, heard = null;

function show() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  shown?.close?.();
  shown = null;
  put(main);
  window.scrollTo(0, 0);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === (name === "run" ? "runs" : name)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const make = VIEWS[name];
  if (!make) { put(main, empty("There is nothing here.", h("a", { href: "#/" }, "Go to the overview"))); return; }
  let argument = rest.join("/");
  try { argument = decodeURIComponent(argument); } catch { /* as it is */ }
  shown = make(main, { argument, query: new URLSearchParams(query) }) ?? {};
  if (summary) shown.summary?.(summary);
}

function told(name, data) {
  heard = Date.now();
  if (name === "summary") {
    summary = data;
    document.title = `${usd(data.day.cost_usd)} today · Tollgate`;
    shown?.summary?.(data);
  } else if (name === "runs") {
    shown?.runs?.(data.runs, data.more);
  } else if (name === "trouble") {
    trouble(`The ledger cannot be read: ${data.detail}`);
    return;
  }
  if (name === "summary") banner.hidden = true;
}

function trouble(text) {
  banner.textContent = text;
  banner.hidden = false;
}

function line(state, seconds, reason) {
  const on = state === "on", before = live.className;
  live.className = `live ${state}`;
  live.lastElementChild.textContent = on ? "live" : "no connection";
  if (!on) trouble(`${reason ? `The gateway says: ${reason}.` : "The gateway does not answer."} ${heard ? `What is shown is from ${clock(heard)}. ` : ""}Next try in ${seconds} s.`);
  else if (!before.includes("on")) { // also the first time: what came since the view was loaded was told to nobody
    if (before.includes("off")) banner.hidden = true;
    shown?.again?.();
  }
}

// -- theme --------------------------------------------------------------------------------------------------------

const THEMES = ["system", "light", "dark"], SIGNS = { system: "◐", light: "☀", dark: "☾" };
const button = document.getElementById("theme");
let theme = document.documentElement.dataset.theme ?? "system";

function setTheme(wanted) {
  theme = wanted;
  if (theme === "system") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("tollgate-theme", theme); } catch { /* then for now alone */ }
  button.textContent = SIGNS[theme];
  button.title = `Theme: ${theme} (t)`;
  button.setAttribute("aria-label", `Theme: ${theme}`);
  document.dispatchEvent(new Event("theme"));
}
const nextTheme = () => setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
button.addEventListener("click", nextTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("theme")));
setTheme(theme);

// -- keys ---------------------------------------------------------------------------------------------------------

const help = () => sheet("Keyboard", h("dl", { class: "facts" },
  KEYS.map(([keys, text]) => [h("dt", {}, keys.split(" ").map((key) => [h("kbd", {}, key), " "])), h("dd", {}, text)])));
document.getElementById("keys").addEventListener("click", help);

let before = "";
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches("input, select, textarea")) { if (event.key === "Escape") event.target.blur(); return; }
  const first = before;
  before = "";
  if (first === "g" && GO[event.key]) { location.hash = GO[event.key]; return; }
  if (event.key === "g") before = "g";
  else if (event.key === "t") nextTheme();
  else if (event.key === "?") help();
  else if (event.key === "/") {
    event.preventDefault();
    if (!shown?.search) location.hash = "#/runs";
    requestAnimationFrame(() => document.getElementById("search")?.focus());
  }
});

// -- the beginning ------------------------------------------------------------------------------------------------

onTokenNeeded(async (again) => (await ask({ title: "Admin token", done: "Open",
  text: `${again ? "That was not the token. " : ""}This gateway shows nothing without its admin token (admin_token). It is kept for this tab alone.`,
  fields: [{ name: "token", label: "Token", type: "password", required: true }] }))?.token);
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
window.addEventListener("hashchange", () => { show(); main.focus({ preventScroll: true }); });
show();
get("/api/summary").then((data) => told("summary", data), () => {}).finally(() => follow(told, line));
