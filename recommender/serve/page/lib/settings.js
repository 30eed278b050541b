// What this browser remembers: nothing of it is needed, and without storage it lasts as long as the page.
const kept = new Map();

/** A remembered value, or `fallback`. */
export function recall(name, fallback = null) {
  if (kept.has(name)) return kept.get(name);
  try {
    const stored = sessionStorage.getItem(`dualview.${name}`) ?? localStorage.getItem(`dualview.${name}`);
    return stored === null ? fallback : JSON.parse(stored);
  } catch { return fallback; }
}

/** Remember a value. session: until the tab is closed only. */
export function remember(name, value, { session = false } = {}) {
  kept.set(name, value);
  try {
    (session ? sessionStorage : localStorage).setItem(`dualview.${name}`, JSON.stringify(value));
  } catch { /* storage is off or full */ }
}
