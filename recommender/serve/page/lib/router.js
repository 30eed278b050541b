// The address says what is shown: #/VIEW/NAME?key=value. Links can be shared and "back" goes back.

/** {view, name, params} of the current address; the view of an address without one is "search". */
export function here() {
  const hash = location.hash.replace(/^#\/?/, "");
  const [path, query = ""] = split(hash, "?");
  const [view, name = ""] = split(path, "/");
  return { view: view || "search", name: decoded(name), params: new URLSearchParams(query) };
}

/** The address of a view. params: {key: value or list}; what is empty is left out. */
export function link(view, name = "", params = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) {
    for (const one of [value].flat()) {
      if (one !== null && one !== undefined && one !== "" && one !== false) query.append(key, one);
    }
  }
  const asked = query.toString();
  const path = view === "search" ? "" : view + (name === "" ? "" : `/${encodeURIComponent(name)}`);
  return `#/${path}${asked ? `?${asked}` : ""}`;
}

/** Go to an address; to the one that is shown: show it anew. replace: without a step that "back" would go to. */
export function go(address, { replace = false } = {}) {
  const same = address === (location.hash || "#/");
  history[replace || same ? "replaceState" : "pushState"](null, "", address);
  dispatchEvent(new Event("route"));
}

/** Call `changed` with the event whenever the address is another one: "popstate" for back and forth. */
export function listen(changed) {
  addEventListener("popstate", changed);
  addEventListener("route", changed);
}

function split(text, at) {
  const place = text.indexOf(at);
  return place < 0 ? [text] : [text.slice(0, place), text.slice(place + 1)];
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}
