// The keyboard: arrows between cards, and single keys that can be turned off.
import { recall, remember } from "./settings.js";

export const KEYS = [
  ["/", "to the search box"],
  ["arrow keys", "from the search box to the cards, and from card to card"],
  ["Enter", "items similar to the card"],
  ["+  and  −", "more or less like the card"],
  ["d", "details of the card"],
  ["1 to 5", "search, recommend, compare, map, store"],
  ["Esc", "closes what is open; in the search box, empties it"],
  ["?", "this list"],
];

export const singleKeys = () => recall("single-keys", true);
export const setSingleKeys = (on) => remember("single-keys", on);

const TYPED = "input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]";
const typing = (element) => element.matches?.(TYPED);

/** Listen for the whole page. actions: {search, help, view(n)}. */
export function listenKeys(actions) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const card = event.target.closest?.("[data-card]");
    if (event.key === "ArrowDown" && event.target.id === "search"
      && event.target.getAttribute("role") !== "combobox") {
      document.querySelector("#main [data-card]")?.focus();
      return event.preventDefault();
    }
    if (card && moved(card, event.key)) return event.preventDefault();
    if (typing(event.target) || document.querySelector("dialog[open]") || !singleKeys()) return undefined;
    if (card && acted(card, event.key)) return event.preventDefault();
    if (event.key === "/") { event.preventDefault(); actions.search(); }
    else if (event.key === "?") { event.preventDefault(); actions.help(); }
    else if (/^[1-5]$/.test(event.key)) { event.preventDefault(); actions.view(Number(event.key) - 1); }
    return undefined;
  });
}

function acted(card, key) {
  const around = card.closest(".card");
  const target = { "+": ".acts button:nth-of-type(1)", "-": ".acts button:nth-of-type(2)",
    "−": ".acts button:nth-of-type(2)", d: ".details" }[key];
  const found = target && around?.querySelector(target);
  found?.click();
  return Boolean(found);
}

/** Put the focus on the card that lies where an arrow points. */
function moved(card, key) {
  const group = card.closest("[data-arrows]");
  if (!group || !["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(key)) return false;
  const all = [...group.querySelectorAll("[data-card]")];
  const at = all.indexOf(card);
  const next = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 }[key]
    ?? vertical(all, at, key === "ArrowUp");
  all[Math.min(Math.max(next, 0), all.length - 1)]?.focus();
  return true;
}

/** The card of the nearest row above or below whose middle is nearest to this one's. */
function vertical(all, at, up) {
  const middle = (element) => {
    const box = element.getBoundingClientRect();
    return { x: box.x + box.width / 2, y: box.y };
  };
  const own = middle(all[at]);
  let best = at, distance = Infinity;
  all.forEach((element, place) => {
    const other = middle(element);
    const down = up ? own.y - other.y : other.y - own.y;
    if (down < 8) return;
    const far = down * 1000 + Math.abs(other.x - own.x);
    if (far < distance) { best = place; distance = far; }
  });
  return best;
}
