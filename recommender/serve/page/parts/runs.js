// Choices of a run, with the figure that its validation ended at.
import { constant } from "../lib/api.js";
import { fill, fresh, h } from "../lib/dom.js";
import { score } from "../lib/text.js";

/** Runs of a kind that can answer: "sequential", which recommend, or "msr", which re-rank. */
export const usable = async (kind = "sequential") =>
  (await constant("v1/runs")).runs.filter((run) => run.usable && run.kind === kind);

function labelled({ name, validation }) {
  const [, ndcg] = Object.entries(validation).find(([key]) => key.toLowerCase() === "ndcg@10") ?? [];
  return ndcg === undefined ? name : `${name} · validation NDCG@10 ${score(ndcg)}`;
}

/** The run that recommends. changed(name, or "" for the usual one). Returns {element, set(name)}. */
export function runChoice(changed) {
  return choice("Run", usable(), changed, (runs) => {
    const served = runs.find((run) => run.served);
    return served ? `the usual: ${served.name}` : "the usual";
  });
}

/** The run that re-ranks; not shown where there is none. */
export function rerankChoice(changed) {
  const made = choice("Re-ranked by", usable("msr"), changed, () => "nothing");
  made.element.hidden = true;
  usable("msr").then((runs) => { made.element.hidden = !runs.length; }, () => { /* the other choice says it */ });
  return made;
}

function choice(label, asked, changed, usual) {
  const id = fresh("run");
  const select = h("select", { id, on: { change: () => changed(select.value) } });
  let wanted = "";
  asked.then((runs) => {
    fill(select, h("option", { value: "" }, usual(runs)),
      runs.map((run) => h("option", { value: run.name }, labelled(run))));
    select.value = wanted;
  }, () => fill(select, h("option", { value: "" }, "none")));
  return {
    element: h("div", { class: "field" }, h("label", { class: "label", for: id }, label), select),
    set: (name) => { wanted = name; select.value = name; },
  };
}
