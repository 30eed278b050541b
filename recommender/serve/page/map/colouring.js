// The colour of each point, by a column of groups or of numbers.
import { between, packed } from "./painter.js";

/** Nine groups that can be told apart, "other" and "none", light and dark. Values of points are never text. */
const GROUPS = {
  light: ["#1c7a6c", "#c9700a", "#4a5cc4", "#b0418f", "#7d8a12", "#c0392f", "#2a86b0", "#8b6544", "#7a52c0"],
  dark: ["#58c2af", "#f0a94c", "#8f9ff5", "#e58bd2", "#bccb5a", "#f47f77", "#6cbfe8", "#c9ac92", "#b795f5"],
};
const QUIET = { light: "#c3c0b7", dark: "#454d5a" };
const SCALE = { light: ["#d9d3a2", "#3f9a86", "#2b2f77"], dark: ["#3a3f8f", "#3fa08c", "#f1e8a6"] };

const themed = (of) => of[document.documentElement.dataset.theme === "dark" ? "dark" : "light"];
export const groupColours = () => themed(GROUPS);
export const quiet = () => themed(QUIET);
export const scaleColours = () => themed(SCALE);

/**
 * {colours, order, allowed, sheer} for a board. told: the service's answer on a column, or null for one colour. only: the
 * group that is looked at, or null.
 */
export function colouring(n, told, only = null) {
  const colours = new Uint32Array(n);
  const all = Uint32Array.from({ length: n }, (_, at) => at);
  const faint = packed(quiet());
  if (!told) {
    colours.fill(packed(groupColours()[0]));
    return { colours, order: all, allowed: () => true, sheer: true };
  }
  if (told.codes) {
    const tones = groupColours().map(packed);
    const named = (code) => code >= 0 && code < told.groups.length;
    const front = (at) => (only === null ? named(told.codes[at]) : told.codes[at] === only);
    told.codes.forEach((code, at) => { colours[at] = front(at) ? tones[code] : faint; });
    return { colours, order: layered(all, front), allowed: only === null ? () => true : front };
  }
  const stops = scaleColours().map(packed);
  const span = told.greatest - told.least || 1;
  told.values.forEach((value, at) => {
    colours[at] = value === null ? faint : between(stops, (value - told.least) / span);
  });
  return { colours, order: layered(all, (at) => told.values[at] !== null), allowed: () => true };
}

/** Those in front last; groups stay mixed, so that none covers another. */
function layered(all, front) {
  const behind = all.filter((at) => !front(at));
  const order = new Uint32Array(all.length);
  order.set(behind);
  order.set(all.filter(front), behind.length);
  return order;
}
