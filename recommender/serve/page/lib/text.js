// Numbers, names and times as people read them.
const whole = new Intl.NumberFormat("en");
const day = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeZone: "UTC" });
const moment = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });

export const count = (number, one, many = `${one}s`) => `${whole.format(number)} ${number === 1 ? one : many}`;
export const grouped = (number) => whole.format(number);

/** A score: 0.4796, 12.31. */
export function score(value) {
  if (typeof value !== "number") return "–";
  const size = Math.abs(value);
  return value.toFixed(size < 0.1 ? 4 : size < 10 ? 3 : 2);
}

/** Any value of a column, short. */
export function shown(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "number") return String(Number.isInteger(value) ? value : Number(value.toPrecision(6)));
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.map(shown).join(", ");
  if (typeof value === "object") return Object.entries(value).map(([key, one]) => `${key} ${shown(one)}`).join(", ");
  return String(value);
}

/** A day, of a time in ISO 8601 or seconds since 1970. */
export function date(value) {
  const at = typeof value === "number" ? new Date(value * 1000) : new Date(value);
  return Number.isNaN(at.getTime()) ? "" : day.format(at);
}

export function time(value) {
  const at = new Date(value);
  return Number.isNaN(at.getTime()) ? String(value) : moment.format(at);
}

/** Letters that stand for an item without a picture. */
export function initials(title) {
  const words = title.replace(/[^\p{L}\p{N} ]/gu, " ").split(/\s+/).filter(Boolean);
  const chosen = words.filter((word) => !["the", "a", "an", "of", "and"].includes(word.toLowerCase()));
  return (chosen.length ? chosen : words).slice(0, 2).map((word) => [...word][0]).join("").toUpperCase() || "?";
}

/** A whole number from 0 below `n` that a text always has. */
export function hashed(text, n) {
  let value = 2166136261;
  for (const letter of text) value = Math.imul(value ^ letter.codePointAt(0), 16777619);
  return (value >>> 0) % n;
}

const SHORT = 48; // letters up to which a text is read at a glance
const NAME = 80; // letters of a name that is made of a text

/** The longest text of an item, "" where all are short. */
export function longest({ attributes }) {
  const texts = Object.values(attributes ?? {}).filter((value) => typeof value === "string" && value.length > SHORT);
  return texts.sort((one, other) => other.length - one.length)[0] ?? "";
}

/** What an item is called: its title, else how its longest text begins, else its id. */
export function named(item) {
  if (item.title) return item.title;
  const text = longest(item);
  return text.length > NAME ? `${text.slice(0, text.lastIndexOf(" ", NAME) + 1 || NAME).trim()} …` : text || item.id;
}
