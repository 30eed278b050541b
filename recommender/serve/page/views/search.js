// Search: words, pictures, items to be like and unlike; and the catalogue itself while nothing is asked.
import { constant, get, isCancelled, item as itemOf, post, Refused } from "../lib/api.js";
import { partsOf, readAnswer } from "../lib/answers.js";
import { announce, debounced, fill, h, icon } from "../lib/dom.js";
import { dropped } from "../lib/dropped.js";
import { fromParams, isAsked, toBody, toLink, withItem, withoutItem } from "../lib/query.js";
import { go, link } from "../lib/router.js";
import { count, grouped, named } from "../lib/text.js";
import { card, grid } from "../parts/card.js";
import { bones, failure, nothing, wrong } from "../parts/notice.js";
import { thumb } from "../parts/picture.js";
import { searchbar } from "../parts/searchbar.js";
import { tuning } from "../parts/tuning.js";

const PAGE = 48;

export function create() {
  let query = null;
  let name = ""; // of the one item that is asked for
  let panel = null;
  let features = [];
  let asking = new AbortController();
  const chips = h("div", { class: "chips" });
  const said = h("div", { class: "slot" });
  const aside = h("aside", { class: "aside", "aria-label": "Tune the search" });
  const results = h("section", { "aria-label": "Results" }, bones());
  const change = (part, { replace = false } = {}) => go(toLink({ ...query, page: 0, ...part }), { replace });
  const bar = searchbar({
    submitted: (q) => { fill(said); change({ q }); },
    pictured: (mark) => { fill(said); change({ picture: mark }); },
    wrong: (message) => fill(said, h("p", { class: "wrong", role: "alert" }, message)),
  });
  const cease = bar.listen();
  const whileMoving = debounced((part) => change(part, { replace: true }), 140);

  async function prepare() {
    const about = await constant("v1/features");
    const searchable = about.features.filter((feature) => feature.searchable);
    features = searchable.map((feature) => feature.name);
    if (searchable.some((feature) => feature.asked_by.includes("picture"))) bar.takesPictures();
    panel = tuning(searchable, (part, done) => {
      whileMoving.cancel();
      if (done) change(part);
      else whileMoving(part);
    });
    fill(aside, panel.element);
  }

  const side = (which) => (item) => go(toLink(withItem(query, item.id, which)));

  async function update(route) {
    if (!panel) await prepare();
    const before = query;
    query = fromParams(route.params);
    bar.set(query.q);
    panel.set(query);
    const naming = query.like.length === 1
      ? itemOf(query.like[0]).then((item) => { name = named(item); }, () => { name = ""; }) : null;
    drawChips();
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    if (before && toLink(before) !== toLink(query)) results.classList.add("waiting");
    fill(panel.wrong);
    try {
      const drawn = isAsked(query) ? await answered(signal) : await catalogue(signal);
      await naming;
      if (signal.aborted) return;
      const focused = results.contains(document.activeElement);
      fill(results, drawn());
      if (focused) results.querySelector("h1, h2")?.focus();
      document.title = `${titleOf(query, name) || "Catalogue"} · Dualview`;
    } catch (error) {
      if (isCancelled(error)) return;
      if (ofWeights(error)) fill(panel.wrong, wrong(error));
      fill(results, failure(error, { again: () => update(route), level: "h1" }));
    }
    results.classList.remove("waiting");
  }

  async function answered(signal) {
    const picture = query.picture && dropped(query.picture);
    if (query.picture && !picture) {
      return () => nothing("The picture is not here",
        "This address asks with a picture that was dropped on another page. Drop it here, or ask without it.",
        { level: "h1", sign: "picture", action: h("a", { class: "button", href: toLink({ ...query, picture: null }) },
          "Ask without it") });
    }
    const answer = readAnswer(picture ? await byPicture(picture.file, signal)
      : await post("v1/similar", toBody(query), signal));
    panel.used(query, answer.used);
    if (!answer.items.length) {
      announce("No items");
      return () => [head(answer), nothing("Nothing found", answer.notes.join(" ") || "No item answers this.", {
        action: query.where && h("button",
          { class: "button", type: "button", on: { click: () => change({ where: "" }) } }, "Without the filter") })];
    }
    announce(`${answer.items.length} items`);
    const cards = answer.items.map((item, at) => card(item, {
      badge: { text: String(at + 1) }, parts: partsOf(item, features), like: side("like"), unlike: side("unlike"),
    }));
    return () => [head(answer), grid(cards, { label: "Results" })];
  }

  function byPicture(file, signal) {
    const form = new FormData();
    form.append("image", file);
    form.append("options", JSON.stringify(toBody(query, { pictured: true })));
    return post("v1/similar/image", form, signal);
  }

  const head = (answer) => h("div", { class: "view-head" },
    h("h1", { tabindex: "-1" }, titleOf(query, name)),
    h("div", { class: "row push" },
      query.like.length === 1 && h("a", { class: "button slim", href: link("item", query.like[0]) }, "Details"),
      !query.picture && h("a", { class: "button slim",
        href: link("compare", "", { like: query.like, q: query.q, where: query.where }) }, icon("compare"),
          "Compare")),
    h("p", { class: "told" }, answer.told),
    answer.items.length > 0 && answer.notes.map((note) => h("p", { class: "told" }, note)));

  async function catalogue(signal) {
    const found = await get("v1/items", { where: query.where.trim(), offset: query.page * PAGE, limit: PAGE },
      signal);
    panel.used(query, {});
    if (!found.items.length) {
      return () => (query.where
        ? nothing("No item satisfies the filter", "Widen it, or take it away.", { level: "h1" })
        : nothing("The catalogue is empty", "Ingest items, then publish a release.", { level: "h1" }));
    }
    const cards = found.items.map((item) => card(item, { like: side("like") }));
    const start = query.page * PAGE;
    return () => [
      h("div", { class: "view-head" }, h("h1", { tabindex: "-1" }, "The catalogue"),
        h("button", { class: "button slim push", type: "button", on: { click: () => surprise(found.total) } },
          icon("shuffle"), "Any item"),
        h("p", {}, `${count(found.total, "item")}${query.where ? " that satisfy the filter" : ""}. `,
          "Search above, or choose one to see what is similar to it.")),
      grid(cards, { label: "Items" }), pages(start, found.items.length, found.total)];
  }

  async function surprise(total) {
    const found = await get("v1/items", { where: query.where.trim(), offset: Math.floor(Math.random() * total),
      limit: 1 });
    if (found.items[0]) go(toLink({ ...query, page: 0, like: [found.items[0].id] }));
  }

  function pages(start, here, total) {
    if (total <= PAGE) return null;
    const step = (label, page, on) => (on
      ? h("a", { class: "button slim", href: toLink({ ...query, page }) }, label)
      : h("span", { class: "button slim", "aria-disabled": "true" }, label));
    return h("nav", { class: "pages", "aria-label": "Pages" }, step("Before", query.page - 1, query.page > 0),
      h("span", { class: "told" }, `${grouped(start + 1)} to ${grouped(start + here)} of ${grouped(total)}`),
      step("Next", query.page + 1, start + here < total));
  }

  function drawChips() {
    const picture = query.picture && dropped(query.picture);
    fill(chips,
      picture && chip({ sign: "like the picture", name: picture.name,
        image: h("span", { class: "thumb" }, h("img", { src: picture.address, alt: "" })),
          remove: () => change({ picture: null }) }),
      query.like.map((id) => itemChip(id, "like")), query.unlike.map((id) => itemChip(id, "unlike")));
    chips.hidden = !chips.childElementCount;
  }

  function itemChip(id, kind) {
    const place = h("span", { class: "thumb" });
    const name = h("span", { class: "name" }, id);
    itemOf(id).then((item) => {
      fill(place, ...thumb(item).childNodes);
      name.textContent = named(item);
    }, () => { /* the answer says what is wrong with the id */ });
    return chip({ sign: kind, image: place, name, kind, remove: () => go(toLink(withoutItem(query, id))) });
  }

  return {
    element: h("div", { class: "stack search" }, h("h2", { class: "visually-hidden" }, "Search"), bar.element, said,
      chips, h("div", { class: "split" }, aside, results)),
    update,
    destroy() { cease(); asking.abort(); whileMoving.cancel(); },
  };
}

function chip({ sign, name, image, kind = "", remove }) {
  return h("div", { class: `chip ${kind}` }, image,
    h("span", {}, h("span", { class: "sign" }, sign),
      typeof name === "string" ? h("span", { class: "name" }, name) : name),
    h("button", { class: "icon-only", type: "button", "aria-label": "Take away", on: { click: remove } },
      icon("close")));
}

/** The question in words. name: of the item, where it is one. */
function titleOf(query, name) {
  const words = query.q.trim() && `“${query.q.trim()}”`;
  const items = query.like.length > 0
    && `like ${query.like.length === 1 && name ? name : count(query.like.length, "item")}`;
  const question = [words, query.picture && "like the picture", items].filter(Boolean).join(", ");
  const less = query.unlike.length
    ? `, not like ${query.unlike.length === 1 ? "another" : `${query.unlike.length} others`}` : "";
  return question && question[0].toUpperCase() + question.slice(1) + less;
}

/** Whether it is the weights, and not the words or the filter, that cannot be asked so. */
const ofWeights = (error) => error instanceof Refused && /feature|weight|vector/.test(error.message)
  && !/filter/.test(error.message);
