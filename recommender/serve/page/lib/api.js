// The service, as the page asks it. Addresses are relative, so that the page works under any prefix.
/** What the service, or the way to it, refused. `remedy` says what to do next. */
export class Refused extends Error {
  constructor({ code, message, remedy }, status = 0) {
    super(message);
    this.code = code;
    this.remedy = remedy;
    this.status = status;
  }
}

export const isCancelled = (error) => error?.name === "AbortError";

async function reached(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (isCancelled(error)) throw error;
    throw new Refused({
      code: "unreachable",
      message: "The service does not answer.",
      remedy: "See whether `dualview serve` still runs, then try again.",
    });
  }
  if (answer.ok) return answer;
  let said;
  try { said = (await answer.json()).error; } catch { /* not our service's words */ }
  said ??= { code: "unknown", message: `The service answered ${answer.status}.`,
    remedy: "Look at the service's log." };
  if (answer.status === 401 && path !== SESSION) dispatchEvent(new Event("needs-key"));
  throw new Refused(said, answer.status);
}

/** JSON of a GET. params: as `URLSearchParams` takes them; null and "" are left out. */
export async function get(path, params = {}, signal) {
  const given = Object.entries(params).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const asked = new URLSearchParams(given);
  const answer = await reached(asked.size ? `${path}?${asked}` : path, { signal });
  return noticed(await answer.json());
}

/** JSON of a POST of JSON, or of a form. */
export async function post(path, body, signal) {
  const form = body instanceof FormData;
  const answer = await reached(path, {
    method: "POST", signal, body: form ? body : JSON.stringify(body),
    headers: form ? {} : { "Content-Type": "application/json" },
  });
  return noticed(await answer.json());
}

let release = null;
/** An answer, looked at for the release that gave it: after another one took over, nothing that was kept holds. */
function noticed(answer) {
  if (answer.release && answer.release !== release) {
    if (release !== null) forget();
    release = answer.release;
    dispatchEvent(new CustomEvent("release", { detail: release }));
  }
  return answer;
}

const SESSION = "v1/session";
/** Show the service its key. The browser then has a cookie that stands for it, and pictures come too. */
export const openSession = (key) => reached(SESSION, { method: "POST", headers: { Authorization: `Bearer ${key}` } });

const once = new Map();
/** A GET that does not change while the page is open; a failure is asked again. */
export function constant(path, params = {}) {
  const key = `${path}?${new URLSearchParams(params)}`;
  if (!once.has(key)) once.set(key, get(path, params).catch((error) => { once.delete(key); throw error; }));
  return once.get(key);
}

/** Forget what `constant` keeps: a key was given, or another release is served. */
export const forget = () => once.clear();

export const itemPath = (id) => `v1/items/${encodeURIComponent(id)}`;
export const item = async (id) => (await constant(itemPath(id))).item;
