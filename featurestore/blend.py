"""The best items by a weighted sum of cosines, of one feature or of several.

    score(item) = sum over features f of  weight_f x cosine_f(query, item),  0 for a feature that the item lacks

Several features with exact indexes: the sums of all items in single precision, of which those that rounding could have
kept from the best k are scored again in double. So the answer is exact. Where an index is approximate, what is scored
is the union of each feature's shortlist: scores are exact, but an item that is in none of the lists is missed, such as
one that is good by the sum and far down by each feature.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featurestore.exact import GATHERED, UNIT_ROUNDOFF
from featurestore.query import Asked, Bool, Float32, Int64

FEW = 256  # rows up to which all are scored in double at once
SHORTLIST, LEAST_SHORTLIST = 10, 100  # of an approximate index are taken the best 10 k, and at least 100

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
        return rank(asked, _shortlist(asked[0], k, allowed, exclude, exact), k)
    if exact or all(one.index.exact for one in asked):
        return rank(asked, _possible(asked, _candidates(asked, allowed, exclude), k), k)
    depth = max(LEAST_SHORTLIST, SHORTLIST * k)
    lists = [_shortlist(one, depth, allowed, exclude, exact) for one in asked]
    return rank(asked, np.unique(np.concatenate(lists)), k)


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
    there = np.zeros(max(int(one.matrix.rows[-1]) + 1 if len(one.matrix) else 0 for one in asked), np.bool_)
    for one in asked:
        there[one.matrix.rows] = True
    if allowed is not None:
        there &= allowed[: len(there)]
    there[exclude[exclude < len(there)]] = False
    return np.flatnonzero(there)


def _possible(asked: Sequence[Asked], rows: Int64, k: int) -> Int64:
    """Those of `rows` that can be among the best k, whatever rounding does to their sums."""
    if len(rows) <= max(FEW, k):
        return rows
    sums, margin = np.zeros(len(rows)), 0.0
    for one in asked:
        places = one.places(rows)
        there = places >= 0
        wanted = places[there]
        if len(wanted) <= GATHERED * len(one.index):
            near, off = one.index.products(one.vector, wanted)
        else:
            every, off = one.index.products(one.vector)
            near = every[wanted]
        sums[there] += one.weight * near
        margin += one.weight * (off + 2 * UNIT_ROUNDOFF)  # a sum is rounded, too
    kth = np.partition(sums, len(sums) - k)[len(sums) - k]
    found: Int64 = rows[sums >= kth - 2 * margin]
    return found


def _shortlist(one: Asked, depth: int, allowed: Bool | None, exclude: Int64, exact: bool) -> Int64:
    """The best rows of one feature."""
    own = one.places(exclude)
    left_out = [own[own >= 0]] if len(own) else None
    _, places = one.index.search(one.vector, depth, one.allowed(allowed), left_out, exact=exact)
    return one.rows(places[0][places[0] >= 0])
