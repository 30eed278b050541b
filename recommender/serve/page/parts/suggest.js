// A box that suggests while something is typed: a combobox as the ARIA patterns describe it.
import { get, isCancelled } from "../lib/api.js";
import { debounced, fill, fresh, h, icon } from "../lib/dom.js";
import { named } from "../lib/text.js";

/**
 * source(text, signal): [{value, label, note}]. chosen(value, isSuggested): a suggestion, or what was typed.
 * Returns {element, set(text)}.
 */
export function suggest({ label, placeholder, sign, action, source, chosen }) {
  const id = fresh("suggest");
  const list = h("ul", { id, role: "listbox", hidden: true, "aria-label": label });
  const input = h("input", {
    type: "search", id: "search", placeholder, autocomplete: "off", spellcheck: "false", role: "combobox",
    maxlength: "500",
    "aria-expanded": "false", "aria-controls": id, "aria-autocomplete": "list", "aria-label": label,
  });
  let asking = new AbortController();
  let at = -1;

  const close = () => {
    list.hidden = true;
    at = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const choose = (option) => { input.value = option.label; close(); input.blur(); chosen(option.value, true); };

  async function look() {
    asking.abort();
    asking = new AbortController();
    try {
      const found = await source(input.value.trim(), asking.signal);
      if (document.activeElement !== input) return;
      at = -1;
      fill(list, found.map((option, place) => h("li", {
        role: "option", id: `${id}-${place}`, "aria-selected": "false",
        on: { mousedown: (event) => event.preventDefault(), click: () => choose(option) },
      }, h("span", {}, option.label), option.note && h("span", { class: "soft small number" }, option.note))));
      [...list.children].forEach((element, place) => { element.option = found[place]; });
      list.hidden = !found.length;
      input.setAttribute("aria-expanded", String(Boolean(found.length)));
    } catch (error) { if (!isCancelled(error)) close(); }
  }

  function step(by) {
    const options = [...list.children];
    if (list.hidden || !options.length) { look(); return; }
    at = (at + by + options.length) % options.length;
    options.forEach((option, place) => option.setAttribute("aria-selected", String(place === at)));
    input.setAttribute("aria-activedescendant", options[at].id);
    options[at].scrollIntoView({ block: "nearest" });
  }

  const soon = debounced(look, 120);
  input.addEventListener("input", soon);
  input.addEventListener("focus", () => { input.select(); look(); });
  input.addEventListener("blur", () => { soon.cancel(); asking.abort(); close(); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      step(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (!list.hidden) close();
      else if (input.value) input.value = "";
      else input.blur();
    }
  });
  const form = h("form", { class: "searchbar", role: "search" }, icon(sign), input,
    h("button", { class: "button primary", type: "submit" }, action));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = input.value.trim();
    if (at >= 0) choose(list.children[at].option);
    else if (typed) { close(); chosen(typed, false); }
  });
  return {
    element: h("div", { class: "suggest" }, form, list),
    set: (text) => { if (document.activeElement !== input || !input.value) input.value = text; },
  };
}

/** Users by the beginning of their id. */
export const userBox = (chosen) => suggest({
  label: "User", placeholder: "A user’s id", sign: "user", action: "Show", chosen,
  source: async (prefix, signal) => (await get("v1/users", { prefix, limit: 12 }, signal)).users.map((user) =>
    ({ value: user.id, label: user.id, note: `${user.events} events` })),
});

/** Items by words of their title. */
export const itemBox = (chosen) => suggest({
  label: "Item", placeholder: "An item’s title, or any words", sign: "search", action: "Compare", chosen,
  source: async (q, signal) => (q ? (await get("v1/items", { q, limit: 10 }, signal)).items.map((item) =>
    ({ value: item.id, label: named(item), note: item.id })) : []),
});
