// Elements from names, properties and children. Text is text: nothing here, or anywhere, makes markup of a string.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, each] of Object.entries(value)) element.style.setProperty(key, each);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

export const h = (name, properties, ...children) => fill(document.createElement(name), properties, children);
export const svg = (name, properties, ...children) => fill(document.createElementNS(SVG, name), properties, children);

const drawn = new WeakMap();
const MARKS = ["id", "aria-label", "href"], SCROLLED = "[aria-label][tabindex='0']";

/** Other children in place of those that are there. What has the focus, or was scrolled, is found again by its name. */
export function put(element, ...children) {
  const held = element.contains(document.activeElement) && element !== document.activeElement ? document.activeElement : null;
  const mark = held && MARKS.map((name) => [name, held.getAttribute(name)]).find(([, value]) => value);
  const places = new Map([...element.querySelectorAll(SCROLLED)].map((one) => [one.getAttribute("aria-label"), [one.scrollLeft, one.scrollTop]]));
  drawn.delete(element);
  element.replaceChildren();
  append(element, children);
  for (const one of places.size ? element.querySelectorAll(SCROLLED) : []) [one.scrollLeft, one.scrollTop] = places.get(one.getAttribute("aria-label")) ?? [0, 0];
  if (mark) [...element.querySelectorAll(`[${mark[0]}]`)].find((one) => one.getAttribute(mark[0]) === mark[1])?.focus({ preventScroll: true });
  return element;
}

/** Draw only where the data differ from those drawn before: what is read or marked stays. */
export function renew(element, data, make) {
  const text = JSON.stringify(data);
  if (drawn.get(element) === text) return;
  put(element, make());
  drawn.set(element, text);
}

export const badge = (text, kind = "", title = null) => h("span", { class: `badge ${kind}`, title }, text);

export function card(title, body, ...end) {
  return h("section", { class: "card", "aria-label": title },
    h("div", { class: "head" }, h("h2", {}, title), end.length ? h("div", { class: "end" }, end) : null), body);
}

export const empty = (title, ...text) => h("div", { class: "empty" }, h("strong", {}, title), text);

/** A table; `columns` are [name, kind] pairs, `rows` arrays of cells. */
export function table(label, columns, rows) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, h("table", {},
    h("thead", {}, h("tr", {}, columns.map(([name, kind]) => h("th", { class: kind, scope: "col" },
      name || h("span", { class: "out" }, "Actions"))))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, n) => h("td", { class: columns[n][1] }, cell)))))));
}

/** A bar of a share; what is reserved stands behind what is spent. */
export function meter(label, spent, reserved, limit) {
  const share = limit > 0 ? (spent + reserved) / limit : 0;
  const kind = share >= 1 ? "bad" : share >= 0.8 ? "warn" : "";
  const width = (part) => `${Math.min(100, Math.max(0, limit > 0 ? (part / limit) * 100 : 0))}%`;
  return h("div", { class: `meter ${kind}`, role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100,
    "aria-valuenow": Math.round(Math.min(1, share) * 100) },
  h("span", { class: "held", style: { width: width(spent + reserved) } }), h("span", { style: { width: width(spent) } }));
}
