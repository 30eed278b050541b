// What a run recommends: a user's history, or one put together here, beside the answer and why.
import { get, isCancelled, item as itemOf, post } from "../lib/api.js";
import { readAnswer } from "../lib/answers.js";
import { announce, fill, h, icon } from "../lib/dom.js";
import { go, link } from "../lib/router.js";
import { count, date, grouped, named, score } from "../lib/text.js";
import { card, grid } from "../parts/card.js";
import { filter } from "../parts/filter.js";
import { bones, failure, nothing } from "../parts/notice.js";
import { thumb } from "../parts/picture.js";
import { rerankChoice, runChoice } from "../parts/runs.js";
import { userBox } from "../parts/suggest.js";

const K = 24;
const SHOWN = 60; // events of a history that are listed

export function create() {
  let asked = null;
  let asking = new AbortController();
  const change = (part) => go(toLink({ ...asked, ...part }));
  const users = userBox((user) => change({ user, history: [] }));
  const runs = runChoice((run) => change({ run }));
  const reranks = rerankChoice((rerank) => change({ rerank }));
  const where = filter((text) => change({ where: text }));
  const seen = h("input", { type: "checkbox", on: { change: () => change({ seen: seen.checked }) } });
  const past = h("section", { class: "past panel", "aria-label": "History" });
  const results = h("section", { "aria-label": "Recommendations" });
  const wide = matchMedia("(min-width: 901px)");
  const more = h("details", { class: "tuning", open: wide.matches }, h("summary", {}, icon("tune"), "Tune"),
    h("div", { class: "stack" }, runs.element, reranks.element, where.element,
      h("label", { class: "choice" }, seen, "Seen items too")));
  wide.addEventListener("change", () => { more.open = wide.matches; });

  async function update({ params, name }) {
    asked = {
      user: name, history: params.getAll("history"), run: params.get("run") ?? "", rerank: params.get("rerank") ?? "",
      where: params.get("where") ?? "", seen: params.get("seen") === "yes",
    };
    document.title = `${asked.user ? `For ${asked.user}` : "Recommend"} · Dualview`;
    users.set(asked.user);
    runs.set(asked.run);
    reranks.set(asked.rerank);
    where.set(asked.where);
    seen.checked = asked.seen;
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    if (!asked.user && !asked.history.length) return invite();
    results.classList.add("waiting");
    if (!results.childElementCount) fill(results, bones());
    const answer = recommended(asked, signal).then((found) => ({ found }), (error) => ({ error }));
    const taken = await historyOf(asked, signal).then((found) => ({ found }), (error) => ({ error }));
    if (signal.aborted) return undefined;
    if (taken.found) drawPast(taken.found);
    else fill(past);
    const { found, error } = await answer;
    if (signal.aborted || isCancelled(error)) return undefined;
    if (found) drawAnswer(found);
    else fill(results, failure(taken.error ?? error, { again: () => update({ params, name }), level: "h1" }));
    results.classList.remove("waiting");
    return undefined;
  }

  async function invite() {
    fill(past, h("h2", {}, "History"), h("p", { class: "told" }, "Choose a user, and what they took stands here."));
    fill(results, nothing("For whom?",
      "Choose a user above. Their history then stands beside what a trained model would recommend next, and why.",
        { sign: "user", level: "h1" }));
    const { users: some } = await get("v1/users", { limit: 8 });
    if (!asked.user) {
      results.firstElementChild.append(h("div", { class: "hints" }, some.map((user) =>
        h("a", { class: "button slim", href: toLink({ ...asked, user: user.id }) }, user.id)),
      h("button", { class: "button slim", type: "button",
        on: { click: async () => change({ user: await anyUser() }) } }, icon("shuffle"), "Any user")));
    }
  }

  function drawPast({ total, events }) {
    fill(past,
      h("div", { class: "row" }, h("h2", {}, "History"), h("span", { class: "told push" }, count(total, "event"))),
      asked.history.length > 0 && h("p", { class: "told" },
        "Put together here; take items away to see what changes."),
      h("div", { class: "lines", "data-arrows": "" }, events.slice(0, SHOWN).map(pastLine)),
      total > events.length && h("p", { class: "told" }, `and ${grouped(total - events.length)} earlier`),
      h("div", { class: "row" }, asked.user && h("button",
        { class: "button slim", type: "button",
          on: { click: () => change({ user: "",
            history: events.slice(0, 20).map((event) => event.id).reverse() }) } }, "Try another history")));
  }

  function pastLine(event) {
    const name = event.item ? named(event.item) : event.id;
    const title = h("span", { class: "title" }, name,
      event.item === null && h("span", { class: "told" }, " no longer in the catalogue"));
    const place = thumb(event.item ?? { id: event.id, title: event.id, picture: null });
    const line = h("a", { class: "line", href: link("item", event.id), "data-card": event.id, "data-id": event.id },
      place, title,
      h("span", { class: "when" }, event.time === null ? "" : date(event.time)));
    if (!asked.history.length) return line;
    const take = h("button", { class: "icon-only", type: "button", "aria-label": `Take away ${name}`,
      on: { click: () => change({ history: asked.history.filter((id) => id !== event.id) }) } }, icon("close"));
    return h("div", { class: "past-row" }, line, take);
  }

  function drawAnswer(answer) {
    announce(`${answer.items.length} recommendations`);
    const cards = answer.items.map((item, at) =>
      card(item, { badge: { text: String(at + 1) }, note: because(item) }));
    fill(results,
      h("div", { class: "view-head" }, h("h1", {}, asked.user ? `For user ${asked.user}` : "For this history"),
        h("a", { class: "button slim push",
          href: link("compare", "", { by: "run", user: asked.user, history: asked.history }) }, icon("compare"),
            "Compare runs"),
        h("p", { class: "told" }, answer.told), answer.notes.map((note) => h("p", { class: "told" }, note))),
      cards.length ? grid(cards, { label: "Recommendations" })
        : nothing("Nothing to recommend", "No item is left: widen the filter."));
    for (const element of results.querySelectorAll(".card")) {
      const ids = nearest(answer.items.find((item) => item.id === element.dataset.id)).map((one) => one.id);
      const light = (on) => past.querySelectorAll(".line").forEach((line) =>
        line.classList.toggle("lit", on && ids.includes(line.dataset.id)));
      element.addEventListener("mouseenter", () => light(true));
      element.addEventListener("mouseleave", () => light(false));
      element.addEventListener("focusin", () => light(true));
      element.addEventListener("focusout", () => light(false));
    }
  }

  /** The events that lie nearest to a recommendation. */
  function because(item) {
    const near = nearest(item).slice(0, 2);
    return near.length > 0 && h("p", { class: "because" }, "near ", near.map((one, at) => [
      at > 0 && ", ", h("a", { href: link("item", one.id), title: `cosine ${score(one.cosine)}` },
        one.title || one.id)]));
  }

  return {
    element: h("div", { class: "stack" },
      h("div", { class: "ask-user" }, users.element),
      h("div", { class: "split wide-aside" },
        h("aside", { class: "stack aside", "aria-label": "History and options" }, past,
          h("div", { class: "panel" }, more)), results)),
    update,
    destroy() { asking.abort(); },
  };
}

