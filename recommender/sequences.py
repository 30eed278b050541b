"""Histories as packed arrays, and the batches that training and answering read from them.

Two decisions. Sequences are packed: the events of a batch stand one after the other in one array, with a
length for each user, and nothing is ever padded here; what a backbone pads for its own use cannot change a
result. And the order of an epoch is a function of (seed, epoch) alone, so that a run resumed after any epoch
continues with the batches that it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featurestore.errors import BadInput
from recommender.splits import Split

Ints = npt.NDArray[np.integer]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Packed:
    """The histories of B users, T events in all.

    items: (T,) int64, item rows; user after user, oldest event first.
    lengths: (B,) int64 numpy, events of each user, all at least 1.
    """

    items: Tensor
    lengths: Int64

    @property
    def last(self) -> Tensor:
        """(B,) int64: the place in `items` of each user's last event."""
        return torch.from_numpy(np.cumsum(self.lengths) - 1).to(self.items.device)

    def to(self, device: torch.device | str) -> Packed:
        return Packed(self.items.to(device), self.lengths)


@dataclass(frozen=True)
class Batch:
    """Training input: at every place of every history, the item that came next.

    history: the inputs, T events.
    targets: (T,) int64, the item that followed each of them.
    users: (B,) int64 numpy, rows of the users in the log.
    """

    history: Packed
    targets: Tensor
    users: Int64

    @property
    def whole(self) -> Packed:
        """Each history with the item that came after its last event: T + B events."""
        lengths = self.history.lengths + 1
        items = self.history.items.new_empty(len(self.targets) + len(lengths))
        last = torch.from_numpy(np.cumsum(lengths) - 1).to(items.device)
        inner = torch.ones(len(items), dtype=torch.bool, device=items.device)
        inner[last] = False
        items[inner] = self.history.items
        items[last] = self.targets[self.history.last]
        return Packed(items, lengths)

    def to(self, device: torch.device | str) -> Batch:
        return Batch(self.history.to(device), self.targets.to(device), self.users)


def ragged_rows(starts: Int64, lengths: Int64) -> Int64:
    """The rows starts[0], starts[0] + 1, ... of each range, one range after the other.

    >>> ragged_rows(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    offsets = np.cumsum(lengths) - lengths
    return np.repeat(starts - offsets, lengths) + np.arange(lengths.sum(), dtype=np.int64)


def pack(values: Ints, starts: Int64, ends: Int64, length: int) -> Packed:
    """The last `length` values of each range [start, end) of `values`. An empty range is refused."""
    if len(starts) and int((ends - starts).min()) < 1:
        raise BadInput("a history without events has no place to predict from", remedy="leave such users out")
    begins = np.maximum(starts, ends - length)
    rows = ragged_rows(begins, ends - begins)
    return Packed(torch.from_numpy(values[rows].astype(np.int64)), ends - begins)


class TrainingBatches:
    """The training events of a split, cut into batches of users.

    A user gives one window of at most `length` inputs an epoch, and with it as many targets. `windows` says
    which: "last" takes the most recent one, "random" draws its end anew each epoch for users whose history is
    longer than a window, so that early events are learnt from too. Users with fewer than two training events
    have nothing to predict and are left out; `left_out` counts them.
    """

    def __init__(self, split: Split, *, length: int, batch: int, seed: int, windows: str = "last") -> None:
        starts, ends = split.log.offsets[:-1], split.train_end
        self.users = np.flatnonzero(ends - starts >= 2)
        self.left_out = len(starts) - len(self.users)
        if not len(self.users):
            raise BadInput(
                "no user has two training events, so there is nothing to predict",
                remedy="check the split, or ingest more interactions",
            )
        self._starts, self._ends = starts[self.users], ends[self.users]
        self._items = split.log.items
        self.length, self.batch, self.seed, self.windows = length, batch, seed, windows

    def __len__(self) -> int:
        return -(-len(self.users) // self.batch)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number` (from 1), in an order drawn from (seed, number)."""
        random = np.random.default_rng([self.seed, number])
        order = random.permutation(len(self.users))
        ends = self._ends
        if self.windows == "random":
            spare = np.maximum(ends - self._starts - self.length - 1, 0)
            ends = ends - random.integers(0, spare + 1)
        for first in range(0, len(order), self.batch):
            yield self._batch(order[first : first + self.batch], ends)

    def _batch(self, chosen: Int64, ends: Int64) -> Batch:
        until = ends[chosen]
        starts = np.maximum(self._starts[chosen], until - self.length - 1)
        lengths = until - starts - 1
        rows = ragged_rows(starts, lengths)
        return Batch(
            history=Packed(torch.from_numpy(self._items[rows].astype(np.int64)), lengths),
            targets=torch.from_numpy(self._items[rows + 1].astype(np.int64)),
            users=self.users[chosen],
        )
