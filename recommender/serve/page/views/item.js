// One item: its picture and columns, what models wrote of it, its neighbours by each feature, where it comes from.
import { constant, get, item as itemOf, itemPath, post } from "../lib/api.js";
import { readAnswer } from "../lib/answers.js";
import { fill, h, icon } from "../lib/dom.js";
import { link } from "../lib/router.js";
import { named, shown } from "../lib/text.js";
import { card, grid } from "../parts/card.js";
import { bones, failure } from "../parts/notice.js";
import { picture } from "../parts/picture.js";
import { tree } from "../parts/tree.js";
import { hueOf } from "../parts/weights.js";

const NEAR = 12;
const FOLDED = 700; // from which it is folded
const LONG = 90; // letters from which a text is a paragraph

export function create() {
  const element = h("div", { class: "item" }, bones(4));
  async function update({ name }) {
    const [item, about] = await Promise.all([itemOf(name), constant("v1/features")]);
    document.title = `${named(item)} · Dualview`;
    const features = about.features.filter((feature) => feature.searchable).map((feature) => feature.name);
    fill(element, top(item), neighbours(item, features), lineage(item));
  }
  return { element, update };
}

function top(item) {
  const attributes = Object.entries(item.attributes ?? {});
  const long = attributes.filter(([, value]) => isLong(value));
  const short = attributes.filter(([, value]) => !isLong(value) && value !== null && value !== "");
  const descriptions = Object.entries(item.texts);
  return h("div", { class: "item-top" },
    h("div", { class: "item-picture" }, h("div", { class: "frame" },
      picture(item, { alt: named(item), eager: true, large: true }))),
    h("div", { class: "stack" },
      h("div", {}, h("p", { class: "told mono" }, item.id), h("h1", {}, named(item))),
      h("div", { class: "row" },
        h("a", { class: "button primary", href: link("search", "", { like: item.id }) }, "Similar items"),
        h("a", { class: "button", href: link("compare", "", { like: item.id }) }, icon("compare"),
          "Compare features"),
        h("a", { class: "button", href: link("map", "", { item: item.id }) }, icon("map"), "On the map")),
      short.length > 0 && h("dl", { class: "columns" },
        short.map(([name, value]) => h("div", {}, h("dt", {}, name),
          h("dd", {}, shown(value).replaceAll("|", ", "))))),
      long.map(([name, value]) => h("section", { class: "words" }, h("h2", {}, name), paragraph(shown(value)))),
      descriptions.length > 0 && h("section", { class: "words" }, h("h2", {}, "What models wrote of it"),
        h("dl", { class: "said" }, descriptions.map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])))));
}

/** A text of many lines shows its beginning, and all of it when asked. */
function paragraph(text) {
  const words = h("p", {}, text);
  if (text.length < FOLDED) return words;
  words.classList.add("folded");
  const more = h("button", { class: "plain", type: "button", "aria-expanded": "false", on: { click: () => {
    const open = words.classList.toggle("folded");
    more.textContent = open ? "Read all of it" : "Less";
    more.setAttribute("aria-expanded", String(!open));
  } } }, "Read all of it");
  return [words, more];
}

const isLong = (value) => typeof value === "string" && value.length > LONG;

/** A shelf for each feature; a feature without this item says why. */
function neighbours(item, features) {
  const shelves = features.map((feature) => {
    const place = h("div", { class: "slot" }, h("p", { class: "told" }, "…"));
    post("v1/similar", { items: [item.id], features: { [feature]: 1 }, k: NEAR }).then(readAnswer).then(
      (answer) => fill(place, grid(answer.items.map((one) => card(one)),
        { kind: "shelf", label: `Nearest by ${feature}` })),
      (error) => fill(place, h("p", { class: "told" }, error.message)));
    return h("section", { class: "near" }, h("h3", { class: "row" },
      h("span", { class: "dot", style: { "--hue": hueOf(features, feature) } }), feature,
      h("a", { class: "small push", href: link("search", "", { like: item.id, f: `${feature}:1` }) }, "All of them")),
        place);
  });
  return h("section", { class: "block" }, h("h2", {}, "Nearest by each feature"), shelves);
}

function lineage(item) {
  const place = h("div", { class: "panel" }, h("p", { class: "told" }, "Following it back …"));
  get(`${itemPath(item.id)}/lineage`).then(
    (found) => fill(place, tree(found.lineage)),
    (error) => fill(place, failure(error)));
  return h("section", { class: "block" }, h("h2", {}, "Where it comes from"),
    h("p", { class: "soft small" }, "From source file over picture and recipe to vector, release and run."), place);
}
