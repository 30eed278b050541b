// A choice of one run, with its validation figure.
import { constant } from "../lib/api.js";
import { fill, fresh, h } from "../lib/dom.js";

const usual = (runs) =>
  `the usual${runs.some((run) => run.served) ? `: ${runs.find((run) => run.served).name}` : ""}`;

/** changed(name or ""). Returns {element, set(name), ready}: ready has the runs' names. */
export function runChoice(label, changed) {
  const id = fresh("run");
  const select = h("select", { id, on: { change: () => changed(select.value) } });
  let wanted = "";
  const ready = constant("v1/runs").then(({ runs }) => {
    fill(select, h("option", { value: "" }, usual(runs)),
      runs.map((run) => h("option", { value: run.name }, run.name)));
    select.value = wanted;
    return runs;
  });
  ready.catch(() => fill(select, h("option", { value: "" }, "none")));
  return {
    element: h("div", { class: "field" }, h("label", { class: "label", for: id }, label), select),
    ready,
    set: (name) => { wanted = name; select.value = name; },
  };
}
