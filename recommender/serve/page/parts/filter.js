// The filter box: the store's grammar, checked while it is typed, with the columns that can be named.
import { constant, get, isCancelled } from "../lib/api.js";
import { debounced, fill, fresh, h } from "../lib/dom.js";
import { grouped } from "../lib/text.js";
import { wrong } from "./notice.js";

/** changed(where) once a filter is right, with "" for none. Returns {element, set(where)}. */
export function filter(changed) {
  const id = fresh("filter");
  const box = h("textarea", { id, rows: "2", spellcheck: "false", autocomplete: "off", autocapitalize: "off",
    class: "mono", "aria-describedby": `${id}-told` });
  const told = h("div", { id: `${id}-told`, class: "told" });
  const hints = h("div", { class: "hints" });
  let asking = new AbortController();
  let current = "";

  const check = async (where) => {
    asking.abort();
    asking = new AbortController();
    try {
      const { total } = await get("v1/items", { where, limit: 1 }, asking.signal);
      box.removeAttribute("aria-invalid");
      fill(told, where && `${grouped(total)} items`);
      if (where !== current) { current = where; changed(where); }
    } catch (error) {
      if (isCancelled(error)) return;
      box.setAttribute("aria-invalid", "true");
      fill(told, wrong(error));
    }
  };
  const soon = debounced(() => check(box.value.trim()), 450);
  box.addEventListener("input", soon);
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); soon.cancel(); check(box.value.trim()); }
  });

  const insert = (text) => {
    const before = box.value.trim();
    box.value = before ? `${before} AND ${text}` : text;
    box.focus();
    soon.cancel();
    check(box.value.trim());
  };
  columns().then((found) => {
    box.placeholder = found.map((column) => column.example).sort((one, other) => one.length - other.length)[0] ?? "";
    fill(hints, found.slice(0, 8).map((column) =>
      h("button", { class: "hint", type: "button", title: `Add: ${column.example}`,
        on: { click: () => insert(column.example) } }, column.name)));
  }, () => { /* the columns are a help only */ });

  return {
    element: h("div", { class: "field" }, h("label", { class: "label", for: id }, "Only items with"), box, told,
      hints),
    set(where) {
      if (where === current && box.value.trim() === where) return;
      current = where;
      if (document.activeElement !== box) box.value = where;
      if (where) check(where);
      else { box.removeAttribute("aria-invalid"); fill(told); }
    },
  };
}

/** Columns with a condition that can be written of each. */
export async function columns() {
  const { columns: found } = await constant("v1/explorer");
  const telling = found.filter((column) => column.grouped || column.kind !== "text");
  return [...telling, ...found.filter((column) => !telling.includes(column))].map((column) =>
    ({ ...column, example: example(column) }));
}

const quoted = (text) => `'${text.replaceAll("'", "''")}'`;
const named = (name) => (/^[a-z_][a-z0-9_]*$/i.test(name) ? name : `"${name.replaceAll('"', '""')}"`);

function example({ name, kind, common, least, greatest }) {
  if (kind === "number") return least === null ? `${named(name)} IS NOT NULL`
    : `${named(name)} >= ${Number(((least + greatest) / 2).toPrecision(3))}`;
  if (kind === "yes or no") return `${named(name)} = true`;
  if (kind === "list") return `contains(${named(name)}, ${quoted(common[0] ?? "")})`;
  if (kind === "time") return `${named(name)} IS NOT NULL`;
  return `${named(name)} ILIKE ${quoted(`%${common[0] ?? "word"}%`)}`;
}
