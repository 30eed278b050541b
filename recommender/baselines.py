"""The floors that a model must clear: popularity, item-to-item neighbours, chance. Each is a `score_fn` for
`evaluate`.

They learn from the split's training events only. What a user did before the target is known to them as it is
to a
model: for test, the validation events too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import BadInput
from recommender.events import Int64
from recommender.ranking import Scores, ranges
from recommender.splits import Split, Which

if TYPE_CHECKING:
    from recommender.evaluate import ScoreFn


def popularity(split: Split) -> ScoreFn:
    """The same list for everybody: items by their number of training events."""
    counts = split.counts.astype(np.float32)

    def score(users: Int64) -> Scores:
        return np.broadcast_to(counts, (len(users), len(counts)))

    return score


def chance(split: Split, seed: int = 0) -> ScoreFn:
    """Uniform random scores; a user's scores depend on seed and user only, not on the batch."""

    def score(users: Int64) -> Scores:
        n = split.log.n_items
        rows = [np.random.default_rng((seed, int(user))).random(n, dtype=np.float32) for user in users]
        return np.stack(rows) if rows else np.zeros((0, n), dtype=np.float32)

    return score


def item_knn(split: Split, which: Which, neighbours: int = 100, shrink: float = 10.0) -> ScoreFn:
    """Item-to-item neighbours: a candidate's score is its summed similarity to the items of the user's
    history.

    sim(i, j) = users who took both / (sqrt(users of i * users of j) + shrink), over training events, kept for
    the `neighbours` nearest of each item (Sarwar et al. 2001; the shrinkage damps pairs that few users
    support).
    """
    from scipy import sparse

    if neighbours < 1 or shrink < 0:
        raise BadInput(f"item_knn needs neighbours >= 1 and shrink >= 0, got {neighbours} and {shrink}")
    log, n = split.log, split.log.n_items
    inside = split.in_training

    def taken(rows: Int64, owner: Int64, n_rows: int) -> Any:
        """(n_rows, n) sparse, 1 where a row's events hold the item."""
        shape = (n_rows, n)
        matrix = sparse.csr_matrix(
            (np.ones(len(rows), dtype=np.float32), (owner, log.items[rows])), shape=shape
        )
        matrix.data[:] = 1.0  # a repeat counts once
        return matrix

    users_items = taken(np.flatnonzero(inside), log.users[inside].astype(np.int64), log.n_users)
    takers = np.asarray(users_items.sum(axis=0)).ravel()
    nearest = []
    for start in range(0, n, 1024):
        both = (users_items[:, start : start + 1024].T @ users_items).tocoo()
        keep = both.row + start != both.col
        row, col, count = both.row[keep], both.col[keep], both.data[keep]
        value = count / (np.sqrt(takers[row + start] * takers[col]) + shrink)
        order = np.lexsort((col, -value, row))
        place = np.arange(len(order)) - np.searchsorted(row[order], row[order])
        order = order[place < neighbours]
        shape = (min(1024, n - start), n)
        nearest.append(sparse.csr_matrix((value[order], (row[order], col[order])), shape=shape))
    similar = sparse.vstack(nearest, format="csr") if nearest else sparse.csr_matrix((n, n))

    def score(users: Int64) -> Scores:
        rows, owner = ranges(*split.history(users, which))
        dense: Scores = (taken(rows, owner, len(users)) @ similar).toarray().astype(np.float32)
        return dense

    return score
