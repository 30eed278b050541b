"""What is learnt from and what is asked for: each user's training events, a validation and a test target.

A split never moves or copies events; it is a cut through the log. The training events of user u are
`log.items[offsets[u]:train_end[u]]`. A target is the row of one event; its history is every event of that
user before it, so at test time a user's validation events are known to the model, as they would be in use.

To measure how new items are recommended, `hide_items` makes some of them new: a split over a log in which nobody
took them yet, but as what test asks for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from featurestore.errors import BadInput
from recommender.events import Bool, EventLog, Int64

Which = Literal["valid", "test"]


@dataclass(frozen=True, eq=False)
class Split:
    """A cut through a log.

    train_end: (n_users,) int64, the row after the user's last training event.
    valid, test: (n_users,) int64, the row of the user's target event, or -1 where the user has none.
    description: the rule in words, for reports.
    no_history: (users without a validation target, without a test target) because their first event in the
        window is their first event of all; nothing is known of them before it.
    hidden: rows of the items that are hidden (`hide_items`), ascending.
    put_aside: (users, items, rows) of the events that left the log with them, and the rows of the log that they stood
        before. Nothing reads them; who ranks for a user takes out what the user had, and these are part of that.
    """

    log: EventLog
    name: str
    description: str
    train_end: Int64
    valid: Int64
    test: Int64
    no_history: tuple[int, int] = (0, 0)
    hidden: Int64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    put_aside: tuple[Int64, Int64, Int64] = field(
        default_factory=lambda: (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))
    )

    @cached_property
    def hash(self) -> str:
        """sha256 over the log (ids, events, times), the cut and the targets: equal hashes, comparable
        figures."""
        digest = hashlib.sha256(self.log.hash.encode())
        for rows in (self.train_end, self.valid, self.test):
            digest.update(rows.astype("<i8").tobytes())
        if len(self.hidden):
            for rows in (self.hidden, *self.put_aside[:2]):
                digest.update(rows.astype("<i8").tobytes())
        return digest.hexdigest()

    @cached_property
    def counts(self) -> Int64:
        """(n_items,) int64: training events of each item."""
        return np.bincount(self.log.items[self.in_training], minlength=self.log.n_items).astype(np.int64)

    @property
    def in_training(self) -> Bool:
        """(n_events,) bool."""
        mask: np.ndarray[tuple[int], np.dtype[np.bool_]] = (
            np.arange(len(self.log)) < self.train_end[self.log.users]
        )
        return mask

    @cached_property
    def is_hidden(self) -> Bool:
        """(n_items,) bool."""
        mask = np.zeros(self.log.n_items, dtype=np.bool_)
        mask[self.hidden] = True
        return mask

    def rows(self, which: Which) -> Int64:
        """(n_users,) int64: the target rows of `which`, -1 where none."""
        if which not in ("valid", "test"):
            raise BadInput(f"there are targets 'valid' and 'test', not {which!r}")
        return self.valid if which == "valid" else self.test

    def users(self, which: Which) -> Int64:
        """Users (int64, ascending) that have a target."""
        return np.flatnonzero(self.rows(which) >= 0)

    def targets(self, which: Which) -> Int64:
        """The target item of each of `users(which)`."""
        rows = self.rows(which)
        return self.log.items[rows[rows >= 0]].astype(np.int64)

    def history(self, users: Int64, which: Which) -> tuple[Int64, Int64]:
        """(first, last) event rows, last exclusive, of what each user did before that target."""
        return self.log.offsets[users], self.rows(which)[users]

    def taken_aside(self, users: Int64, which: Which | None = None) -> tuple[Int64, Int64]:
        """(place in `users`, item) of each event of these users that was put aside; with `which`, of those before that
        target.
        """
        place = np.full(self.log.n_users, -1, dtype=np.int64)
        place[users] = np.arange(len(users))
        taken_by, item, row = self.put_aside
        owner = place[taken_by]
        asked = owner >= 0
        if which is not None:
            asked &= row <= self.rows(which)[taken_by]
        return owner[asked], item[asked]

    def tied(self, which: Which) -> Int64:
        """Users whose target has the same time as the event before or after it: input order decided which is
        asked."""
        users = self.users(which)
        rows = self.rows(which)[users]
        after = np.minimum(rows + 1, len(self.log) - 1)
        follows = (rows + 1 < self.log.offsets[users + 1]) & self.log.tied[after]
        return users[self.log.tied[rows] | follows]

    @cached_property
    def ties(self) -> int:
        """Number of users for whom a target, of validation or test, hangs on a tied time."""
        return len(np.union1d(self.tied("valid"), self.tied("test")))

    def numbers(self) -> dict[str, int]:
        """Every user and event accounted for."""
        valid, test = self.users("valid"), self.users("test")
        with_target = len(np.union1d(valid, test))
        return {
            "users": self.log.n_users,
            "items": self.log.n_items,
            "events": len(self.log),
            "train_events": int(self.counts.sum()),
            "train_items": int((self.counts > 0).sum()),
            "valid_users": len(valid),
            "test_users": len(test),
            "users_without_target": self.log.n_users - with_target,
            "valid_without_history": self.no_history[0],
            "test_without_history": self.no_history[1],
            "valid_cold_targets": int((self.counts[self.targets("valid")] == 0).sum()),
            "test_cold_targets": int((self.counts[self.targets("test")] == 0).sum()),
            "valid_ties": len(self.tied("valid")),
            "test_ties": len(self.tied("test")),
        } | self._numbers_of_hidden()

    def _numbers_of_hidden(self) -> dict[str, int]:
        """Empty where no item is hidden."""
        if not len(self.hidden):
            return {}
        return {
            "hidden_items": len(self.hidden),
            "events_put_aside": len(self.put_aside[0]),
            "test_hidden_targets": int(self.is_hidden[self.targets("test")].sum()),
        }


def leave_one_out(log: EventLog) -> Split:
    """Each user's last event is the test target, the one before it is for validation, the rest is training.

    A user with fewer than three events has no target; all of those events are training.
    """
    first, last = log.offsets[:-1], log.offsets[1:]
    enough = last - first >= 3
    return Split(
        log=log,
        name="leave-one-out",
        description="last event of each user for test, the one before for validation, the rest for training; "
        "users with fewer than 3 events are training only",
        train_end=np.where(enough, last - 2, last),
        valid=np.where(enough, last - 2, -1),
        test=np.where(enough, last - 1, -1),
    )


def global_time(
    log: EventLog,
    *,
    valid_from: int | None = None,
    test_from: int | None = None,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> Split:
    """One cut in time for all users: training before `valid_from`, validation up to `test_from`, then test.

    valid_from, test_from: unix seconds; without them, the times that part the events by `fractions` (events
    of one time are never parted, so the parts are as near as the log allows).

    The target of a window is the user's first event inside it; its history is all that the user did before,
    for test the validation window too. Later events of a window are neither asked for nor learnt from. A user
    whose first event of all falls into the window has no history to rank from and is no target there;
    `numbers()` counts them.
    """
    times = log.times
    if times is None:
        raise BadInput(
            "this log has an order for each user (position) but no clock, and a cut in time needs one clock",
            remedy="use leave_one_out, or ingest events with a 'timestamp' column",
        )
    if not len(log):
        raise BadInput("the log has no events to split")
    if (valid_from is None) != (test_from is None):
        raise BadInput("give both valid_from and test_from, or neither and fractions")
    if valid_from is None or test_from is None:
        if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
            raise BadInput(f"fractions must be three positive shares that sum to 1, got {fractions}")
        ordered = np.sort(times)
        cut = np.ceil(np.cumsum(fractions[:2]) * len(ordered) - 1e-9).astype(np.int64)
        valid_from, test_from = (int(ordered[min(c, len(ordered) - 1)]) for c in cut)
    if valid_from >= test_from:
        raise BadInput(
            f"validation starts at {valid_from} and test at {test_from}: no time is left for validation",
            remedy="give valid_from < test_from, or fractions with a larger second share",
        )
    # events are ordered by time within a user, so each cut is one row a user
    first, last = log.offsets[:-1], log.offsets[1:]
    before_valid = np.bincount(log.users[times < valid_from], minlength=log.n_users)
    before_test = np.bincount(log.users[times < test_from], minlength=log.n_users)
    train_end, valid_end = first + before_valid, first + before_test
    if not before_valid.any():
        raise BadInput(f"no event is older than {valid_from}, so nothing is left for training")
    valid_inside, test_inside = train_end < valid_end, valid_end < last
    return Split(
        log=log,
        name="global-time",
        description=f"training before unix time {valid_from}, validation before {test_from}, then test; "
        "the target is each user's first event in the window, known history is everything before it",
        train_end=train_end,
        valid=np.where(valid_inside & (train_end > first), train_end, -1),
        test=np.where(test_inside & (valid_end > first), valid_end, -1),
        no_history=(
            int((valid_inside & (train_end == first)).sum()),
            int((test_inside & (valid_end == first)).sum()),
        ),
    )


def hide_items(split: Split, share: float, seed: int = 0) -> Split:
    """The same split with a share of the items, drawn uniformly, hidden: new to everything but the test.

    Every event of a hidden item leaves the log, and sequences close up; only test targets stay. So training, the
    choice of the epoch and every history are of the other items, and all models answer from the same histories: a
    model that reads features could read a hidden item in a history, one of ids could not, but an item that is new has
    not been taken by anybody. A validation target that is hidden is not asked for, nor is a test target before which
    nothing is left (`no_history` counts it).

    The vocabulary stays whole, so hidden items are ranked, with no training event (`counts`).
    """
    log = split.log
    if not 0 < share < 1:
        raise BadInput(f"the share of items to hide must lie between 0 and 1, got {share}")
    if len(split.hidden):
        raise BadInput(
            "this split hides items already", remedy="hide items of the split that it was made from"
        )
    count = round(share * log.n_items)
    if not 0 < count < log.n_items:
        raise BadInput(
            f"{share:g} of {log.n_items} items is {count}: none would be hidden, or none be left",
            remedy="choose another share",
        )
    hidden = np.sort(np.random.default_rng(seed).permutation(log.n_items)[:count]).astype(np.int64)
    goes = np.isin(log.items, hidden)
    goes[split.test[split.test >= 0]] = False
    kept = ~goes
    before = np.zeros(len(log) + 1, dtype=np.int64)  # how many events of the old log stay before a row of it
    np.cumsum(kept, out=before[1:])
    left = log.keep(kept)
    first, train_end = left.offsets[:-1], before[split.train_end]
    if not (train_end > first).any():
        raise BadInput("with these items hidden nothing is left for training", remedy="hide fewer")

    def moved(rows: Int64) -> tuple[Int64, int]:
        """Where these targets stand now, and how many of them have no history any more."""
        stays = (rows >= 0) & kept[rows]
        now = np.where(stays, before[rows], -1)
        alone = stays & (now <= first)
        return np.where(alone, -1, now), int(alone.sum())

    valid, valid_alone = moved(split.valid)
    test, test_alone = moved(split.test)
    return Split(
        log=left,
        name=split.name,
        description=f"{split.description}; {count:,} of {log.n_items:,} items ({share:g}, seed {seed}) are hidden: "
        "their events are out of training, validation and histories, and test alone asks for them",
        train_end=train_end,
        valid=valid,
        test=test,
        no_history=(split.no_history[0] + valid_alone, split.no_history[1] + test_alone),
        hidden=hidden,
        put_aside=(
            log.users[goes].astype(np.int64),
            log.items[goes].astype(np.int64),
            before[:-1][goes],
        ),
    )
