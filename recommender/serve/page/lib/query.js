// What is asked, as the address keeps it and as the service takes it.
import { link } from "./router.js";

const MODES = ["hybrid", "vector", "keyword"];
export const K = 24;
export const GREATEST_K = 200;

/** A query from an address. weights: {feature: weight}, or null where the service chooses. */
export function fromParams(params) {
  const weights = Object.fromEntries(params.getAll("f").map((text) => {
    const at = text.lastIndexOf(":");
    const weight = at < 0 ? 1 : Number(text.slice(at + 1));
    return [at < 0 ? text : text.slice(0, at), Number.isFinite(weight) ? weight : 1];
  }));
  const k = Math.round(Number(params.get("k")));
  return {
    q: params.get("q") ?? "",
    like: params.getAll("like"),
    unlike: params.getAll("unlike"),
    picture: params.get("picture"),
    weights: Object.keys(weights).length ? weights : null,
    mode: MODES.includes(params.get("mode")) ? params.get("mode") : null,
    where: params.get("where") ?? "",
    diversity: Math.min(Math.max(Number(params.get("diversity")) || 0, 0), 1),
    k: k >= 1 && k <= GREATEST_K ? k : K,
    page: Math.max(Math.round(Number(params.get("page"))) || 0, 0),
  };
}

/**
 * How words are searched for. Unless it is chosen: by both rankings, since a vector alone misses names and rare words;
 * beside items by meaning, so that "like this, but red" stays near the item.
 */
export const modeOf = (query) => query.mode ?? (query.like.length ? "vector" : "hybrid");

/** The way back; what is as usual is left out. */
function toParams(query) {
  return {
    q: query.q,
    like: query.like,
    unlike: query.unlike,
    picture: query.picture,
    f: query.weights && Object.entries(query.weights).map(([name, weight]) => `${name}:${weight}`),
    mode: query.mode,
    where: query.where,
    diversity: query.diversity || null,
    k: query.k === K ? null : query.k,
    page: query.page || null,
  };
}

export const toLink = (query) => link("search", "", toParams(query));

/** Whether something is asked; otherwise the catalogue is leafed through. */
export const isAsked = (query) => Boolean(query.q.trim() || query.like.length || query.picture);

/** The body of POST /v1/similar. Keyword search compares no vectors and takes neither items nor weights. */
export function toBody(query, { pictured = false } = {}) {
  const words = query.q.trim();
  const weights = query.weights
    && Object.fromEntries(Object.entries(query.weights).filter(([, weight]) => weight > 0));
  const mode = words && !pictured ? modeOf(query) : "vector";
  const body = { k: query.k, explain: true };
  if (words) body.text = words;
  if (words && mode !== "vector") body.mode = mode;
  if (query.where.trim()) body.where = query.where.trim();
  if (mode === "keyword" && !query.like.length && !query.unlike.length && !query.picture) return body;
  if (query.like.length) body.items = query.like;
  if (query.unlike.length) body.unlike = query.unlike;
  if (weights && Object.keys(weights).length) body.features = weights;
  if (query.diversity) body.diversity = query.diversity;
  return body;
}

/** The query with an item added to like (or unlike), and taken from the other. */
export function withItem(query, id, side) {
  const other = side === "like" ? "unlike" : "like";
  return {
    ...query, page: 0,
    [side]: query[side].includes(id) ? query[side] : [...query[side], id],
    [other]: query[other].filter((one) => one !== id),
  };
}

export function withoutItem(query, id) {
  const like = query.like.filter((one) => one !== id);
  const unlike = query.unlike.filter((one) => one !== id);
  return { ...query, page: 0, like, unlike };
}
