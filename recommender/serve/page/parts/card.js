// Items as cards: a link to what is similar, with like and unlike, and how the score came about.
import { add, h, icon } from "../lib/dom.js";
import { link } from "../lib/router.js";
import { longest, named, score, shown } from "../lib/text.js";
import { picture } from "./picture.js";

/**
 * One item as a card.
 * options.href: where the picture leads, by default to similar items. parts: [{feature, value, hue}] of the score.
 * badge: {text, both}. like, unlike: what the two buttons do; without them there are none. note: below the facts.
 */
export function card(item, { href, parts, badge, like, unlike, note } = {}) {
  const title = named(item);
  const main = h("a", { href: href ?? link("search", "", { like: item.id }), "data-card": item.id },
    h("span", { class: "frame" }, picture(item),
      badge && h("span", { class: `badge${badge.both ? " both" : ""}` }, badge.text)),
    h("span", { class: "title" }, title),
    h("span", { class: "excerpt" }, item.title ? longest(item).slice(0, EXCERPT) : ""),
    h("span", { class: "visually-hidden" }, ", similar items"));
  const acts = (like || unlike) && h("div", { class: "acts" },
    like && act("plus", `More like ${title}`, () => like(item)),
    unlike && act("minus", `Less like ${title}`, () => unlike(item)));
  return h("article", { class: "card", "data-id": item.id },
    main, acts, h("p", { class: "facts" }, facts(item)), note,
    h("div", { class: "foot" },
      scored(item, parts),
      parts?.length > 1 && !item.explain?.vector_rank && bar(parts),
      h("a", { class: "details", href: link("item", item.id), "aria-label": `Details of ${title}` }, "Details")));
}

/** The score; of two fused rankings the rank in each, and of a re-ranking run its chance of a yes. */
function scored(item, parts) {
  const { vector_rank: meaning, keyword_rank: words } = item.explain ?? {};
  if (typeof item.p_yes === "number") {
    return h("span", { class: "score", title: "Chance of a yes" }, `yes ${score(item.p_yes)}`);
  }
  if (meaning === undefined && words === undefined) {
    return typeof item.score === "number" && h("span", { class: "score", title: told(parts) }, score(item.score));
  }
  const text = [meaning && `meaning ${meaning}`, words && `words ${words}`].filter(Boolean).join(" · ");
  return h("span", { class: "score", title: "Rank by meaning, and by words" }, text);
}

const act = (sign, label, done) =>
  h("button", { type: "button", title: label, "aria-label": label, on: { click: done } }, icon(sign));

const SHORT = 48;
const EXCERPT = 240; // letters, which cards show in a catalogue without pictures

/** The first attributes that are short enough to be read at a glance. */
export function facts(item) {
  return Object.entries(item.attributes ?? {})
    .filter(([, value]) => value !== null && value !== "")
    .map(([, value]) => shown(value).replaceAll("|", ", "))
    .filter((text) => text.length <= SHORT && text !== "–")
    .slice(0, 2).join(" · ");
}

/** Shares of a score by feature; negative parts have no width. */
function bar(parts) {
  const total = parts.reduce((sum, part) => sum + Math.max(part.value ?? 0, 0), 0) || 1;
  return h("span", { class: "parts", title: told(parts), role: "img", "aria-label": told(parts) },
    parts.map((part) => h("span",
      { style: { "--hue": part.hue, "--share": `${(100 * Math.max(part.value ?? 0, 0)) / total}%` } })));
}

const told = (parts) => parts?.map((part) => `${part.feature} ${score(part.value)}`).join(", ") || null;

/** Cards in a grid through which the arrow keys go. */
export function grid(cards, { kind = "grid", label } = {}) {
  return add(h("div", { class: kind, role: "group", "aria-label": label, "data-arrows": "" }), cards);
}
