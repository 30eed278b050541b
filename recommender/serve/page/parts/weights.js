// One slider a feature: how much its cosine counts.
import { h } from "../lib/dom.js";

/** The colour of each feature, the same wherever it is shown. */
export const hueOf = (features, name) => `var(--f${Math.max(features.indexOf(name), 0) % 8})`;

/**
 * Sliders. features: names. changed(weights or null, done): while a slider moves with done false, and when it stays.
 * Returns {element, set(weights, used)}: used, the features that answered where weights is null.
 */
export function weights(features, changed) {
  let asked = null;
  let used = {};
  const rows = features.map((name) => slider(name, hueOf(features, name), (value, done) => {
    asked = { ...(asked ?? Object.fromEntries(features.map((one) => [one, used[one] ?? 0]))), [name]: value };
    automatic.hidden = false;
    changed(asked, done);
  }));
  const automatic = h("button", { class: "plain", type: "button", hidden: true,
    on: { click: () => changed(null, true) } }, "Automatic");
  const wrong = h("div", { class: "slot" });
  const element = h("fieldset", { class: "field bare" },
    h("legend", { class: "label" }, h("span", {}, "Compare by"), automatic), rows.map((row) => row.element), wrong);
  return {
    element, wrong,
    /** able: whether a feature can read what is asked. */
    set(weightsAsked, featuresUsed, able = () => true) {
      asked = weightsAsked;
      used = featuresUsed ?? used;
      automatic.hidden = asked === null;
      const shown = asked ?? used;
      features.forEach((name, at) => rows[at].set(shown[name] ?? 0, able(name) || Boolean(asked?.[name])));
    },
  };
}

function slider(name, hue, moved) {
  const input = h("input", { type: "range", min: "0", max: "1", step: "0.05", "aria-label": `Weight of ${name}`,
    style: { "--hue": hue } });
  const output = h("output", {});
  const show = (value) => {
    input.value = value;
    input.style.setProperty("--at", `${100 * Math.min(value, 1)}%`);
    output.textContent = value ? Number(value).toFixed(2) : "off";
  };
  input.addEventListener("input", () => { show(Number(input.value)); moved(Number(input.value), false); });
  input.addEventListener("change", () => moved(Number(input.value), true));
  return {
    element: h("div", { class: "weight" },
      h("span", { class: "label" }, h("span", { class: "dot", style: { "--hue": hue } }), name, output), input),
    set(value, able) {
      if (document.activeElement !== input || Number(input.value) !== value) show(value);
      input.disabled = !able;
      if (!able) output.textContent = "cannot be asked so";
    },
  };
}
