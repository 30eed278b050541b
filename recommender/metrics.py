"""What a ranking is worth: thin exact functions of where the target stood, or of what a list holds.

Two shapes. Where a user has one target, everything follows from its 1-based rank, so those functions take
`ranks` ((n,) int64) and return one value a user, which is what paired tests need; the metric is their mean.
Where a query has several right answers, perhaps better and worse ones, the functions take `gains` ((n,
depth), the gain of what stands at each place, 0 for wrong) and, where an ideal is needed, what could have
been gained.

How a rank is found among equal scores is decided in `recommender.ranking`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from recommender.events import Int64

Float64 = npt.NDArray[np.float64]
Gains = npt.NDArray[Any]


# one target a user: from its rank


def hit_rate(ranks: Int64, k: int) -> Float64:
    """HR@k: 1 where the target is among the first k, else 0. With one target a user it equals Recall@k."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: Int64, k: int) -> Float64:
    """NDCG@k = 1 / log2(rank + 1) where rank <= k, else 0 (Jarvelin & Kekalainen 2002; the ideal DCG is
    1)."""
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


def reciprocal_rank(ranks: Int64, k: int) -> Float64:
    """MRR@k = 1 / rank where rank <= k, else 0 (Voorhees 1999, cut at k)."""
    return np.where(ranks <= k, 1.0 / ranks, 0.0)


def auc(ranks: Int64, candidates: Int64) -> Float64:
    """Share of the other candidates that stand below the target: (candidates - rank) / (candidates - 1).

    candidates: (n,) how many items were ranked, the target among them. NaN where it stood alone.
    """
    others = candidates - 1.0
    values: Float64 = np.full(len(ranks), np.nan)
    np.divide(candidates - ranks, others, out=values, where=others > 0)
    return values


RANK_METRICS: dict[str, Callable[[Int64, int], Float64]] = {
    "HR": hit_rate,
    "NDCG": ndcg,
    "MRR": reciprocal_rank,
}


def from_ranks(ranks: Int64, ks: Iterable[int]) -> dict[str, float]:
    """Means over users: {"HR@5": ..., "NDCG@5": ..., ...}; NaN where there is no user."""
    return {
        f"{name}@{k}": float(metric(ranks, k).mean()) if len(ranks) else float("nan")
        for name, metric in RANK_METRICS.items()
        for k in ks
    }


def pooled_auc(positive: npt.NDArray[Any], negative: npt.NDArray[Any]) -> float:
    """Chance that a random positive row scores above a random negative one, over all users' rows together.

    Equal scores count half (Mann-Whitney). It asks more than the mean of each user's AUC: scores must be
    comparable between users. The protocol of MLLM-MSR reports this one.
    """
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    up_to = np.searchsorted(ordered, positive, side="right")
    return float((below + up_to).mean() / 2.0 / len(ordered))


# lists with any number of right answers: from the gain at each place


def precision(gains: Gains, k: int) -> Float64:
    """P@k: share of the first k places that hold something right. A list shorter than k counts its lack as
    wrong."""
    right = np.count_nonzero(gains[:, :k] > 0, axis=1)
    return np.asarray(right / k, dtype=np.float64)


def recall(gains: Gains, k: int, relevant: Int64) -> Float64:
    """R@k: share of a query's right answers that stand among the first k. relevant: (n,) how many there are,
    > 0."""
    right = np.count_nonzero(gains[:, :k] > 0, axis=1)
    return np.asarray(right / relevant, dtype=np.float64)


def average_precision(gains: Gains, k: int, relevant: Int64) -> Float64:
    """AP@k: P@i averaged over the places i <= k that hold something right, over the number of right
    answers."""
    right = gains[:, :k] > 0
    precisions = np.cumsum(right, axis=1) / np.arange(1, right.shape[1] + 1)
    return np.asarray((precisions * right).sum(axis=1) / relevant, dtype=np.float64)


def first_right(gains: Gains, k: int) -> Float64:
    """RR@k: 1 / place of the first right answer among the first k, else 0."""
    right = gains[:, :k] > 0
    return np.where(right.any(axis=1), 1.0 / (right.argmax(axis=1) + 1.0), 0.0)


def graded_ndcg(gains: Gains, k: int, ideal: Gains) -> Float64:
    """NDCG@k of graded lists: DCG = sum of gain / log2(place + 1), over that of the best possible list.

    ideal: (n, m) the gains of all of a query's right answers, in any order, 0-padded; m may exceed k. Gains
    are used as given (the form of trec_eval), not as 2^gain - 1. NaN where nothing could be gained.
    """
    best = -np.sort(-ideal.astype(np.float64), axis=1)
    possible = _dcg(best[:, :k])
    values: Float64 = np.full(len(gains), np.nan)
    np.divide(_dcg(gains[:, :k]), possible, out=values, where=possible > 0)
    return values


def _dcg(gains: Gains) -> Float64:
    discount = 1.0 / np.log2(np.arange(2, gains.shape[1] + 2))
    return np.asarray(gains.astype(np.float64) @ discount, dtype=np.float64)


# what the lists show of the catalogue


def coverage(lists: npt.NDArray[Any], n_items: int) -> float:
    """Share of the catalogue that stands in at least one list. lists: (n, k) item rows, -1 where a list is
    short."""
    shown = np.unique(lists)
    return float((shown >= 0).sum() / n_items) if n_items else float("nan")


def novelty(lists: npt.NDArray[Any], counts: Int64) -> float:
    """Mean self-information of what is shown, in bits: -log2 p(item) (Zhou et al. 2010). Higher is less
    popular.

    p(item) = (counts + 1) / (sum + n_items): its share of the training events, one added so that an item that
    training never saw has a finite value (ours).
    """
    shown = lists[lists >= 0]
    if not len(shown):
        return float("nan")
    bits = -np.log2((counts + 1.0) / (counts.sum() + len(counts)))
    return float(bits[shown].mean())
