// The catalogue as a map: near each other is what a feature holds for alike.
import { Refused, constant, isCancelled, item as itemOf } from "../lib/api.js";
import { announce, debounced, fill, fresh, h, icon } from "../lib/dom.js";
import { go, link } from "../lib/router.js";
import { grouped, named, shown } from "../lib/text.js";
import { board } from "../map/board.js";
import { colouring, groupColours, quiet, scaleColours } from "../map/colouring.js";
import { card, facts } from "../parts/card.js";
import { failure } from "../parts/notice.js";
import { picture } from "../parts/picture.js";
import { segments } from "../parts/tuning.js";

const ARRANGING = "Arranging neighbourhoods. The first time this takes some seconds.";
const RANGE = 32_767; // of a coordinate as the service sends it

const SWAPPED = { code: "conflict", message: "Another release was published.", remedy: "Load the page again." };

export function create() {
  let asked = null, drawn = {}, ids = [], told = null, only = null, turn = 0;
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const change = (part) => go(toLink({ ...asked, ...part }), { replace: true });
  const feature = choice("Feature", (value) => change({ feature: value }));
  const colour = choice("Colour by", (value) => change({ colour: value }));
  const layout = segments("Layout", [["neighbours", "Neighbourhoods"], ["pca", "Main directions"]],
    (value) => change({ layout: value }));
  const legend = h("div", { class: "legend" });
  const note = h("p", { class: "told" });
  const hover = h("div", { class: "hover", hidden: true });
  const picked = h("aside", { class: "picked", "aria-label": "Chosen item", hidden: true });
  const over = h("p", { class: "over", role: "status", hidden: true });
  const map = board({ pointed, chosen });
  const tools = h("div", { class: "map-tools" },
    tool("plus", "Nearer", () => map.zoomBy(1.5)), tool("minus", "Farther", () => map.zoomBy(1 / 1.5)),
    h("button", { class: "button slim", type: "button", on: { click: map.fit } }, "All"));
  const stage = h("div", { class: "stage" }, map.element, tools, over, hover, picked);

  async function update({ params }) {
    const mine = ++turn;
    try {
      const about = await Promise.all([constant("v1/features"), constant("v1/explorer")]);
      const [{ features, default: usual }, { columns }] = about;
      const names = features.filter((one) => one.searchable).map((one) => one.name);
      const colours = columns.filter((one) => one.grouped).map((one) => one.name);
      asked = {
        feature: params.get("feature") || usual || names[0] || "",
        layout: params.get("layout") === "pca" ? "pca" : "neighbours",
        colour: params.has("colour") ? params.get("colour") : colours.at(-1) ?? "none", item: params.get("item") ?? "",
      };
      document.title = `Map by ${asked.feature} · Dualview`;
      feature.set(names.map((name) => [name, name]), asked.feature);
      colour.set([["none", "one colour"], ...colours.map((name) => [name, name])], asked.colour);
      layout.set(asked.layout);
      await arrange(mine);
      await paint(mine);
      if (mine === turn && asked.item) await mark();
    } catch (error) {
      if (isCancelled(error) || mine !== turn) return;
      say("");
      fill(legend);
      fill(picked, failure(error, { again: () => update({ params }) }));
      picked.hidden = false;
    }
  }

  /** Bring the points where the layout has them; what takes long is waited for over the layout that is there at once. */
  async function arrange(mine) {
    const wanted = `${asked.feature} ${asked.layout}`;
    if (drawn.places === wanted) return;
    const same = drawn.feature === asked.feature;
    const aim = placesOf(asked.feature, asked.layout);
    const late = setTimeout(() => { if (mine === turn) say(ARRANGING); }, 300);
    if (!same && asked.layout !== "pca") {
      const first = await Promise.race([aim, placesOf(asked.feature, "pca")]);
      if (mine !== turn) return;
      put(first, false);
      await paint(mine);
    }
    const found = await aim.finally(() => { clearTimeout(late); if (mine === turn) say(""); });
    if (mine !== turn) return;
    put(found, drawn.feature === asked.feature && !still.matches);
    drawn = { ...drawn, places: wanted, feature: asked.feature };
    const part = found.explained === null ? "Distances between groups mean nothing here."
      : `These two directions hold ${(100 * found.explained).toFixed(0)} % of the variance.`;
    const whole = found.total === found.ids.length;
    const many = whole ? grouped(found.total) : `${grouped(found.ids.length)} of ${grouped(found.total)}`;
    note.textContent = `${many} items by ${asked.feature}, release ${found.release}. ${part}`;
  }

  function put(found, gently) {
    if (drawn.shown === found) return;
    ids = found.ids;
    const points = Float32Array.from({ length: 2 * ids.length },
      (_, at) => (at % 2 ? found.y : found.x)[at >> 1] / RANGE);
    map.place(points, { gently });
    if (drawn.feature !== found.feature) drawn.colours = null;
    drawn = { ...drawn, feature: found.feature, shown: found };
  }

  async function paint(mine) {
    const wanted = `${drawn.feature} ${asked.colour}`;
    if (drawn.colours !== wanted) {
      const by = asked.colour && asked.colour !== "none" ? asked.colour : null;
      const answer = by && await constant(`v1/map/${encodeURIComponent(drawn.feature)}/colours`, { by });
      if (mine !== turn) return;
      if (answer && answer.release !== drawn.shown.release) throw new Refused(SWAPPED);
      told = answer;
      only = null;
      drawn.colours = wanted;
    }
    repaint();
  }

  function repaint() {
    map.colour(colouring(ids.length, told, only));
    fill(legend, told?.codes ? told.groups.map(group) : told && scale());
  }

  function group({ name, count: many }, code) {
    const pressed = only === code;
    return h("button", { class: "key", type: "button", "aria-pressed": String(pressed),
      on: { click: () => { only = pressed ? null : code; repaint(); announce(pressed ? "All groups" : name); } } },
      h("span", { class: "dot", style: { "--hue": only === null || pressed ? groupColours()[code] : quiet() } }),
        name, h("span", { class: "told" }, grouped(many)));
  }

  const scale = () => h("div", { class: "scale" }, h("span", { class: "told" }, shown(told.least)),
    h("span", { class: "ramp", style: { background: `linear-gradient(to right, ${scaleColours().join(", ")})` } }),
      h("span", { class: "told" }, shown(told.greatest)));

  const describe = debounced(async (at, [x, y]) => {
    try {
      const item = await itemOf(ids[at]);
      fill(hover, h("div", { class: "frame" }, picture(item, { eager: true })), h("b", {}, named(item)),
        h("span", { class: "told" }, facts(item)));
      hover.hidden = false;
      const box = stage.getBoundingClientRect();
      hover.style.setProperty("left", `${Math.min(Math.max(x + 18, 8), box.width - hover.offsetWidth - 8)}px`);
      hover.style.setProperty("top",
        `${Math.min(Math.max(y - hover.offsetHeight / 2, 8), box.height - hover.offsetHeight - 8)}px`);
    } catch { hover.hidden = true; }
  }, 40);

  function pointed(at, place) {
    if (at < 0) { describe.cancel(); hover.hidden = true; } else describe(at, place);
  }

  async function chosen(at) {
    describe.cancel();
    hover.hidden = true;
    const item = await itemOf(ids[at]);
    const close = h("button", { class: "icon-only", type: "button", "aria-label": "Close",
      on: { click: () => { picked.hidden = true; map.mark(-1); } } }, icon("close"));
    fill(picked, close, card(item));
    picked.hidden = false;
    announce(named(item));
  }

  async function mark() {
    const at = ids.indexOf(asked.item);
    if (at < 0) { say(`Item ${asked.item} has no vector of ${asked.feature}.`); return; }
    map.mark(at);
    await chosen(at);
  }

  function say(text) { over.textContent = text; over.hidden = !text; }
  const themed = () => { if (ids.length) repaint(); };
  document.addEventListener("theme", themed);
  stage.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || picked.hidden) return;
    picked.hidden = true;
    map.mark(-1);
    map.element.firstElementChild.focus();
  });

  return {
    element: h("div", { class: "stack map-view" },
      h("div", { class: "view-head" }, h("h1", {}, "Map of the catalogue"), note),
      h("div", { class: "map-ask" }, feature.element, layout.element, colour.element), legend, stage),
    update,
    destroy() { turn += 1; map.destroy(); describe.cancel(); document.removeEventListener("theme", themed); },
  };
}

const placesOf = (feature, layout) => constant(`v1/map/${encodeURIComponent(feature)}`, { layout });
const toLink = (asked) => link("map", "", { ...asked, layout: asked.layout === "pca" ? "pca" : null });
const tool = (sign, label, click) =>
  h("button", { class: "button slim", type: "button", "aria-label": label, title: label, on: { click } }, icon(sign));

function choice(label, changed) {
  const id = fresh("choice");
  const select = h("select", { id, on: { change: () => changed(select.value) } });
  return {
    element: h("div", { class: "field" }, h("label", { class: "label", for: id }, label), select),
    set(options, value) {
      if (select.options.length !== options.length) fill(select,
        options.map(([name, text]) => h("option", { value: name }, text)));
      select.value = value;
    },
  };
}
