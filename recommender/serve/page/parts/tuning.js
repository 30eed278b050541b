// The panel beside the results: weights, mode, filter, diversity, how many.
import { fresh, h, icon } from "../lib/dom.js";
import { GREATEST_K, isAsked, modeOf } from "../lib/query.js";
import { filter } from "./filter.js";
import { weights } from "./weights.js";

const MODES = [["hybrid", "Both"], ["vector", "Meaning"], ["keyword", "Words"]];

/**
 * features: as the service tells of them. changed(part of a query, done).
 * Returns {element, set(query), used(query, weights that answered), wrong: where an error of the weights is shown}.
 */
export function tuning(features, changed) {
  const sliders = weights(features.map((one) => one.name), (asked, done) => changed({ weights: asked }, done));
  const where = filter((text) => changed({ where: text, page: 0 }, true));
  const mode = segments("Search by", MODES, (value) => changed({ mode: value }, true));
  const diversity = range("Variety", { max: 1, step: 0.05, told: (value) => (value ? value.toFixed(2) : "off") },
    (value, done) => changed({ diversity: value }, done));
  const number = range("Results", { min: 4, max: GREATEST_K, step: 4, told: String },
    (value, done) => changed({ k: value }, done));
  const element = h("details", { class: "tuning panel" },
    h("summary", {}, icon("tune"), "Tune"),
    h("div", { class: "stack" }, sliders.element, mode.element, where.element, diversity.element, number.element));
  /** A feature can be asked with items, and with words or a picture where its model reads such. */
  const able = (query) => (name) => {
    if (query.like.length || !(query.q.trim() || query.picture)) return true;
    const { asked_by: by } = features.find((one) => one.name === name);
    return (Boolean(query.q.trim()) && by.includes("text")) || (Boolean(query.picture) && by.includes("picture"));
  };
  const wide = matchMedia("(min-width: 901px)");
  element.open = wide.matches;
  wide.addEventListener("change", () => { element.open = wide.matches; });
  return {
    element, wrong: sliders.wrong,
    set(query) {
      sliders.set(query.weights, undefined, able(query));
      where.set(query.where);
      mode.set(modeOf(query));
      mode.disable("keyword", query.like.length + query.unlike.length > 0); // words alone compare no items
      mode.element.hidden = !query.q.trim();
      const byWords = Boolean(query.q.trim()) && modeOf(query) === "keyword";
      for (const one of [sliders, diversity]) one.element.hidden = !isAsked(query) || byWords;
      number.element.hidden = !isAsked(query);
      diversity.set(query.diversity);
      number.set(query.k);
    },
    used: (query, found) => sliders.set(query.weights, found, able(query)),
  };
}

/** A choice of a few. choices: [[value, label]]. Returns {element, set(value), disable(value, whether)}. */
export function segments(label, choices, changed) {
  const name = fresh("choice");
  const inputs = choices.map(([value, text]) => {
    const input = h("input", { type: "radio", name, value });
    input.addEventListener("change", () => changed(value));
    return { input, element: h("label", {}, input, text) };
  });
  return {
    element: h("fieldset", { class: "field bare" }, h("legend", { class: "label" }, label),
      h("div", { class: "segments" }, inputs.map((one) => one.element))),
    set: (value) => inputs.forEach(({ input }) => { input.checked = input.value === value; }),
    disable: (value, off) => inputs.forEach(({ input }) => { if (input.value === value) input.disabled = off; }),
  };
}

function range(label, { min = 0, max, step, told }, moved) {
  const id = fresh("range");
  const input = h("input", { type: "range", id, min, max, step });
  const output = h("output", { class: "soft number", for: id });
  const show = (value) => {
    input.value = value;
    input.style.setProperty("--at", `${(100 * (value - min)) / (max - min)}%`);
    output.textContent = told(value);
  };
  input.addEventListener("input", () => { show(Number(input.value)); moved(Number(input.value), false); });
  input.addEventListener("change", () => moved(Number(input.value), true));
  return {
    element: h("div", { class: "field tight" }, h("label", { class: "label", for: id }, label, output), input),
    set: (value) => { if (document.activeElement !== input || Number(input.value) !== value) show(value); },
  };
}
