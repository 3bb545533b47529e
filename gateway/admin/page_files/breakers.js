// Breakers: how they stand, and holding one by hand.

import { get, post } from "./api.js";
import { ask, say } from "./dialogs.js";
import { badge, empty, h, put, renew, table } from "./dom.js";
import { when } from "./format.js";

const EVERY = 2000;
const SAID = { open: "is held open: no calls go there", closed: "is held closed: all calls go there", auto: "goes by what it counts" };
const KIND = { open: "bad", half_open: "warn", closed: "good" };

export function breakers(root) {
  const body = h("div", {});
  put(root, h("div", { class: "title" }, h("h1", {}, "Breakers"), h("span", { class: "soft" }, "of upstreams, their models, and tools"),
    h("div", { class: "end" }, h("button", { type: "button", onclick: () => hold("", "open") }, "Hold one open …"))), h("div", { class: "card" }, body));
  let looked = 0;

  async function load() {
    looked = Date.now();
    try { const list = (await get("/api/breakers")).breakers; renew(body, list, () => draw(list)); } catch (error) { put(body, empty("Breakers cannot be shown", error.message)); }
  }

  function draw(list) {
    if (!list.length) return empty("No breaker has ever opened", "What goes on failing is left alone for a while; it is listed here then.");
    return table("Breakers", [["Of", ""], ["State", ""], ["Held", ""], ["Workers", "num"], ["Why", "wide"], ["Since", ""], ["", ""]], list.map((one) => [
      h("span", { class: "mono" }, one.name), badge(one.state.replace("_", " "), KIND[one.state]), one.forced ? badge(`${one.forced} by hand`, "info") : "–", one.workers || "–",
      one.why ?? "–", one.since ? when(one.since) : "–", h("div", { class: "actions" }, [["open", "Hold open"], ["closed", "Hold closed"], ["auto", "Let go"]]
        .filter(([to]) => to !== one.forced && (to !== "auto" || one.forced)).map(([to, text]) => h("button", { type: "button", "aria-label": `${text}: ${one.name}`, onclick: () => hold(one.name, to) }, text)))]));
  }

  const hold = (name, to) => ask({
    title: name ? `${name}: ${{ open: "hold open", closed: "hold closed", auto: "let go" }[to]}?` : "Hold a breaker open",
    text: { open: "No call goes there until you let it go.", closed: "Every call goes there, whatever fails.", auto: "It opens and closes by what it counts." }[to],
    fields: [...(name ? [] : [{ name: "name", label: "Upstream, upstream/model, or tools/name", required: true, maxlength: 200 }]), { name: "reason", label: "Reason", maxlength: 500 }],
    done: { open: "Hold open", closed: "Hold closed", auto: "Let go" }[to], danger: to === "open",
    act: (values) => post("/api/breakers", { name: name || values.name, state: to, reason: values.reason }),
  }).then((done) => { if (done) { say(`${done.value} ${SAID[to]}.`); load(); } });

  load();
  return { summary() { if (Date.now() - looked > EVERY) load(); }, again: load };
}
