// A choice of one run, with the figure that its validation ended at.
import { constant } from "../lib/api.js";
import { fill, fresh, h } from "../lib/dom.js";
import { score } from "../lib/text.js";

/** Runs that can answer. */
export const usable = async () => (await constant("v1/runs")).runs.filter((run) => run.usable);

function labelled({ name, validation }) {
  const [, ndcg] = Object.entries(validation).find(([key]) => key.toLowerCase() === "ndcg@10") ?? [];
  return ndcg === undefined ? name : `${name} · validation NDCG@10 ${score(ndcg)}`;
}

/** changed(name or ""). Returns {element, set(name)}. */
export function runChoice(label, changed) {
  const id = fresh("run");
  const select = h("select", { id, on: { change: () => changed(select.value) } });
  let wanted = "";
  usable().then((runs) => {
    const served = runs.find((run) => run.served);
    fill(select, h("option", { value: "" }, served ? `the usual: ${served.name}` : "the usual"),
      runs.map((run) => h("option", { value: run.name }, labelled(run))));
    select.value = wanted;
  }, () => fill(select, h("option", { value: "" }, "none")));
  return {
    element: h("div", { class: "field" }, h("label", { class: "label", for: id }, label), select),
    set: (name) => { wanted = name; select.value = name; },
  };
}
