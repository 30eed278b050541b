"""The log: one row an event, keyed by what happened, so that ingesting a file again adds nothing.

The key is a hash of user, item, kind of event, time and position, and an ordinal among rows of one source that
agree in all of these: true repeats survive. A value (a rating) is no part of it, so a corrected rating changes its
event. The other side: a repeat in the same second that comes in a second file is taken for the event that is known.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.schema import (
    EVENT,
    EVENT_ID,
    INTERACTIONS,
    INTERACTIONS_SCHEMA,
    ITEM_ID,
    POSITION,
    SEQ,
    TIMESTAMP,
    USER_ID,
    VALUE,
)
from featurestore.tables import Tables

ID_HEX = 32  # characters of the sha256 kept: 128 bits
IDENTITY = (USER_ID, ITEM_ID, EVENT, TIMESTAMP, POSITION)


@dataclass(frozen=True)
class EventChanges:
    """How many events an ingest added, changed (another value), knew already, and removed (a replaced log)."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


def event_ids(events: pa.Table) -> pa.Array:
    """(n,) keys of one source's events: user_id, item_id, event, timestamp, position; NULL where there is none."""
    parts: list[pa.ChunkedArray | pa.Scalar] = []
    for name in IDENTITY:
        text = pc.fill_null(pc.cast(events[name], pa.string()), "")
        parts += [pc.cast(pc.binary_length(text), pa.string()), pa.scalar(":"), text]
    rows = pc.binary_join_element_wise(*parts, "")
    repeats = ordinals(pc.dictionary_encode(rows.combine_chunks()).indices.to_numpy())
    texts = rows.to_pylist()
    for place in np.flatnonzero(repeats):
        texts[place] += f"#{repeats[place]}"
    return pa.array([hashlib.sha256(text.encode()).hexdigest()[:ID_HEX] for text in texts], pa.string())


def ordinals(codes: np.ndarray) -> np.ndarray:
    """(n,) how many earlier entries have the same code.

    >>> ordinals(np.array([5, 7, 5, 5])).tolist()
    [0, 0, 1, 2]
    """
    if not len(codes):
        return np.zeros(0, np.int64)
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    result = np.empty(len(codes), np.int64)
    result[order] = np.arange(len(codes)) - np.repeat(starts, np.diff(np.r_[starts, len(codes)]))
    return result


@dataclass(frozen=True)
class EventPlan:
    """What it takes to bring the log up to what came in.

    whole: the log that replaces the stored one, or None where that one is added to. added: new events, numbered.
    revalued: event_id and value of known events whose value is another one now.
    """

    changes: EventChanges
    whole: pa.Table | None
    added: pa.Table
    revalued: pa.Table


def upsert_interactions(tables: Tables, events: pa.Table, *, replace: bool = False) -> EventChanges:
    """Add the events that are new; see `plan_interactions`. Nothing is written where nothing changed."""
    plan = plan_interactions(tables, events, replace=replace)
    write_interactions(tables, plan)
    return plan.changes


def plan_interactions(tables: Tables, events: pa.Table, *, replace: bool = False) -> EventPlan:
    """What changes with `events`: user_id, item_id, event, timestamp, position, value, in source order.

    replace: the log becomes `events`, in one commit (a kill leaves the old one or the new one). Nothing is written
    here.
    """
    events = events.append_column(EVENT_ID, event_ids(events))
    kept = [EVENT_ID, VALUE, SEQ]
    stored = (
        tables.read(INTERACTIONS, columns=kept)
        if tables.exists(INTERACTIONS)
        else INTERACTIONS_SCHEMA.empty_table().select(kept)
    )
    at = pc.index_in(events[EVENT_ID], value_set=stored[EVENT_ID])
    new = at.is_null().to_numpy()
    differs = ~new & ~_same(events[VALUE], stored[VALUE].take(at))
    added, changed = int(new.sum()), int(differs.sum())
    unchanged = len(new) - added - changed
    none = events.slice(0, 0)
    if replace:
        removed = stored.num_rows - (len(new) - added)
        reordered = bool((np.diff(pc.fill_null(stored[SEQ].take(at), -1).to_numpy()) < 0).any())
        whole = _numbered(events, 0) if added or changed or removed or reordered else None
        return EventPlan(EventChanges(added, changed, unchanged, removed), whole, none, none)
    first = (pc.max(stored[SEQ]).as_py() or 0) + 1 if stored.num_rows else 0
    return EventPlan(
        EventChanges(added, changed, unchanged),
        None,
        _numbered(events.filter(pa.array(new)), first),
        events.select([EVENT_ID, VALUE]).filter(pa.array(differs)),
    )


def write_interactions(tables: Tables, plan: EventPlan) -> None:
    """Write what `plan_interactions` found. The caller has held the writer's lock since then."""
    if not tables.exists(INTERACTIONS):
        tables.create(INTERACTIONS, INTERACTIONS_SCHEMA)
    if plan.whole is not None:
        tables.replace(INTERACTIONS, plan.whole, EVENT_ID)
        return
    if plan.revalued.num_rows:
        tables.upsert(INTERACTIONS, plan.revalued, EVENT_ID)
    if plan.added.num_rows:
        tables.append(INTERACTIONS, plan.added, EVENT_ID)
    tables.compact(INTERACTIONS)


def read_log(tables: Tables, version: int | None = None) -> pa.Table:
    """All events ordered by user_id, then time, then position, then input order."""
    if not tables.exists(INTERACTIONS):
        return INTERACTIONS_SCHEMA.empty_table()
    log = tables.read(INTERACTIONS, version=version)
    users = pc.unique(log[USER_ID]).sort()
    rank = pc.index_in(log[USER_ID], value_set=users).to_numpy()
    late = np.iinfo(np.int64).max
    keys = [pc.fill_null(log[name], late).to_numpy() for name in (SEQ, POSITION, TIMESTAMP)]
    return log.take(pa.array(np.lexsort((*keys, rank))))


def _numbered(events: pa.Table, first: int) -> pa.Table:
    return events.append_column(SEQ, pa.array(np.arange(first, first + events.num_rows), pa.int64()))


def _same(left: pa.ChunkedArray, right: pa.ChunkedArray) -> np.ndarray:
    """(n,) equal, NULL being equal to NULL."""
    equal = pc.fill_null(pc.equal(left, right), False).to_numpy()
    return np.asarray(equal | (left.is_null().to_numpy() & right.is_null().to_numpy()))
