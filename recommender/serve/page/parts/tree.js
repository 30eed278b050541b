// A lineage as a tree that opens and closes.
import { h } from "../lib/dom.js";
import { shown, time } from "../lib/text.js";

const NAMES = { picture: "Picture", ingest: "Ingest", feature: "Feature", recipe: "Recipe", release: "Release",
  run: "Run", item: "Item" };
const OWN = new Set(["kind", "name", "below", "facts"]);
const TIME = /^\d{4}-\d\d-\d\dT/;
const HASH = /^[0-9a-f]{32,64}$/;

/** node: {kind, name, ...facts, below: [nodes]} as `dualview trace --json` gives it. */
export function tree(node) {
  return h("ul", { class: "tree" }, (node.below ?? [node]).map((below) => branch(below, 0)));
}

function branch(node, depth) {
  const facts = Object.entries({ ...node, ...node.facts }).filter(([key, value]) => !OWN.has(key) && value !== null
    && value !== "");
  const summary = h("summary", {}, h("span", { class: "kind" }, NAMES[node.kind] ?? node.kind), " ",
    h("span", { class: "mono" }, TIME.test(node.name) ? time(node.name) : node.name), " ", hint(node));
  const list = facts.length > 0
    && h("dl", {}, facts.map(([key, value]) => [h("dt", {}, key), h("dd", {}, fact(value))]));
  const below = node.below?.length > 0 && h("ul", {}, node.below.map((one) => branch(one, depth + 1)));
  return h("li", {}, h("details", { open: depth > 0 && depth < 2 && node.kind === "feature" }, summary, list, below));
}

/** What is worth reading without opening: a state, an encoder, a date. */
function hint(node) {
  const facts = { ...node, ...node.facts };
  const text = facts["made by"] ?? facts.state ?? facts.what ?? facts.created ?? "";
  return text && h("span", { class: "soft small" }, TIME.test(text) ? time(text) : shown(text));
}

function fact(value) {
  if (typeof value === "string" && HASH.test(value)) return h("code", { title: value }, `${value.slice(0, 12)}…`);
  if (value && typeof value === "object" && !Array.isArray(value)) {
    return h("dl", { class: "inner" }, Object.entries(value).map(([key, one]) =>
      [h("dt", {}, key), h("dd", {}, fact(one))]));
  }
  return shown(value);
}
