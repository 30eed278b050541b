// Elements are made here and nowhere else. Data becomes text nodes and attributes, never markup.
const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element. props: attributes; `on` holds listeners, `style` custom properties and styles, `class` a class
 * list; false and null leave an attribute out, true sets it empty. children: nodes, strings, numbers, lists of these;
 * null and false are left out.
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === "style") {
      for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  return add(element, children);
}

/** Append children as `h` takes them. */
export function add(element, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/** Put children in place of what is there. */
export function fill(element, ...children) {
  element.replaceChildren();
  return add(element, children);
}

const ICONS = {
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14m5 12 4.5 4.5",
  user: "M12 4a4 4 0 1 0 0 8 4 4 0 0 0 0-8M4.5 20.5c.8-4 4-6 7.5-6s6.7 2 7.5 6",
  compare: "M4 5h6.5v14H4zM13.5 5H20v14h-6.5z",
  map: "M6 7.5a1.5 1.5 0 1 0 .01 0M16 5a1.5 1.5 0 1 0 .01 0M11 13a1.5 1.5 0 1 0 .01 0M18.5 15.5a1.5 1.5 0 1 0 .01 0M7 18a1.5 1.5 0 1 0 .01 0",
  store: "M4.5 6.5c0-4 15-4 15 0s-15 4-15 0m0 0v11c0 4 15 4 15 0v-11m-15 5.5c0 4 15 4 15 0",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  close: "m6 6 12 12M18 6 6 18",
  theme: "M12 4.5a7.5 7.5 0 1 0 0 15zM12 4.5a7.5 7.5 0 0 1 0 15",
  help: "M12 3.5a8.5 8.5 0 1 0 .01 0M9.5 9.5c.2-3.3 5.2-3 5 .2-.1 2-2.5 2-2.5 4M12 16.9v.1",
  picture: "M4 5h16v14H4zM4 16l5-5 4.5 4.5L16 13l4 4M15.5 8.5v.1",
  tune: "M4 7h9m5 0h2M4 17h3m5 0h8M13 7a2.5 2.5 0 1 0 5 0 2.5 2.5 0 1 0-5 0M7 17a2.5 2.5 0 1 0 5 0 2.5 2.5 0 1 0-5 0",
  shuffle: "M4 7h3c5 0 5 10 10 10h3m-3-3 3 3-3 3M4 17h3c1.5 0 2.6-.9 3.5-2.2M13.5 9.2C14.4 7.9 15.5 7 17 7h3m-3-3 3 3-3 3",
  warning: "M12 4 2.8 19.5h18.4zM12 10v4.5m0 2.4v.1",
  empty: "M4 8.5 12 4l8 4.5v7L12 20l-8-4.5zM4 8.5l8 4.5 8-4.5M12 13v7",
};

/** A drawn sign; decoration, the control that holds it has a name of its own. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** Say something to who cannot see that it changed. */
export function announce(text) {
  document.getElementById("live").textContent = text;
}

/** The function, called once when calls have ceased for `wait` milliseconds. */
export function debounced(call, wait) {
  let timer;
  const later = (...args) => {
    clearTimeout(timer);
    timer = setTimeout(call, wait, ...args);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

let counted = 0;
/** An id that is used once in this document. */
export const fresh = (prefix) => `${prefix}-${++counted}`;
