// The same query answered by two features, or the same history by two runs: which is the better neighbourhood?
import { constant, get, isCancelled, item as itemOf, post } from "../lib/api.js";
import { readAnswer } from "../lib/answers.js";
import { announce, fill, h, icon } from "../lib/dom.js";
import { go, link } from "../lib/router.js";
import { hashed, named } from "../lib/text.js";
import { asCsv, clearVotes, tally, vote, votes } from "../lib/votes.js";
import { card, grid } from "../parts/card.js";
import { bones, failure, nothing } from "../parts/notice.js";
import { thumb } from "../parts/picture.js";
import { usable } from "../parts/runs.js";
import { itemBox, userBox } from "../parts/suggest.js";
import { segments } from "../parts/tuning.js";
import { anyUser, historyOf, recommended } from "./recommend.js";

const K = 12;
const TAKEN = 14; // of a history, to judge by
const SIDES = ["left", "right"];

export function create() {
  let asked = null;
  let names = { feature: [], run: [] };
  let asking = new AbortController();
  let voted = null; // what was said of the query that is shown
  const change = (part) => go(toLink({ ...asked, ...part }));
  const kind = segments("Compare", [["feature", "Two features"], ["run", "Two runs"]],
    (by) => change({ by, left: "", right: "" }));
  const items = itemBox((value, suggested) => change(suggested ? { like: [value], q: "" } : { like: [], q: value }));
  const users = userBox((user) => change({ user, history: [] }));
  const box = h("div", { class: "ask-user" });
  const blind = h("input", { type: "checkbox", on: { change: () => change({ blind: blind.checked }) } });
  const subject = h("div", { class: "slot subject" });
  const verdict = h("div", { class: "verdict", role: "group", "aria-label": "Which is better?" });
  const columns = h("div", { class: "columns-2" });

  async function prepare() {
    const [{ features }, runs] = await Promise.all([constant("v1/features"), usable()]);
    names = { feature: features.filter((one) => one.searchable).map((one) => one.name),
      run: runs.map((one) => one.name) };
  }

  async function update({ params }) {
    if (!names.feature.length) await prepare();
    const before = asked && key(asked);
    asked = readParams(params, names);
    document.title = "Compare · Dualview";
    if (before !== key(asked)) voted = null;
    kind.set(asked.by);
    blind.checked = asked.blind;
    fill(box, asked.by === "run" ? users.element : items.element);
    users.set(asked.user);
    items.set(asked.q);
    asking.abort();
    asking = new AbortController();
    drawSubject();
    if (names[asked.by].length < 2) return few();
    if (asked.by === "run" ? !asked.user && !asked.history.length : !asked.like.length && !asked.q) return start();
    return draw(asking.signal);
  }

  function few() {
    fill(verdict);
    fill(columns, asked.by === "run"
      ? nothing("There are no two runs",
        "Train a second one to compare it with: dualview train STORE --items id+text", { sign: "compare" })
      : nothing("There are no two features", "Publish a second feature with one vector an item.",
        { sign: "compare" }));
  }

  function start() {
    fill(verdict);
    fill(columns, nothing(asked.by === "run" ? "For whom?" : "What is to be compared?",
      asked.by === "run" ? "Choose a user above. Two runs then answer side by side."
        : "Choose an item above, or type words. Two features then answer side by side.",
      { sign: "compare", action: h("button", { class: "button", type: "button", on: { click: another } },
        icon("shuffle"), asked.by === "run" ? "Any user" : "Any item") }));
  }

  async function draw(signal) {
    columns.classList.add("waiting");
    if (!columns.querySelector(".card")) fill(columns, bones(4), bones(4));
    const order = sides();
    const found = await Promise.all(order.map((side) =>
      answerOf(asked, asked[side], signal).then((answer) => ({ answer }), (error) => ({ error }))));
    if (signal.aborted || found.some(({ error }) => isCancelled(error))) return;
    const ranks = found.map(({ answer }) => new Map(answer?.items.map((item, at) => [item.id, at + 1])));
    fill(columns, order.map((side, at) => column(side, at, found[at], ranks[1 - at])));
    columns.classList.remove("waiting");
    twins();
    drawVerdict(found, ranks);
  }

  /** Left and right as they are shown: hidden names stand in an order that the query decides. */
  const sides = () => (asked.blind && hashed(key(asked), 2) ? [...SIDES].reverse() : SIDES);
  const hidden = () => asked.blind && voted === null;

  function column(side, at, { answer, error }, others) {
    const name = asked[side];
    const label = `${at ? "Right" : "Left"}: ${asked.by}`;
    const choice = h("select", { "aria-label": label, on: { change: () => change({ [side]: choice.value }) } },
      names[asked.by].map((one) => h("option", { value: one, selected: one === name }, one)));
    return h("section", { "aria-label": hidden() ? "AB"[at] : name },
      h("div", { class: "side-head" }, hidden() ? h("h2", {}, `Answer ${"AB"[at]}`) : choice),
      error ? failure(error) : answer.items.length ? grid(answer.items.map((item, rank) => {
        const other = others.get(item.id);
        const there = other ? ` · ${at ? "left" : "right"} ${other}` : "";
        return card(item, { badge: { text: `${rank + 1}${there}`, both: Boolean(other) } });
      }), { label: hidden() ? "Answers" : `Nearest by ${name}` }) : nothing("Nothing found", answer.notes.join(" ")));
  }

  /** An item that both sides have is marked on both while one is looked at. */
  function twins() {
    for (const element of columns.querySelectorAll(".card")) {
      const light = (on) => {
        for (const twin of columns.querySelectorAll(".card")) {
          twin.classList.toggle("lit", on && twin !== element && twin.dataset.id === element.dataset.id);
        }
      };
      for (const event of ["mouseenter", "focusin"]) element.addEventListener(event, () => light(true));
      for (const event of ["mouseleave", "focusout"]) element.addEventListener(event, () => light(false));
    }
  }

  function drawVerdict(found, ranks) {
    if (found.some(({ error }) => error)) { fill(verdict); return; }
    const [one, other] = sides().map((side) => asked[side]);
    const both = [...ranks[0].keys()].filter((id) => ranks[1].has(id)).length;
    const counted = tally(one, other);
    const say = (better) =>
      h("button", { class: "button", type: "button", disabled: voted !== null,
        on: { click: () => decide(better, found, ranks) } },
      better === "same" ? "No difference" : better === one ? "Left is better" : "Right is better");
    announce(`${both} items in both`);
    fill(verdict,
      h("span", { class: "told" }, `${both} of ${Math.max(ranks[0].size, ranks[1].size)} in both`),
      h("div", { class: "row" }, [one, "same", other].map(say)),
      voted !== null && h("span", { class: "told", role: "status" },
        voted === "same" ? "No difference it is." : `You chose ${voted}.`),
      h("button", { class: "button primary", type: "button", on: { click: another } }, icon("shuffle"),
        asked.by === "run" ? "Another user" : "Another item"),
      !hidden() && votes().length > 0 && h("span", { class: "told" },
        `${one} ${counted[one]} · same ${counted.same} · ${other} ${counted[other]}`),
      votes().length > 0 && h("button", { class: "plain", type: "button", on: { click: copy } }, "Copy the votes"),
      votes().length > 0 && h("button", { class: "plain", type: "button",
        on: { click: () => { clearVotes(); drawVerdict(found, ranks); } } }, "Forget them"));
  }

  function decide(better, found, ranks) {
    voted = better;
    const { by, user, history, q, like, left, right } = asked;
    const query = by === "run" ? user || history.join(" ") : q || like.join(" ");
    vote({ kind: by, query, left, right, better });
    const order = sides();
    fill(columns, order.map((side, at) => column(side, at, found[at], ranks[1 - at])));
    twins();
    drawVerdict(found, ranks);
    verdict.querySelector(".primary").focus();
  }

  async function copy(event) {
    const button = event.currentTarget;
    try { await navigator.clipboard.writeText(asCsv()); button.textContent = "Copied"; }
    catch { button.textContent = "The browser does not allow it"; }
  }

  async function another() {
    if (asked.by === "run") {
      const user = await anyUser();
      if (user) change({ user, history: [] });
      return;
    }
    const { total } = await get("v1/items", { where: asked.where, limit: 1 });
    const { items: [one] } = await get("v1/items",
      { where: asked.where, limit: 1, offset: Math.floor(Math.random() * total) });
    if (one) change({ like: [one.id], q: "" });
  }

  function drawSubject() {
    if (asked.by === "run") {
      drawHistory(asked);
      return;
    }
    fill(subject, asked.q && h("span", {}, `“${asked.q}”`), asked.like.map((id) => {
      const place = h("a", { class: "line", href: link("item", id) }, h("span", { class: "thumb" }),
        h("span", { class: "title" }, id));
      itemOf(id).then((item) => fill(place, thumb(item), h("span", { class: "title" }, named(item))),
        () => { /* the columns say it */ });
      return place;
    }));
  }

  /** Who or what the runs are asked for, with what was taken last: without it nobody could judge. */
  async function drawHistory({ user, history }) {
    const who = user
      ? h("a", { href: link("recommend", user) }, `User ${user}`)
      : history.length > 0 && h("span", {}, "This history");
    const strip = h("div", { class: "strip" });
    fill(subject, who && h("div", { class: "taken" },
      h("span", {}, who, h("span", { class: "told" }, " took last")), strip));
    if (!who) return;
    const { events } = await historyOf({ user, history }, asking.signal).catch(() => ({ events: [] }));
    fill(strip, events.filter((event) => event.item).slice(0, TAKEN).map(({ item }) =>
      h("a", { href: link("item", item.id), title: named(item), "aria-label": named(item) },
        thumb(item))));
  }

  return {
    element: h("div", { class: "stack" },
      h("div", { class: "view-head" }, h("h1", {}, "Side by side"),
        h("p", {}, "The same question, answered twice. What both sides have is marked with its rank on the other.")),
      h("div", { class: "compare-ask" }, kind.element, box,
        h("label", { class: "choice" }, blind, "Hide the names until I chose")),
      subject, verdict, columns),
    update,
    destroy() { asking.abort(); },
  };
}

function readParams(params, names) {
  const by = params.get("by") === "run" ? "run" : "feature";
  const left = params.get("left") || names[by][0] || "";
  return {
    by, left, right: params.get("right") || names[by].find((name) => name !== left) || "",
    like: params.getAll("like"), q: params.get("q") ?? "", where: params.get("where") ?? "",
    user: params.get("user") ?? "", history: params.getAll("history"), blind: params.get("blind") === "yes",
  };
}

const toLink = (asked) =>
  link("compare", "", { ...asked, by: asked.by === "run" ? "run" : null, blind: asked.blind ? "yes" : null });
const key = ({ by, left, right, like, q, where, user, history }) =>
  JSON.stringify([by, [left, right].sort(), like, q, where, user, history]);

async function answerOf(asked, name, signal) {
  if (asked.by === "run") return recommended({ ...asked, run: name, seen: false }, signal, K);
  const body = { features: { [name]: 1 }, k: K };
  if (asked.like.length) body.items = asked.like;
  if (asked.q) body.text = asked.q;
  if (asked.where) body.where = asked.where;
  return readAnswer(await post("v1/similar", body, signal));
}
