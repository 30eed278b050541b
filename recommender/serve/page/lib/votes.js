// Which neighbourhood was better: told by whoever looks, kept in this tab and nowhere else.
import { recall, remember } from "./settings.js";

/** All votes of this tab: [{kind, query, left, right, better}], better: a name, or "same". */
export const votes = () => recall("votes", []);

export function vote(entry) {
  remember("votes", [...votes(), entry], { session: true });
}

export const clearVotes = () => remember("votes", [], { session: true });

/** {name: how often it was better, same: n} of the votes on two. */
export function tally(one, other) {
  const counted = { [one]: 0, [other]: 0, same: 0 };
  for (const { left, right, better } of votes()) {
    if ([left, right].sort().join("\n") === [one, other].sort().join("\n")) counted[better] += 1;
  }
  return counted;
}

const cell = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

/** The votes as CSV. */
export const asCsv = () =>
  ["kind,query,left,right,better", ...votes().map((one) =>
    [one.kind, one.query, one.left, one.right, one.better].map(cell).join(","))].join("\n");
