"""Which states of a user's preference there have to be, and what each is made of.

A user's events are positions 0, 1, 2, ... of their own order, which is the log's: by time, equal times as they came. A
state reads the block of events `begin..end` and the text of the state before it; it knows of nothing at `end` or later.

What a state was made of is one hash: its events (item, time, position, the item's text) and the hash of the state
before. So states can be looked up, and a change makes exactly those from there on others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from featurestore.errors import BadInput
from featurestore.files import canonical_json, sha256_text
from recommender.events import EventLog
from recommender.splits import Split

Variant = Literal["recurrent", "direct"]
Point = Literal["train", "valid", "test", "now"]
POINTS: tuple[Point, ...] = ("train", "valid", "test", "now")
HASH_LENGTH = 32  # hex characters of sha256 kept: 128 bits


@dataclass(frozen=True)
class Shape:
    """How a history is cut. block: events a state reads, None for all at once (direct). last: events kept at most."""

    block: int | None = 3
    last: int | None = None

    def __post_init__(self) -> None:
        if self.block is not None and self.block < 1:
            raise BadInput(f"a block of {self.block} events", remedy="a block holds 1 event or more")
        if self.last is not None and self.last < 1:
            raise BadInput(f"the last {self.last} events", remedy="1 or more, or leave it out for all")

    @property
    def variant(self) -> Variant:
        return "direct" if self.block is None else "recurrent"

    def start(self, end: int) -> int:
        """Position of the oldest event that is read for the event at `end`.

        Direct: the last `last` events are. Recurrent: at most so many and more than half of it; when there are more,
        the oldest half goes at once. A window that moved with every event would begin anew each time, this one goes on.
        """
        if self.last is None or end <= self.last:
            return 0
        if self.block is None:
            return end - self.last
        stride = math.ceil(self.last / 2)
        return stride * math.ceil((end - self.last) / stride)


@dataclass(frozen=True)
class Node:
    """A state that there has to be: of a user (row of the log's vocabulary), at a step from 1 on."""

    user: int
    start: int
    step: int
    begin: int
    end: int
    previous: Node | None

    @property
    def key(self) -> tuple[int, int, int, int]:
        return self.user, self.start, self.step, self.end


def nodes(user: int, ends: Iterable[int], shape: Shape) -> list[Node]:
    """All states that lead to a preference of the events before each of `ends`, earlier steps first.

    States are shared where histories are: two ends of one window differ in their last, unfilled block only.
    """
    found: dict[tuple[int, int, int, int], Node] = {}
    for end in sorted(set(ends)):
        start = shape.start(end)
        size = shape.block or max(1, end - start)
        node: Node | None = None
        for step, begin in enumerate(range(start, end, size), start=1):
            made = Node(user, start, step, begin, min(begin + size, end), node)
            node = found.setdefault(made.key, made)
    return sorted(found.values(), key=lambda node: (node.step, node.start, node.end))


def ends_of(split: Split, points: Iterable[Point]) -> dict[int, set[int]]:
    """user -> positions of the events that are asked for: the preference of each is of the events before it.

    train: the user's last training event; valid, test: their targets; now: the event that is still to come.
    """
    log = split.log
    first = log.offsets[:-1]
    rows = {
        "train": split.train_end - 1,
        "valid": split.valid,
        "test": split.test,
        "now": log.offsets[1:],
    }
    found: dict[int, set[int]] = {}
    for point in points:
        if point not in rows:
            raise BadInput(f"there is no point '{point}'", remedy=f"known: {', '.join(POINTS)}")
        for user, (row, begin) in enumerate(zip(rows[point].tolist(), first.tolist(), strict=True)):
            if row > begin:  # something lies before it
                found.setdefault(user, set()).add(row - begin)
    return found


def ends_at(log: EventLog, rows: Iterable[int]) -> dict[int, set[int]]:
    """The same for any events: rows of the log."""
    found: dict[int, set[int]] = {}
    for row in rows:
        if not 0 <= row < len(log):
            raise BadInput(f"row {row} is none of the log's", remedy=f"rows are 0..{len(log) - 1}")
        user = int(log.users[row])
        if row > log.offsets[user]:
            found.setdefault(user, set()).add(row - int(log.offsets[user]))
    return found


@dataclass(frozen=True)
class Told:
    """What a log says of its events. texts: what is said of each item, by item id; "" for nothing."""

    log: EventLog
    texts: Mapping[str, str]

    def items(self, node: Node) -> list[str]:
        """Item ids of a node's block, in order."""
        return self._items(node.user, node.begin, node.end)

    def times(self, node: Node) -> list[int] | None:
        first = int(self.log.offsets[node.user])
        if self.log.times is None:
            return None
        times: list[int] = self.log.times[first + node.begin : first + node.end].tolist()
        return times

    def facts(self, user: int, begin: int, end: int) -> list[Any]:
        """What is hashed of the events begin..end."""
        items = self._items(user, begin, end)
        first = int(self.log.offsets[user])
        times = self.log.times
        when = [None] * len(items) if times is None else times[first + begin : first + end].tolist()
        return [
            [item, time, position, self._hashes.get(item)]
            for position, (item, time) in enumerate(zip(items, when, strict=True), start=begin)
        ]

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return {item: sha256_text(text)[:HASH_LENGTH] for item, text in self.texts.items() if text}

    def _items(self, user: int, begin: int, end: int) -> list[str]:
        first = int(self.log.offsets[user])
        ids: list[str] = self.log.item_ids[self.log.items[first + begin : first + end]].tolist()
        return ids


def input_hash(facts: list[Any], previous: tuple[str, str] | None) -> str:
    """Of a state's events and of the state before it: its input_hash, and how it ended, since a state without a text is
    passed over, and one that has a text after all changes what comes after it.
    """
    return sha256_text(canonical_json([facts, previous]))[:HASH_LENGTH]


def state_id(recipe: str, user: str, hash_: str) -> str:
    return sha256_text(canonical_json([recipe, user, hash_]))[:HASH_LENGTH]
