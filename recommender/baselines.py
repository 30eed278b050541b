"""The floors that a model must clear: popularity, neighbours by who took them or by content, chance. Each is a
`score_fn` for `evaluate`.

They learn from the split's training events only. What a user did before the target is known to them as it is to a
model: for test, the validation events too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import BadInput
from recommender.events import Int64
from recommender.ranking import Scores, ranges
from recommender.splits import Split, Which

if TYPE_CHECKING:
    from ingest.fuse.stored import Stored
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


def content_knn(
    split: Split, which: Which, features: Iterable[Stored], half_life: float | None = None
) -> ScoreFn:
    """Neighbours by content: a candidate's score is the cosine of its stored vector to the mean of the history's.

    features: over the items of the log; of several, cosines are added; of a feature with several vectors an item their
    mean is read. Vectors are brought to unit length first, so that each event of a history weighs the same. half_life:
    an event so many places before the last weighs half; None: all weigh the same. A candidate without a vector has
    the cosine -1, a history without any 0 to all. Nothing is learnt, so an item that training never saw fares as any
    other.
    """
    from scipy import sparse

    if half_life is not None and half_life <= 0:
        raise BadInput(f"half_life is a number of events above 0, got {half_life}")
    log, unit = split.log, []
    for stored in features:
        if len(stored) != log.n_items:
            raise BadInput(f"a feature covers {len(stored)} items of {log.n_items}")
        unit.append((_unit(stored.means), stored.present))
    if not unit:
        raise BadInput("neighbours by content need a feature", remedy="name one or more")

    def score(users: Int64) -> Scores:
        first, last = split.history(users, which)
        rows, owner = ranges(first, last)
        age = last[owner] - 1 - rows
        weight = np.ones(len(rows)) if half_life is None else 0.5 ** (age / half_life)
        entries = (weight.astype(np.float32), (owner, log.items[rows]))
        history = sparse.csr_matrix(entries, shape=(len(users), log.n_items))
        whole = np.zeros((len(users), log.n_items), dtype=np.float32)
        for vectors, present in unit:
            # the length of a mean is that of a sum but for a factor, and a cosine does not see it
            whole += np.where(present, _unit(np.asarray(history @ vectors)) @ vectors.T, np.float32(-1))
        return whole

    return score


def _unit(vectors: Scores) -> Scores:
    """Rows at length 1; zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
