// Starts the page: the bar, the keyboard, and the view that the address names.
import { constant, forget, openSession } from "./lib/api.js";
import { announce, debounced, fill, h, icon } from "./lib/dom.js";
import { KEYS, listenKeys, setSingleKeys, singleKeys } from "./lib/keys.js";
import { go, here, link, listen } from "./lib/router.js";
import { failure, nothing, wrong } from "./parts/notice.js";

const VIEWS = [
  { name: "search", label: "Search", sign: "search", load: () => import("./views/search.js") },
  { name: "recommend", label: "Recommend", sign: "user", load: () => import("./views/recommend.js") },
  { name: "compare", label: "Compare", sign: "compare", load: () => import("./views/compare.js") },
  { name: "map", label: "Map", sign: "map", load: () => import("./views/map.js") },
  { name: "store", label: "Store", sign: "store", load: () => import("./views/store.js") },
  { name: "item", load: () => import("./views/item.js") },
];

const main = document.getElementById("main");
let shown = null; // {name, view: {element, update(route), destroy?()}}
let latest = 0;

/** Show what the address names. A view that is there already is told of the new address and keeps its controls. */
async function show({ first = false, back = false } = {}) {
  const route = here();
  const turn = ++latest;
  mark(route.view);
  try {
    if (shown?.name !== route.view) {
      const known = VIEWS.find((view) => view.name === route.view);
      const made = known ? (await known.load()).create() : lost(route.view);
      if (turn !== latest) return;
      shown?.view.destroy?.();
      shown = { name: route.view, view: made };
      fill(main, made.element);
      scrollTo(0, 0);
      if (!first) main.focus({ preventScroll: true });
    }
    const scrolled = history.state?.scrolled ?? 0;
    await shown.view.update(route);
    if (back && turn === latest) scrollTo(0, scrolled);
  } catch (error) {
    if (turn === latest) { shown = null; fill(main, failure(error, { again: () => show(), level: "h1" })); }
  }
}

const lost = (name) => ({
  element: nothing("No such page", `There is nothing under “${name}”.`,
    { level: "h1", action: h("a", { class: "button", href: "#/" }, "To the search") }),
  update() { document.title = "Not there · Dualview"; },
});

function mark(view) {
  for (const anchor of document.querySelectorAll("#nav a")) {
    if (anchor.dataset.view === view) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
}

function drawBar() {
  const places = VIEWS.filter((view) => view.label).map((view) =>
    h("li", {}, h("a", { href: link(view.name), "data-view": view.name }, icon(view.sign), view.label)));
  fill(document.getElementById("nav"), h("ul", {}, places));
  const tool = (sign, label, click) =>
    h("button", { class: "icon-only", type: "button", title: label, "aria-label": label, on: { click } }, icon(sign));
  fill(document.getElementById("tools"),
    tool("theme", "Light or dark", () => window.dualviewTheme.toggle()), tool("help", "Keys", help));
}

async function nameStore() {
  try {
    const { store, ratio, release } = await constant("v1/explorer");
    const name = document.getElementById("store-name");
    fill(name, store, h("span", { id: "release" }, ` · ${release}`));
    document.documentElement.toggleAttribute("data-wordy", !ratio);
    if (ratio) document.documentElement.style.setProperty("--ratio", String(Math.min(Math.max(ratio, 0.66), 1.34)));
  } catch { /* the view says what is wrong */ }
}

function help() {
  const single = h("input", { type: "checkbox", checked: singleKeys(),
    on: { change: () => setSingleKeys(single.checked) } });
  open("Keys",
    h("dl", { class: "keys" }, KEYS.map(([key, does]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, does)])),
    h("label", { class: "choice gap-above" }, single, "Single keys act without Ctrl or Alt"));
}

/** Ask for the service's key, once at a time. */
function askForKey() {
  if (document.querySelector("dialog[open]")) return;
  const field = h("input", { type: "password", id: "key", autocomplete: "off", required: true, autofocus: true });
  const said = h("div", { class: "slot" });
  const form = h("form", { class: "stack" },
    h("div", { class: "field" }, h("label", { class: "label", for: "key" }, "Key of this service"), field, said),
    h("button", { class: "button primary" }, "Use it"));
  const dialog = open("A key is needed", form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await openSession(field.value.trim());
    } catch (error) {
      fill(said, wrong(error));
      return;
    }
    forget();
    shown = null;
    dialog.close();
    nameStore();
    show();
  });
}

function open(title, ...content) {
  const before = document.activeElement;
  const close = h("button", { class: "icon-only push", type: "button", "aria-label": "Close",
    on: { click: () => dialog.close() } }, icon("close"));
  const dialog = h("dialog", { "aria-label": title }, h("div", { class: "row" }, h("h2", {}, title), close), content);
  dialog.addEventListener("close", () => { dialog.remove(); before?.focus?.(); });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

function toSearch() {
  const box = () => document.getElementById("search");
  if (box()) { box().focus(); box().select(); return; }
  go(link("search"));
  const wait = new MutationObserver(() => { if (box()) { wait.disconnect(); box().focus(); } });
  wait.observe(main, { childList: true, subtree: true });
}

drawBar();
nameStore();
listen((event) => show({ back: event.type === "popstate" }));
history.scrollRestoration = "manual"; // what a view shows comes later than the browser would scroll
addEventListener("scroll", debounced(() => history.replaceState({ ...history.state, scrolled: scrollY }, ""), 150),
  { passive: true });
addEventListener("release", ({ detail }) => {
  const place = document.getElementById("release");
  if (!place || place.textContent === ` · ${detail}`) return;
  place.textContent = ` · ${detail}`;
  announce(`Release ${detail} answers now`);
});
listenKeys({ search: toSearch, help, view: (n) => go(link(VIEWS[n].name)) });
addEventListener("needs-key", askForKey);
document.addEventListener("click", (event) => { // links of the page itself are steps of its history
  const anchor = event.target.closest?.("a[href^='#/']");
  if (!anchor || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(anchor.getAttribute("href"));
  if (shown?.name === here().view) scrollTo({ top: 0 });
});
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
show({ first: true });
