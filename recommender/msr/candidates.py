"""Negatives for given moments: items that a user never took, before or after, drawn from what there was by then.

A draw is from a *pool*, the items in the order in which they came: for row i only the first `bound[i]` places of it.
Listing each item once gives uniform draws, listing it once an event draws by popularity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from featurestore.errors import BadInput
from recommender.events import Bool, EventLog, Int64

Weighting = Literal["uniform", "popularity"]
Catalogue = Literal["then", "all"]
ROUNDS = 20  # of drawing and rejecting; what is open then is drawn from a list of what is left


@dataclass(frozen=True, eq=False)
class Pool:
    """items: (p,) rows of the vocabulary, in order of time. bound: (m,) for each draw, places of `items` it may use."""

    items: Int64
    bound: Int64


def pool(log: EventLog, at: Int64, weighting: Weighting, catalogue: Catalogue) -> Pool:
    """What may be drawn for events at the rows `at` (m,).

    catalogue: "then" are the items that somebody had taken by the time of the event (by popularity: as often as they
    had been taken by then); "all" are those of the whole log. A log without a clock cannot tell, and is "all".
    """
    order = np.arange(len(log), dtype=np.int64) if log.times is None else np.argsort(log.times, kind="stable")
    items = log.items[order].astype(np.int64)
    times = None if log.times is None else log.times[order]
    if weighting == "uniform":
        _, first = np.unique(items, return_index=True)
        first.sort()
        items, times = items[first], None if times is None else times[first]
    if times is None or log.times is None or catalogue == "all":
        return Pool(items, np.full(len(at), len(items), dtype=np.int64))
    return Pool(items, np.searchsorted(times, log.times[at], side="right").astype(np.int64))


def taken_keys(log: EventLog) -> Int64:
    """Sorted keys user * n_items + item of all that anybody took."""
    keys = np.sort(log.users.astype(np.int64) * max(log.n_items, 1) + log.items)
    distinct: Int64 = keys[np.diff(keys, prepend=-1) > 0]
    return distinct


def enough(log: EventLog, at: Int64, among: Pool, n: int, taken: Int64) -> Bool:
    """(m,) bool: the pool of this row holds `n` different items that its user never took. taken: `taken_keys(log)`."""
    _, first = np.unique(among.items, return_index=True)
    fresh = np.zeros(len(among.items) + 1, dtype=np.int64)  # different items in the first b places
    fresh[first + 1] = 1
    fresh = np.cumsum(fresh)
    place = np.full(log.n_items, len(among.items), dtype=np.int64)
    place[among.items[first]] = first
    # of each user the places at which the pool first has what that user took, ascending
    width = len(among.items) + 1
    keys = np.sort(taken // max(log.n_items, 1) * width + place[taken % max(log.n_items, 1)])
    user = log.users[at].astype(np.int64) * width
    own = np.searchsorted(keys, user + among.bound) - np.searchsorted(keys, user)
    plenty: Bool = fresh[among.bound] - own >= n
    return plenty


def draw(log: EventLog, at: Int64, among: Pool, n: int, rng: np.random.Generator, taken: Int64) -> Int64:
    """(m, n) rows of the vocabulary: different items for each event of `at`, none of which its user has anywhere in the
    log. Successive draws without replacement, each by its share of the pool.

    Raises BadInput where a row has fewer than n; see `enough`.
    """
    if not enough(log, at, among, n, taken).all():
        raise BadInput(f"some users have fewer than {n} items that they never took")
    chosen = np.full((len(at), n), -1, dtype=np.int64)
    users = log.users[at].astype(np.int64)
    rows = np.arange(len(at))
    for _ in range(ROUNDS):
        if not len(rows):
            return chosen
        for column in range(n):
            empty = rows[chosen[rows, column] < 0]
            place = (rng.random(len(empty)) * among.bound[empty]).astype(np.int64)
            item = among.items[place]
            key = users[empty] * log.n_items + item
            at_most = np.minimum(np.searchsorted(taken, key), len(taken) - 1)
            good = (taken[at_most] != key) & ~(chosen[empty] == item[:, None]).any(axis=1)
            chosen[empty[good], column] = item[good]
        rows = rows[(chosen[rows] < 0).any(axis=1)]
    for row in rows.tolist():
        _draw_from_list(log, row, int(at[row]), among, chosen, rng)
    return chosen


def _draw_from_list(
    log: EventLog, row: int, at: int, among: Pool, chosen: Int64, rng: np.random.Generator
) -> None:
    """Fill the empty places of one row from a list of all that is left: for users who took nearly everything."""
    user = int(log.users[at])
    weight = np.bincount(among.items[: among.bound[row]], minlength=log.n_items).astype(np.float64)
    weight[log.items[log.offsets[user] : log.offsets[user + 1]]] = 0
    weight[chosen[row][chosen[row] >= 0]] = 0
    empty = np.flatnonzero(chosen[row] < 0)
    chosen[row, empty] = rng.choice(log.n_items, size=len(empty), replace=False, p=weight / weight.sum())
