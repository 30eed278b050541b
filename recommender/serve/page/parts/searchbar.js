// The search box: words, and a picture that is dropped, pasted or chosen.
import { h, icon } from "../lib/dom.js";
import { hold, pictureIn } from "../lib/dropped.js";

/** submitted(q), pictured(mark of a picture), wrong(text). Returns {element, set(q), takesPictures(), listen()}. */
export function searchbar({ submitted, pictured, wrong }) {
  const input = h("input", {
    type: "search", id: "search", placeholder: "Describe what you look for", autocomplete: "off", spellcheck: "false",
    enterkeyhint: "search", "aria-label": "Search by words", maxlength: "2000",
  });
  const chooser = h("input", { type: "file", accept: "image/*", class: "visually-hidden", tabindex: "-1",
    "aria-hidden": "true", id: "picture-file" });
  const choose = h("button", { class: "icon-only", type: "button", hidden: true, title: "Search by a picture",
    "aria-label": "Search by a picture", on: { click: () => chooser.click() } }, icon("picture"));
  const bar = h("form", { class: "searchbar", role: "search" },
    icon("search"), input, choose, chooser,
    h("button", { class: "button primary", type: "submit" }, "Search"));
  bar.addEventListener("submit", (event) => { event.preventDefault(); submitted(input.value.trim()); });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    if (input.value) input.value = "";
    else input.blur();
  });
  const take = async (file) => {
    try { pictured(await hold(file)); } catch (error) { wrong(error.message); }
  };
  chooser.addEventListener("change", () => { if (chooser.files[0]) take(chooser.files[0]); chooser.value = ""; });
  return {
    element: bar,
    set: (q) => { if (document.activeElement !== input || !input.value) input.value = q; },
    /** A picture can be asked with: say so. */
    takesPictures() {
      choose.hidden = false;
      input.placeholder = "Describe what you look for, or drop a picture";
    },
    listen: () => listenForPictures(bar, take),
  };
}

/** A picture may be dropped or pasted anywhere on the page. Returns how to cease. */
function listenForPictures(bar, take) {
  const stop = new AbortController();
  const on = (name, listener) => addEventListener(name, listener, { signal: stop.signal });
  const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  on("dragover", (event) => { if (files(event)) { event.preventDefault(); bar.classList.add("over"); } });
  on("dragleave", (event) => { if (!event.relatedTarget) bar.classList.remove("over"); });
  on("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    bar.classList.remove("over");
    take(pictureIn(event.dataTransfer));
  });
  on("paste", (event) => {
    const file = pictureIn(event.clipboardData);
    if (file) { event.preventDefault(); take(file); }
  });
  return () => stop.abort();
}
