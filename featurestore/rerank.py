"""Rankings made from other rankings: fused by reciprocal rank, or made diverse. numpy in, numpy out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RRF_K = 60  # of Cormack et al.: how little the first places count more than those after them
SPARE_POOL, LEAST_POOL = 5, 50  # a diverse answer of k is chosen among the best 5 k, and at least 50

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


def reciprocal_rank(rankings: Sequence[npt.ArrayLike]) -> tuple[Int64, Float64]:
    """Fuse rankings of rows, each best first: score = sum over rankings of 1 / (60 + rank), rank from 1.

    A row that a ranking does not hold gets nothing from it. Returns rows (n,) best first, equal scores by row, and what
    each ranking gave to each row (n, number of rankings); the score is their sum. Cormack, Clarke and Büttcher,
    "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods", SIGIR 2009.
    """
    lists = [np.asarray(ranking, np.int64) for ranking in rankings]
    rows = np.unique(np.concatenate(lists))
    parts = np.zeros((len(rows), len(lists)))
    for column, ranking in enumerate(lists):
        parts[np.searchsorted(rows, ranking), column] = 1 / (RRF_K + np.arange(1, len(ranking) + 1))
    order = np.lexsort((rows, -parts.sum(axis=1)))
    return rows[order], parts[order]


def pool_size(k: int) -> int:
    """How many of the best a diverse answer of k is chosen among."""
    return max(LEAST_POOL, SPARE_POOL * k)


def diverse(relevance: npt.ArrayLike, vectors: npt.ArrayLike, k: int, diversity: float) -> Int64:
    """Places of k of the candidates, by maximal marginal relevance:

        next = argmax of (1 - diversity) x relevance - diversity x greatest similarity to those chosen before

    relevance: (n,). vectors: (n, d); their inner products are the similarities. Among equals the first comes first, so
    candidates stand by relevance. Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering
    documents and producing summaries", SIGIR 1998, with lambda = 1 - diversity.
    """
    relevant, directions = np.asarray(relevance, np.float64), np.asarray(vectors, np.float64)
    chosen: list[int] = []
    nearest = np.full(len(relevant), -np.inf)
    left = np.ones(len(relevant), np.bool_)
    for _ in range(min(k, len(relevant))):
        penalty = nearest if chosen else np.zeros(len(relevant))
        gain = np.where(left, (1 - diversity) * relevant - diversity * penalty, -np.inf)
        best = int(np.argmax(gain))
        chosen.append(best)
        left[best] = False
        np.maximum(nearest, directions @ directions[best], out=nearest)
    return np.asarray(chosen, np.int64)
