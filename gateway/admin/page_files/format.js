// Numbers and times for people. Unknown is said, never zero.

export function usd(value) {
  if (value === null || value === undefined) return "unknown";
  const size = Math.abs(value);
  if (value > 0 && value < 5e-6) return "< $0.00001";
  const digits = size === 0 ? 2 : size < 0.01 ? 5 : size < 1 ? 4 : size < 1000 ? 2 : 0;
  return `${value < 0 ? "−" : ""}$${size.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
}

export const count = (value) => Math.round(value).toLocaleString("en");

export const some = (value, what) => `${short(value)} ${what}${value === 1 ? "" : "s"}`;
export const calls = (value) => some(value, "call");

export function short(value) {
  for (const [limit, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (value >= limit) {
      const scaled = value / (unit === "k" ? 1e3 : limit);
      return `${scaled.toFixed(scaled < 10 ? 2 : scaled < 100 ? 1 : 0)}${unit}`;
    }
  }
  return count(value);
}

export const percent = (share, digits = 0) => share === null ? "–" : `${(share * 100).toFixed(digits)} %`;

export function span(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60e3) return `${(ms / 1000).toFixed(ms < 10e3 ? 2 : 1)} s`;
  if (ms < 3600e3) return `${Math.floor(ms / 60e3)} min ${Math.floor((ms % 60e3) / 1000)} s`;
  if (ms < 86400e3) return `${Math.floor(ms / 3600e3)} h ${Math.floor((ms % 3600e3) / 60e3)} min`;
  return `${Math.floor(ms / 86400e3)} d ${Math.floor((ms % 86400e3) / 3600e3)} h`;
}

export const clock = (time) => new Date(time).toLocaleTimeString("en-GB");

/** The end of an hour or a day, which need not be one where the browser is. */
export function until(time) {
  const text = clock(time).slice(0, 5);
  return text === "00:00" ? "midnight" : text;
}

export function when(time) {
  const at = new Date(time), today = new Date();
  const day = at.toDateString() === today.toDateString() ? "" :
    at.toLocaleDateString("en-GB", { day: "numeric", month: "short" }) + " ";
  return day + at.toLocaleTimeString("en-GB");
}

/** An amount of an account, in its unit. */
export function amount(value, unit) {
  if (unit === "usd") return usd(value);
  if (unit === "seconds") return span(value * 1000);
  return `${short(value)} ${unit}`;
}
