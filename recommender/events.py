"""Who took what, in which order: the log of a release as dense integer columns.

Two decisions. Rows are ordered by user, then by time, and events of equal time keep their input order (`tied`
marks them). And the item vocabulary holds the items that have events, since a model can only be taught about
those; ask for `catalogue=True` to have every item of a release in it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore import spelling
from featurestore.errors import BadInput, NotFound, did_you_mean
from featurestore.schema import ITEM_ID, POSITION, TIMESTAMP, USER_ID

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Strings = npt.NDArray[np.str_]


class HasEvents(Protocol):
    """What is read of a release."""

    @property
    def ids(self) -> Any: ...

    def events(self) -> pa.Table: ...


@dataclass(frozen=True, eq=False)
class EventLog:
    """All events of all users. Event j is user `users[j]` taking item `items[j]`.

    user_ids, item_ids: vocabularies, sorted; `users` and `items` are rows of them.
    users, items: (n,) int32, ordered by user, then time.
    times: (n,) int64 unix seconds, or None where the log has an order but no clock.
    tied: (n,) bool, the event has the same time (or position) as the same user's event before it.
    left_out: events of the source that name an item outside the vocabulary that was asked for.
    """

    user_ids: Strings
    item_ids: Strings
    users: Int32
    items: Int32
    times: Int64 | None
    tied: Bool
    left_out: int = 0

    @classmethod
    def from_table(cls, table: pa.Table, *, item_ids: Strings | None = None) -> EventLog:
        """Read columns user_id, item_id and the order: timestamp, then position, then the order of the rows.

        item_ids: the vocabulary to use (any order; sorted here). Events of other items are left out and
        counted in `left_out`. Without it, the items that occur.
        """
        for name in (USER_ID, ITEM_ID):
            if name not in table.column_names:
                raise BadInput(
                    f"the events have no column '{name}'",
                    remedy=f"{did_you_mean(name, table.column_names)} Rename it to '{name}'.",
                )
            if nulls := table[name].null_count:
                raise BadInput(
                    f"{nulls} of {len(table)} events have no {name}", remedy="drop or fill those rows"
                )
        user_ids, users = _encode(table[USER_ID])
        found, items = _encode(table[ITEM_ID])
        if item_ids is None:
            vocabulary, kept = found, np.ones(len(items), dtype=np.bool_)
        else:
            vocabulary = np.unique(np.asarray(item_ids, dtype=np.str_))
            row = np.searchsorted(vocabulary, found)
            inside = np.minimum(row, max(len(vocabulary) - 1, 0))
            known = vocabulary[inside] == found if len(vocabulary) else np.zeros(len(found), dtype=np.bool_)
            kept = known[items]
            items = row[items].astype(np.int32)
        times = _whole_column(table, TIMESTAMP)
        positions = _whole_column(table, POSITION)
        left_out = int(len(kept) - kept.sum())
        if left_out:
            users, items = users[kept], items[kept]
            times = None if times is None else times[kept]
            positions = None if positions is None else positions[kept]
            present = np.unique(users)
            user_ids, users = user_ids[present], np.searchsorted(present, users).astype(np.int32)
        keys: list[Int64] = [key for key in (times, positions) if key is not None]
        order: Int64 = np.lexsort([*reversed(keys), users.astype(np.int64)])
        tied = np.zeros(len(users), dtype=np.bool_)
        if keys and len(users):
            same = np.diff(users[order]) == 0
            for key in keys:
                same &= np.diff(key[order]) == 0
            tied[1:] = same
        return cls(
            user_ids=user_ids,
            item_ids=vocabulary,
            users=users[order],
            items=items[order],
            times=None if times is None else times[order],
            tied=tied,
            left_out=left_out,
        )

    @classmethod
    def from_release(cls, release: HasEvents, *, catalogue: bool = False) -> EventLog:
        """The log of a release; events of items that it no longer holds are left out and counted.

        catalogue: put every item of the release into the vocabulary, those without events too.
        """
        table = release.events()
        ids = np.asarray(release.ids, dtype=np.str_)
        log = cls.from_table(table, item_ids=ids)
        return log if catalogue else log.without_idle_items()

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def offsets(self) -> Int64:
        """(n_users + 1,) int64: the events of user u are rows offsets[u] up to offsets[u + 1]."""
        offsets = np.zeros(self.n_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(self.users, minlength=self.n_users), out=offsets[1:])
        return offsets

    def events_of(self, user: str) -> slice:
        """Where the events of a user stand, by the user's id. Raises NotFound."""
        at = spelling.place(self.user_ids, user)
        if at < 0:
            raise NotFound(
                f"the log has no events of a user '{user}'",
                remedy="check the id, or give a history of item ids",
            )
        return slice(int(self.offsets[at]), int(self.offsets[at + 1]))

    @cached_property
    def hash(self) -> str:
        """sha256 over vocabularies, events and their times: two logs with one hash are the same log."""
        digest = hashlib.sha256()
        for ids in (self.user_ids, self.item_ids):
            digest.update(json.dumps(ids.tolist()).encode())
        digest.update(self.users.astype("<i4").tobytes())
        digest.update(self.items.astype("<i4").tobytes())
        if self.times is not None:
            digest.update(self.times.astype("<i8").tobytes())
        return digest.hexdigest()

    def keep(self, rows: Bool) -> EventLog:
        """The events where `rows` (n,) is true; the vocabularies stay as they are."""
        # an event is tied to the one kept before it if every event between them, itself included, was tied
        run = np.cumsum(~self.tied)[rows]
        tied = np.zeros(len(run), dtype=np.bool_)
        tied[1:] = run[1:] == run[:-1]
        return replace(
            self,
            users=self.users[rows],
            items=self.items[rows],
            times=None if self.times is None else self.times[rows],
            tied=tied,
        )

    def select(self, rows: Bool) -> EventLog:
        """The same; the vocabularies shrink to what is left."""
        kept = self.keep(rows)
        live_users, live_items = np.unique(kept.users), np.unique(kept.items)
        return replace(
            kept,
            user_ids=self.user_ids[live_users],
            item_ids=self.item_ids[live_items],
            users=np.searchsorted(live_users, kept.users).astype(np.int32),
            items=np.searchsorted(live_items, kept.items).astype(np.int32),
        )

    def without_idle_items(self) -> EventLog:
        """The same events with items that have none taken out of the vocabulary."""
        return self.select(np.ones(len(self), dtype=np.bool_))

    def numbers(self) -> dict[str, int | float]:
        """What a reader wants to know of a log before believing a figure made on it."""
        lengths = np.diff(self.offsets)
        return {
            "users": self.n_users,
            "items": self.n_items,
            "events": len(self),
            "events_a_user_median": float(np.median(lengths)) if len(lengths) else 0.0,
            "repeats": self.repeats(),
            "tied_events": int(self.tied.sum()),
            "left_out": self.left_out,
        }

    def repeats(self) -> int:
        """Events whose user had taken the same item before."""
        pairs = self.users.astype(np.int64) * max(self.n_items, 1) + self.items
        return len(pairs) - len(np.unique(pairs))


