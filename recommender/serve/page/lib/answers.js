// Answers of the service in the one shape that views draw.
import { hueOf } from "../parts/weights.js";

/** {items, notes, told, used}. told: release, run and how it was searched, in a line; used: {feature: weight}. */
export function readAnswer(answer) {
  const features = answer.explain?.features ?? [];
  const used = features.length
    ? Object.fromEntries(features.map((one) => [one.feature, one.weight]))
    : Object.fromEntries((answer.index ?? []).map((one) => [one.feature, 1]));
  return { items: answer.items, notes: answer.notes ?? [], told: toldOf(answer), used };
}

function toldOf({ release, run, index = [], explain, facts }) {
  const searched = index.map(({ feature, exact, recall }) => {
    const how = exact ? "searched exactly" : recall === null || recall === undefined ? "searched by an index"
      : `searched by an index, recall ${recall.toFixed(3)}`;
    return run ? how : `${feature} ${how}`;
  });
  const passing = explain?.items_passing_filter ?? facts?.items_passing_filter;
  return [
    run && `run ${run}`, `release ${release}`, searched.join(", "),
    passing !== null && passing !== undefined && `${passing} items pass the filter`,
    facts?.events_unreadable > 0 && `${facts.events_unreadable} of ${facts.events} events unknown to the run`,
    facts?.items_left_out > 0 && `${facts.items_left_out} items unknown to the run`,
  ].filter(Boolean).join(" · ");
}

/** What each feature adds to a score, where the answer says it: [{feature, value, hue}]. */
export function partsOf(item, features) {
  const parts = item.explain?.parts ?? Object.fromEntries(Object.entries(item.explain ?? {})
    .filter(([name]) => name.startsWith("part.")).map(([name, value]) => [name.slice(5), value]));
  return Object.entries(parts).map(([feature, value]) => ({ feature, value, hue: hueOf(features, feature) }));
}
