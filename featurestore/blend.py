"""The best items by a weighted sum of cosines, of one feature or of several.

    score(item) = sum over features f of  weight_f x cosine_f(query, item),  0 for a feature that the item lacks

Several features are merged by the threshold algorithm (Fagin, Lotem and Naor, PODS 2001). The best of each feature are
fetched, and every item that was fetched is scored exactly by all of them. An item that was not fetched cannot score
more than the sum of what the last fetched of each feature scored: once the k-th best is above that, the answer is
final; until then more are fetched. With exact indexes the answer is thus exact; with an approximate one, scores are
exact and what its shortlists miss is missed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featurestore.query import Asked, Bool, Float32, Int64

FEW = 4096  # rows up to which all are scored at once
DEEPER = 4  # times as many are fetched when a threshold was not reached
SHARE = 4  # beyond one row in so many a shortlist costs more than scoring all

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Rows of a release, best first, equal scores by row. scores: (m,) float32. rows: (m,) int64.

    parts: (m, number of features) what each feature adds to a score; NaN where the item lacks it.
    """

    scores: Float32
    rows: Int64
    parts: Float64

    def __len__(self) -> int:
        return len(self.rows)


def top(
    asked: Sequence[Asked], k: int, allowed: Bool | None, exclude: Int64, *, exact: bool = False
) -> Ranking:
    """The k best items that have a vector of at least one of the features.

    allowed: mask over the release's rows. exclude: rows that are not answered. exact: see `Query`.
    """
    if len(asked) == 1:
        rows, _ = _shortlist(asked[0], k, allowed, exclude, exact)
        return rank(asked, rows, k)
    every = _candidates(asked, allowed, exclude)
    if len(every) <= max(FEW, SHARE * k):
        return rank(asked, every, k)
    depth = max(2 * k, math.isqrt(k * len(every)))
    while depth * SHARE < len(every):
        lists = [_shortlist(one, depth, allowed, exclude, exact) for one in asked]
        found = rank(asked, np.unique(np.concatenate([rows for rows, _ in lists])), k)
        bound = sum(bound for _, bound in lists)  # in the order in which parts are summed
        if len(found) == k and found.scores[-1] > np.float32(bound):
            return found
        depth *= DEEPER
    return rank(asked, every, k)


def rank(asked: Sequence[Asked], rows: Int64, k: int) -> Ranking:
    """The k best of given rows."""
    by_feature = parts(asked, rows)
    scores = score(by_feature)
    order = np.lexsort((rows, -scores))[:k]
    return Ranking(scores[order], rows[order], by_feature[order])


def parts(asked: Sequence[Asked], rows: Int64) -> Float64:
    """(m, number of features) what each feature adds to each row's score; NaN where the item lacks it."""
    return np.stack([one.parts(rows) for one in asked], axis=1)


def score(by_feature: Float64) -> Float32:
    """(m,) sums of what each feature adds, from the first to the last."""
    total = np.zeros(len(by_feature))
    for column in by_feature.T:
        total = total + np.where(np.isnan(column), 0.0, column)
    return total.astype(np.float32)


def directions(asked: Sequence[Asked], rows: Int64) -> Float64:
    """(m, d) vectors whose inner products are the weighted sums of cosines between the items in `rows`."""
    blocks = []
    for one in asked:
        places = one.places(rows)
        block = np.zeros((len(rows), one.index.dim))
        block[places >= 0] = math.sqrt(one.weight) * one.index.unit(places[places >= 0]).astype(np.float64)
        blocks.append(block)
    return np.concatenate(blocks, axis=1)


def _candidates(asked: Sequence[Asked], allowed: Bool | None, exclude: Int64) -> Int64:
    """Rows that may be answered and have a vector of one of the features at least."""
    every = np.unique(np.concatenate([np.asarray(one.matrix.rows, np.int64) for one in asked]))
    if allowed is not None:
        every = every[allowed[every]]
    rows: Int64 = every[~np.isin(every, exclude)]
    return rows


def _shortlist(
    one: Asked, depth: int, allowed: Bool | None, exclude: Int64, exact: bool
) -> tuple[Int64, float]:
    """The best rows of one feature, and the most that it can add to the score of a row that is not among them."""
    own = one.places(exclude)
    scores, places = one.index.search(
        one.vector, depth, one.allowed(allowed), [own[own >= 0]] if len(own) else None, exact=exact
    )
    kept = places[0] >= 0
    rows = one.rows(places[0][kept])
    if len(rows) < depth:  # all that have the feature
        return rows, 0.0
    last = one.weight * float(scores[0][-1])
    return rows, last if one.complete else max(last, 0.0)
