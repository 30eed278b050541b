"""Where a target stands among scores, and which items stand first: exact, vectorised, without sorting a row.

One order everywhere, the order in which retrieval answers: higher score first, and among equal scores the
smaller row, that is the smaller item id. So a scorer that gives all items one score gains nothing it could
aim for: its target's place is that of its id. An item that is out of the ranking (seen before) carries NaN,
which is above and equal to nothing; -inf remains an ordinary lowest score.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from recommender.events import Int64

Scores = npt.NDArray[np.float32]


def ranges(start: Int64, stop: Int64) -> tuple[Int64, Int64]:
    """All integers of [start_i, stop_i) one after the other, and the i that each belongs to."""
    lengths = stop - start
    owner = np.repeat(np.arange(len(start)), lengths)
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) - before[owner] + start[owner], owner


def target_ranks(scores: Scores, targets: Int64) -> tuple[Int64, Int64]:
    """1-based rank of each row's target, and how many other items have exactly its score.

    scores: (b, n) float32, NaN for items out of the ranking, never at the target. targets: (b,) columns.
    """
    own = scores[np.arange(len(scores)), targets][:, None]
    ranks = 1 + np.count_nonzero(scores > own, axis=1)
    equal = np.count_nonzero(scores == own, axis=1) - 1
    for row in np.flatnonzero(equal):
        ranks[row] += np.count_nonzero(scores[row, : targets[row]] == own[row])
    return ranks, equal


def top_k(scores: Scores, k: int) -> npt.NDArray[np.int32]:
    """(b, k) int32: columns of the k best, best first, ties by column; -1 where fewer than k are in the
    ranking."""
    b, n = scores.shape
    k_here = min(k, n)
    answer = np.full((b, k), -1, dtype=np.int32)
    if k_here == 0 or b == 0:
        return answer
    down = -scores  # ascending order puts NaN last
    best = np.argpartition(down, k_here - 1, axis=1)[:, :k_here]
    best.sort(axis=1)  # by column, so that the stable sort below leaves ties in column order
    values = np.take_along_axis(down, best, axis=1)
    # where the last value taken also stands outside, the partition chose freely among equals: take the first
    last = values.max(axis=1)
    inside = np.count_nonzero(values == last[:, None], axis=1)
    over = np.count_nonzero(down == last[:, None], axis=1) > inside
    for row in np.flatnonzero(over):
        better = np.flatnonzero(down[row] < last[row])
        equals = np.flatnonzero(down[row] == last[row])[: k_here - len(better)]
        best[row] = np.sort(np.concatenate([better, equals]))
        values[row] = down[row, best[row]]
    order = np.argsort(values, axis=1, kind="stable")
    chosen = np.take_along_axis(best, order, axis=1)
    out = np.isnan(np.take_along_axis(values, order, axis=1))
    answer[:, :k_here] = np.where(out, -1, chosen)
    return answer


def as_scores(answer: Any, b: int, n: int) -> Scores:
    """A private float32 copy of what a scorer returned, refused if its shape is wrong or it holds NaN."""
    scores = np.array(answer, dtype=np.float32, copy=True)
    if scores.shape != (b, n):
        raise ValueError(f"the scorer returned shape {scores.shape}; {b} users and {n} items need ({b}, {n})")
    if n and np.isnan(scores.max(axis=1)).any():
        bad = int(np.isnan(scores).any(axis=1).argmax())
        raise ValueError(f"the scorer returned NaN (first for row {bad} of its batch)")
    return scores