const toLink = ({ user, history, run, rerank, where, seen }) =>
  link("recommend", user, { history, run, rerank, where, seen: seen ? "yes" : null });

const nearest = (item) => item.explain?.nearest ?? [];

/** {total, events}: the latest of a history, the last one first. */
export async function historyOf({ user, history: ids }, signal) {
  if (!user) {
    const items = await Promise.all(ids.map((id) => itemOf(id).catch(() => null)));
    const events = ids.map((id, at) => ({ id, time: null, item: items[at] })).reverse();
    return { total: ids.length, events };
  }
  return get(`v1/users/${encodeURIComponent(user)}/history`, { limit: SHOWN }, signal);
}

/** Some user's id, or "" where there is none. */
export async function anyUser() {
  const { total } = await get("v1/users", { limit: 1 });
  const { users } = await get("v1/users", { limit: 1, offset: Math.floor(Math.random() * total) });
  return users[0]?.id ?? "";
}

/** Ask a run for a user or a history. */
export async function recommended({ user, history: ids, run, rerank, where, seen }, signal, k = K) {
  const body = { k, explain: true, exclude_seen: !seen };
  if (user) body.user = user;
  else body.history = ids;
  if (run) body.run = run;
  if (rerank) body.rerank = rerank;
  if (where.trim()) body.where = where.trim();
  return readAnswer(await post("v1/recommend", body, signal));
}
