"""Who scores groups beside the language model: chance, popularity, and any sequential run of the store, each asked
about exactly the same candidates at the same point in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.errors import BadInput, Conflict
from recommender.events import EventLog, Int64, Strings
from recommender.msr.pairs import Groups, Pairs
from recommender.runs import Run
from recommender.splits import Split, leave_one_out

Scores = npt.NDArray[np.float32]
GroupScorer = Callable[[Groups], Scores]
"""(groups) -> (m, 1 + n) float32, higher is likelier; -inf where a candidate is unknown to the scorer."""

SEPARATOR = "\x1f"  # no id holds it
BATCH = 4096  # groups whose item vectors are held at once


def chance(seed: int = 0) -> GroupScorer:
    """Uniform random scores, a function of seed, user and place in the group alone."""

    def score(groups: Groups) -> Scores:
        rows = [
            np.random.default_rng([seed, *f"{user}{SEPARATOR}{history}".encode()]).random(
                groups.items.shape[1]
            )
            for user, history in zip(groups.users.tolist(), groups.history.tolist(), strict=True)
        ]
        return np.asarray(rows, dtype=np.float32).reshape(groups.items.shape)

    return score


def popularity(log: EventLog, pairs: Pairs) -> GroupScorer:
    """Items by their training events: of a leave-one-out split those before each user's validation target; of a
    split by user all events of the users who are not asked.
    """
    if pairs.options.split == "leave-one-out":
        known = leave_one_out(log).in_training
    else:
        asked = np.concatenate([pairs.parts["valid"].users, pairs.parts["test"].users])
        known = ~np.isin(log.user_ids, asked)[log.users]
    counts = np.bincount(log.items[known], minlength=log.n_items).astype(np.float32)

    def score(groups: Groups) -> Scores:
        found: Scores = counts[rows_of(log.item_ids, groups.items)]
        return found

    return score


@dataclass(frozen=True, eq=False)
class Sequential:
    """A sequential model over items of its own.

    ids: (m,) sorted. vectors: (m, d), what a user vector is multiplied with. ranked: (m,) bool, the item may be a
    candidate: its vector was learnt or is made of features. user_vectors: as of `SequentialModel`.
    """

    ids: Strings
    vectors: npt.NDArray[np.float32]
    ranked: npt.NDArray[np.bool_]
    user_vectors: Callable[[Int64, Int64, Int64], Scores]

    def rows_of(self, ids: Strings) -> Int64:
        """The row of each id, -1 where it has none."""
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at, -1).astype(np.int64)


def of_run(run: Run, release: Any, log: EventLog, test: Groups | None = None) -> GroupScorer:
    """A sequential run of a store, which answers for items of `release` that came later too, as in `recommend`.

    release: the one that the run learnt from, `log` its events. test: groups of the test. Raises Conflict where one of
    those chose the epoch, and, when asked, where the run was trained on an event that is asked for.
    """
    from recommender import data
    from recommender.served import serve

    split = data.split_of(release, run.config)
    if split.hash != run.split_hash:
        raise Conflict(
            f"run {run.name} was trained on other events than its release gives",
            remedy="train again: dualview train",
        )
    if test is not None and (chose := _judged(split, log, test)):
        raise Conflict(
            f"run {run.name} chose its epoch by {chose:,} of the {len(test):,} events of the test",
            remedy="train it with split = 'leave-one-out' and without k_core, or draw the pairs by leave-one-out",
        )
    served, model = serve(run, release)
    # what is not in the release any more is still read in histories and ranked
    every = np.ones(len(served.ids), dtype=np.bool_)
    return sequential(Sequential(served.ids, served.vectors, every, model.user_vectors), split, log, run.name)


def sequential(model: Sequential, split: Split, log: EventLog, name: str) -> GroupScorer:
    """A model as a scorer: it reads a user's events before the target. split: what it was trained on.

    An item that it does not know is left out of histories; a candidate that it cannot rank scores -inf.
    """
    inside = split.in_training
    trained, times = np.unique(
        _keys(split.log.user_ids[split.log.users[inside]], split.log.item_ids[split.log.items[inside]]),
        return_counts=True,
    )
    rows = model.rows_of(log.item_ids)[log.items]

    def score(groups: Groups) -> Scores:
        leaked = _learnt(log, groups, dict(zip(trained.tolist(), times.tolist(), strict=True)))
        if leaked:
            raise Conflict(
                f"run {name} was trained on {leaked:,} of the {len(groups):,} events that are asked for",
                remedy="train it with split = 'leave-one-out' and without k_core, or draw the pairs by leave-one-out",
            )
        first = log.offsets[rows_of(log.user_ids, groups.users)]
        readable, starts, ends = _closed_up(rows, first, first + groups.history)
        reads = ends > starts
        vectors = np.zeros((len(groups), model.vectors.shape[1]), dtype=np.float32)
        if reads.any():
            vectors[reads] = model.user_vectors(readable, starts[reads], ends[reads])
        items = model.rows_of(groups.items.ravel()).reshape(groups.items.shape)
        found = np.empty(items.shape, dtype=np.float32)
        for at in range(0, len(groups), BATCH):
            part = slice(at, at + BATCH)
            found[part] = np.einsum("md,mnd->mn", vectors[part], model.vectors[items[part]])
        found[(items < 0) | ~model.ranked[items]] = -np.inf
        return found

    return score


def rows_of(vocabulary: npt.NDArray[np.str_], ids: npt.NDArray[np.str_]) -> Int64:
    """Rows of ids in a sorted vocabulary. Raises BadInput for one that is not there."""
    rows = np.minimum(np.searchsorted(vocabulary, ids), max(len(vocabulary) - 1, 0))
    wrong = vocabulary[rows] != ids
    if wrong.any():
        raise BadInput(
            f"'{ids[wrong].ravel()[0]}' of the pairs is not in this log",
            remedy="draw the pairs of the release that is asked",
        )
    return rows.astype(np.int64)


def _learnt(log: EventLog, groups: Groups, trained: Mapping[str, int]) -> int:
    """How many groups ask about an event of training: one whose user took the item there more often than before the
    event that is asked about. trained: `_keys` -> how often.
    """
    first = log.offsets[rows_of(log.user_ids, groups.users)]
    items = rows_of(log.item_ids, groups.targets)
    found = 0
    for place, key in enumerate(_keys(groups.users, groups.targets).tolist()):
        if key in trained:
            before = log.items[first[place] : first[place] + groups.history[place]]
            found += int(trained[key] > np.count_nonzero(before == items[place]))
    return found


def _judged(split: Split, log: EventLog, groups: Groups) -> int:
    """How many groups ask about a validation target of the split: the same user and item, taken as often before."""
    users = split.users("valid")
    first, target = split.history(users, "valid")
    names = _keys(split.log.user_ids[users], split.log.item_ids[split.log.items[target]])
    judged = {
        key: int(np.count_nonzero(split.log.items[a:b] == split.log.items[b]))
        for key, a, b in zip(names.tolist(), first.tolist(), target.tolist(), strict=True)
    }
    first = log.offsets[rows_of(log.user_ids, groups.users)]
    items = rows_of(log.item_ids, groups.targets)
    found = 0
    for place, key in enumerate(_keys(groups.users, groups.targets).tolist()):
        if key in judged:
            before = log.items[first[place] : first[place] + groups.history[place]]
            found += int(judged[key] == np.count_nonzero(before == items[place]))
    return found


def _closed_up(rows: Int64, first: Int64, last: Int64) -> tuple[Int64, Int64, Int64]:
    """The same ranges of events without those that have no row: (events that have one, starts, ends)."""
    before = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(rows >= 0, out=before[1:])
    return rows[rows >= 0].astype(np.int64), before[first], before[last]


def _keys(users: npt.NDArray[np.str_], items: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    return np.char.add(np.char.add(users, SEPARATOR), items)