def k_core(log: EventLog, user_min: int, item_min: int) -> EventLog:
    """Drop users with fewer than `user_min` and items with fewer than `item_min` events, to a fixed point.

    Counts are of events, so a repeat counts. The result is the largest part of the log in which every user
    and item has enough; it may be empty.
    """
    if user_min < 0 or item_min < 0:
        raise BadInput(f"k-core minima must not be negative, got ({user_min}, {item_min})")
    keep = np.ones(len(log), dtype=np.bool_)
    left = len(log)
    while True:
        of_user = np.bincount(log.users[keep], minlength=log.n_users)
        keep &= of_user[log.users] >= user_min
        of_item = np.bincount(log.items[keep], minlength=log.n_items)
        keep &= of_item[log.items] >= item_min
        now = int(keep.sum())
        if now == left:
            return log.select(keep)
        left = now


def _encode(column: pa.ChunkedArray) -> tuple[Strings, Int32]:
    """A column of ids as a sorted vocabulary of strings and the row of each value in it."""
    encoded = pc.dictionary_encode(column.cast(pa.string())).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # combine_chunks of no chunk at all
        return np.array([], dtype=np.str_), np.array([], dtype=np.int32)
    words = np.array(encoded.dictionary.to_pylist(), dtype=np.str_)
    order = np.argsort(words)
    rank = np.empty(len(words), dtype=np.int32)
    rank[order] = np.arange(len(words), dtype=np.int32)
    return words[order], rank[encoded.indices.to_numpy(zero_copy_only=False)]


def _whole_column(table: pa.Table, name: str) -> Int64 | None:
    """An order column as int64; None where absent or wholly null, refused where only some rows have it."""
    if name not in table.column_names:
        return None
    column = table[name]
    if column.null_count == len(column):
        return None
    if column.null_count:
        raise BadInput(
            f"{column.null_count} of {len(column)} events have no {name}, so their order is unknown",
            remedy=f"fill '{name}' for all events or leave the column out",
        )
    if pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.timestamp("s", tz=column.type.tz), safe=False)
    try:
        values = column.cast(pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInput(f"column '{name}' ({column.type}) is not made of whole numbers: {error}") from error
    return np.asarray(values.to_numpy(), dtype=np.int64)
