// Questions, sheets and short messages. The browser's own dialogs keep the focus and end with Escape.

import { h } from "./dom.js";

/** Ask; `fields` are {name, label, type, value, ...}. `act` gets the values and may throw: it is said, and asked again.
 *  Resolves to what `act` returned, or null where it was called off. */
export function ask({ title, text, fields = [], done = "OK", danger = false, act = (values) => values }) {
  return new Promise((resolve) => {
    const error = h("p", { class: "error", role: "alert" });
    const inputs = fields.map((field) => h("input", { name: field.name, type: field.type ?? "text", value: field.value,
      step: field.step, min: field.min, maxlength: field.maxlength, required: field.required, autocomplete: "off", placeholder: field.placeholder }));
    const go = h("button", { class: danger ? "danger" : "main", value: "go" }, done);
    const stop = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
    let result = null;
    const form = h("form", { method: "dialog", onsubmit: async (event) => {
      event.preventDefault();
      go.disabled = true;
      error.textContent = "";
      try {
        result = await act(Object.fromEntries(inputs.map((input) => [input.name, input.value.trim()])));
        dialog.close();
      } catch (problem) {
        error.textContent = problem.message;
      }
      go.disabled = false;
      if (dialog.open && !dialog.contains(document.activeElement)) go.focus(); // it lost the focus when it was disabled
    } }, h("h2", { id: "dialog-title" }, title), text ? h("p", {}, text) : null,
    fields.map((field, n) => h("label", {}, field.label, inputs[n])), error, h("div", { class: "actions" }, stop, go));
    const dialog = h("dialog", { "aria-labelledby": "dialog-title", onclose: () => { dialog.remove(); resolve(result); } }, form);
    document.body.append(dialog);
    dialog.showModal();
    (inputs[0] ?? stop).focus();
  });
}

export function sheet(title, ...body) {
  const dialog = h("dialog", { class: "sheet", "aria-labelledby": "dialog-title", onclose: () => dialog.remove() },
    h("form", { method: "dialog" }, h("h2", { id: "dialog-title" }, title), body,
      h("div", { class: "actions" }, h("button", { class: "main", autofocus: true }, "Close"))));
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

export function say(text) {
  const toast = h("div", { class: "toast" }, text);
  document.getElementById("toasts").append(toast);
  setTimeout(() => toast.remove(), 6000);
}
