// The admin API with the token, where one is set: it is kept for this tab alone. Events come by fetch, since an
// EventSource can send no token.

const KEY = "tollgate-token";
const RETRY = [0.5, 1, 2, 4, 8];
const SILENCE = 40e3; // the server says something every 15 seconds

let token = null;
try { token = sessionStorage.getItem(KEY); } catch { /* storage may be off */ }

let askForToken = async () => null;
export const onTokenNeeded = (ask) => { askForToken = ask; };
let asking = null, calledOff = false;

export class ApiError extends Error {
  constructor(status, code, detail) { super(detail); this.status = status; this.code = code; }
}

const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

/** `unasked`: for what nobody waits for, which asks once; what people do asks again. */
async function wantToken(unasked) {
  if (unasked && calledOff) return false;
  asking ??= askForToken(Boolean(token)).finally(() => { asking = null; });
  const given = await asking;
  calledOff = !given;
  if (!given) return false;
  token = given;
  try { sessionStorage.setItem(KEY, token); } catch { /* then for this page alone */ }
  return true;
}

async function send(path, options, unasked = false) {
  for (;;) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: { ...options.headers, ...headers() }, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "no_answer", "The gateway does not answer.");
    }
    if (response.ok) return response;
    if (response.status === 401 && await wantToken(unasked)) continue;
    const problem = await response.json().catch(() => ({}));
    throw new ApiError(response.status, problem.code ?? "error", problem.detail ?? `status ${response.status}`);
  }
}

export async function get(path, signal) {
  return (await send(path, { headers: {}, signal })).json();
}

export async function post(path, body) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ by: "live page", ...body }) };
  return (await send(path, options)).json();
}

/** Follow /api/events for ever. `told` takes (name, data), `changed` takes "on", or "off" with seconds to the next try and what was said. */
export async function follow(told, changed) {
  for (let failed = 0; ;) {
    const abort = new AbortController();
    let reason = "", timer = setTimeout(() => abort.abort(), SILENCE);
    try {
      const response = await send("/api/events", { headers: {}, signal: abort.signal }, true);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ""; ;) {
        const { done, value } = await reader.read();
        if (done) break;
        clearTimeout(timer);
        timer = setTimeout(() => abort.abort(), SILENCE);
        failed = 0;
        changed("on");
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) dispatch(block, told);
      }
    } catch (error) { reason = error.status ? error.message : ""; } // whatever it was: again
    clearTimeout(timer);
    const seconds = RETRY[Math.min(failed++, RETRY.length - 1)];
    changed("off", seconds, reason);
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
}

function dispatch(block, told) {
  let name = "message", data = "";
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data += line.slice(6);
  }
  if (data) told(name, JSON.parse(data));
}

export const runPath = (id) => `/api/runs/${encodeURIComponent(id)}`;
export const runLink = (id) => `#/run/${encodeURIComponent(id)}`;
