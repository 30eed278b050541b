// What is shown when there is nothing to show: an error with its remedy, an empty answer, a wait.
import { Refused } from "../lib/api.js";
import { h, icon } from "../lib/dom.js";

/**
 * An error where an answer would be. level: of its heading, h1 where the page has no other. A fault of the page itself
 * is not hidden: it goes on to the console.
 */
export function failure(error, { again, level = "h2" } = {}) {
  if (!(error instanceof Refused)) console.error(error);
  const told = error instanceof Refused ? error.message : "The page made a mistake.";
  const remedy = error instanceof Refused ? here(error.remedy) : "Load it again; the console says more.";
  return h("div", { class: "notice error", role: "alert" },
    icon("warning"), h(level, {}, heading(error)), h("p", {}, told), remedy && h("p", { class: "remedy" }, remedy),
    again && mayPass(error) && h("button", { class: "button slim", type: "button", on: { click: again } },
      "Try again"));
}

/** Remedies are written for the command line; of what the page has a control for, they name that. */
const CONTROLS = [
  [/--mode vector/g, "search by Meaning"], [/--mode hybrid/g, "search by Both"],
  [/--text WORDS/g, "words in the search box"],
  [/--image FILE/g, "a dropped picture"], [/an ITEM_ID/g, "an item"],
  [/send it as Authorization: Bearer KEY/g, "give the key that the service was started with"],
];
const here = (remedy) => remedy && CONTROLS.reduce((text, [flag, control]) => text.replace(flag, control), remedy);

/** Whether the same question may be answered later. */
const mayPass = (error) => !(error instanceof Refused) || error.status === 0 || error.status >= 500;

const HEADINGS = {
  not_found: "Not there", bad_input: "This cannot be asked", unreachable: "No answer",
  model_unavailable: "The model cannot be reached", unauthorized: "A key is needed",
};
const heading = (error) => HEADINGS[error.code] ?? "Refused";

/** The same beside a control, in two lines. */
export function wrong(error) {
  return h("p", { class: "wrong", role: "alert" }, h("b", {}, error.message), here(error.remedy));
}

/** Nothing found, nothing chosen. */
export function nothing(title, text, { sign = "empty", action, level = "h2" } = {}) {
  return h("div", { class: "notice" }, icon(sign), h(level, {}, title), text && h("p", {}, text), action);
}

/** Cards to come. */
export function bones(n = 12) {
  const one = () => h("div", { class: "card" }, h("div", { class: "frame" }),
    h("div", { class: "bone", style: { height: "14px", width: "80%" } }));
  return h("div", { class: "grid bones", "aria-hidden": "true" }, Array.from({ length: n }, one));
}
