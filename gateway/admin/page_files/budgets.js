// Budgets as accounts stand, and virtual keys with what they may.

import { get, post } from "./api.js";
import { ask, say } from "./dialogs.js";
import { badge, empty, h, meter, put, renew, table } from "./dom.js";
import { amount, count, percent, short, usd, when } from "./format.js";

const EVERY = 3000;
const SCOPES = ["global", "team", "key", "agent", "model", "upstream"];

export function budgets(root) {
  const accounts = h("div", {}), keys = h("div", {});
  put(root, h("div", { class: "title" }, h("h1", {}, "Budgets & keys")),
    h("div", { class: "stack" }, h("section", { class: "card", "aria-label": "Budgets" }, h("div", { class: "head" }, h("h2", {}, "Budgets"), h("span", { class: "soft" }, "runs have theirs on their own pages")), accounts),
      h("section", { class: "card", "aria-label": "Virtual keys" }, h("div", { class: "head" }, h("h2", {}, "Virtual keys")), keys)));
  let looked = 0;

  async function load() {
    looked = Date.now();
    const pages = Promise.all(SCOPES.map((scope) => get(`/api/budgets?scope=${scope}&limit=200`)));
    await Promise.all([pages.then((found) => renew(accounts, found, () => drawAccounts(found.flatMap((page) => page.budgets))), (error) => put(accounts, empty("Budgets cannot be shown", error.message))),
      get("/api/keys").then((page) => renew(keys, page, () => drawKeys(page.keys)), (error) => put(keys, empty("Keys cannot be shown", error.message)))]);
  }

  function drawAccounts(found) {
    const list = found.filter((one) => one.rule === "total" || one.rule === "rolling");
    if (!list.length) return empty("No budget has been met yet", "Budgets are set in tollgate.yaml or with ", h("code", {}, "tollgate limits set"), "; they show with the first call that asks them.");
    const used = (one) => (one.limit > 0 ? (one.spent + one.reserved) / one.limit : 0);
    list.sort((a, b) => used(b) - used(a));
    return table("Budgets", [["Of", ""], ["Per", ""], ["Used", ""], ["", "num"], ["Spent", "num"], ["Held by calls under way", "num"], ["Limit", "num"], ["Begins anew", ""]], list.map((one) => [
      h("span", { title: one.account }, h("span", { class: "soft" }, one.within_key ? `key ${one.within_key} › ${one.scope} ` : `${one.scope} `), one.value === null ? (one.scope === "global" ? "all calls" : "(unknown)") : h("span", { class: "mono" }, one.value)),
      `${one.rule === "rolling" ? "rolling " : ""}${one.per ?? ""}`, meter(`${one.account} used`, one.spent, one.reserved, one.limit), percent(used(one)),
      amount(one.spent, one.unit), amount(one.reserved, one.unit), amount(one.limit, one.unit), one.resets_at ? when(one.resets_at) : "–"]));
  }

  function drawKeys(list) {
    if (!list.length) return empty("No virtual keys", "Without one the gateway is open to whoever reaches it: ", h("code", {}, "tollgate keys create --name ci --budget 20/month"));
    const kinds = { active: "good", expired: "warn", disabled: "bad" };
    const limits = (key) => [...key.budgets.map((one) => `${one.usd === null ? `${short(one.tokens)} tokens` : usd(one.usd)} per ${one.rolling ? "rolling " : ""}${one.per}`),
      key.rpm && `${count(key.rpm)} calls/min`, key.tpm && `${short(key.tpm)} tokens/min`, key.concurrency && `${key.concurrency} at once`].filter(Boolean).join(", ");
    return table("Virtual keys", [["Name", ""], ["Team", ""], ["State", ""], ["Models", ""], ["Limits", ""], ["Expires", ""], ["", ""]], list.map((key) => [
      h("span", { class: "mono", title: `${key.id}, ${key.prefix}…` }, key.name), key.team ?? "–", badge(key.state, kinds[key.state]), h("span", { class: "mono" }, key.models.join(", ") || "none"),
      limits(key) || "–", key.expires_at ? when(key.expires_at) : "never",
      key.state === "active" ? h("div", { class: "actions" }, h("button", { type: "button", class: "danger", "aria-label": `Disable ${key.name}`, onclick: () => disable(key) }, "Disable")) : null]));
  }

  const disable = (key) => ask({ title: `Disable key ${key.name}?`, text: "For good, and with the keys made under it.", done: "Disable", danger: true,
    fields: [{ name: "reason", label: "Reason", maxlength: 500 }], act: (values) => post(`/api/keys/${encodeURIComponent(key.id)}/disable`, values) })
    .then((done) => { if (done) { say(`Key ${key.name} is disabled.`); load(); } });

  load();
  return { summary() { if (Date.now() - looked > EVERY) load(); }, again: load };
}
