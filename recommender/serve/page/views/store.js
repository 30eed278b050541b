// How the store stands: what answers now, features, releases, runs.
import { get } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { link } from "../lib/router.js";
import { grouped, score, shown, time } from "../lib/text.js";
import { failure } from "../parts/notice.js";
import { hueOf } from "../parts/weights.js";

const STATES = { ready: "good", loading: "warm", failed: "bad", absent: "off" };
const LATE = ["missing", "stale", "failed", "blocked"];

export function create() {
  const ready = section("Answering now");
  const features = section("Features");
  const releases = section("Releases");
  const runs = section("Runs");
  const parts = [
    [ready, "ready", {}, drawReady], [features, "v1/features", { status: true }, drawFeatures],
    [releases, "v1/releases", {}, drawReleases], [runs, "v1/runs", {}, drawRuns],
  ];
  async function update() {
    document.title = "Store · Dualview";
    await Promise.all(parts.map(async ([place, path, params, draw]) => {
      try { fill(place.body, draw(await get(path, params)));
        } catch (error) { fill(place.body, failure(error, { again: update })); }
    }));
  }
  const again = h("button", { class: "button slim", type: "button", on: { click: update } }, "Look again");
  const openapi = h("a", { class: "button slim", href: "openapi.json" }, "API");
  return { element: h("div", { class: "stack store-view" },
    h("div", { class: "view-head" }, h("h1", {}, "Store"), h("div", { class: "row push" }, openapi, again)),
      parts.map(([place]) => place.element)), update };
}

function section(title) {
  const body = h("div", { class: "slot" }, h("p", { class: "told" }, "…"));
  return { body, element: h("section", { class: "panel" }, h("h2", {}, title), body) };
}

const state = (name, kind) => h("span", { class: `state ${kind}` }, name);

function drawReady({ release, run, since, parts, notes, failed }) {
  return [
    h("dl", { class: "columns" },
      pair("Release", release), pair("Run", run ?? "none"), pair("Since", time(since)),
      Object.entries(parts).map(([name, now]) => pair(name, state(now, STATES[now] ?? "off")))),
    notes.map((note) => h("p", { class: "told" }, note)),
    failed && h("p", { class: "wrong" }, `A newer release could not be opened: ${shown(failed)}`)];
}

const pair = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

function drawFeatures({ features, default: usual }) {
  const names = features.filter((one) => one.searchable).map((one) => one.name);
  return table(["Feature", "Made by", "Asked by", "Numbers", "Items with it", "Search", "Now in the store"],
    features.map((one) => {
    const { ok = 0, no_input: without = 0, error = 0 } = one.coverage;
    const total = Object.values(one.coverage).reduce((sum, n) => sum + n, 0) || 1;
    return [
      h("span", { class: "row tight" }, one.searchable
        && h("span", { class: "dot", style: { "--hue": hueOf(names, one.name) } }), h("b", {}, one.name),
          one.name === usual && h("span", { class: "told" }, "usual")),
      [one.encoder ?? one.kind, one.model && h("span", { class: "told" }, ` ${one.model}`),
        one.recipe && h("code", { class: "told", title: one.recipe }, ` ${one.recipe.slice(0, 8)}`)],
      one.asked_by.join(", ") || "–", one.dim ?? one.holds,
      h("span", { class: "cover", title: `${ok} with a value, ${without} without input, ${error} failed` },
        h("span", { class: "cover-bar" }, h("span", { style: { "--share": `${(100 * ok) / total}%` } })),
          ` ${grouped(ok)}`),
      one.index ? `${one.index.kind}${one.index.exact ? "" : `, recall ${score(one.index.recall)}`}` : "–",
      current(one.status),
    ];
  }));
}

/** What is not current of a feature, where the store is here to say so. */
function current(status) {
  if (!status) return h("span", { class: "told" }, "not known here");
  const late = LATE.filter((name) => status[name] > 0).map((name) => `${grouped(status[name])} ${name}`);
  return late.length ? state(late.join(", "), "warm") : state("current", "good");
}

function drawReleases({ current: now, releases }) {
  if (!releases.length) return h("p", { class: "told" }, "Nothing was published.");
  return table(["Release", "Made", "Items", "Events", "State"], releases.map((one) => [
    [h("b", {}, one.name), one.tag && h("span", { class: "told" }, ` ${one.tag}`)], time(one.created),
      grouped(one.items), grouped(one.events), one.name === now && state("answers", "good")]));
}

function drawRuns({ runs }) {
  if (!runs.length) return h("p", { class: "told" }, "No model was trained yet: dualview train STORE");
  const measures = [...new Set(runs.flatMap((one) => Object.keys(flat(one.validation))))].slice(0, 3);
  const tests = [...new Set(runs.flatMap((one) => Object.keys(flat(one.test))))].slice(0, 3);
  return table(["Run", "Items as", "Release", "Epochs", ...measures.map((name) => `validation ${name}`),
    ...tests.map((name) => `test ${name}`), "State"], runs.map((one) => [
    h("a", { href: link("recommend", "", { run: one.name }) }, one.name), one.items, one.release ?? "–", one.epochs,
    ...measures.map((name) => score(flat(one.validation)[name])), ...tests.map((name) => score(flat(one.test)[name])),
    [one.served && state("recommends", "good"), one.promoted && state("promoted", "good"),
      !one.usable && state("no weights", "warm"), !one.finished && state("not finished", "warm")]]));
}

const flat = (figures) =>
  Object.fromEntries(Object.entries(figures ?? {}).filter(([, value]) => typeof value === "number"));

function table(heads, rows) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": heads[0] },
    h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell)))))));
}
