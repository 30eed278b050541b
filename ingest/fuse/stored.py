"""Stored vectors over a list of items, as the modules read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.errors import BadInput

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Vectors:
    """One stored feature over a list of items.

    values: (n, D) float32; a row whose `present` is false is not read. present: (n,) bool.
    """

    values: Float32
    present: Bool

    def __len__(self) -> int:
        return len(self.present)

    @property
    def width(self) -> int:
        """D."""
        return int(self.values.shape[1])

    @property
    def known(self) -> Float32:
        """(k, D): the vectors that are there."""
        return self.values[self.present]

    @property
    def means(self) -> Float32:
        """(n, D): one vector an item, zeros where there is none."""
        result = np.zeros(self.values.shape, dtype=np.float32)
        result[self.present] = self.known
        return result

    def take(self, rows: Any) -> Vectors:
        """Of these items only. rows: int64 or bool."""
        return Vectors(self.values[rows], self.present[rows])

    @classmethod
    def aligned(cls, ids: Any, values: Any, wanted: Any) -> Vectors:
        """Rows of `values` (m, D), which belong to `ids` (m,), in the order of `wanted` (n,); others are absent."""
        if np.ndim(values) != 2 or len(ids) != len(values):
            raise BadInput(
                f"{len(ids)} ids and an array of shape {np.shape(values)} are not one vector an item"
            )
        row, present = _places(ids, wanted)
        result = np.zeros((len(row), np.shape(values)[1]), dtype=np.float32)
        result[present] = values[row[present]]
        return cls(result, present)


@dataclass(frozen=True)
class Tokens:
    """A stored feature that has several vectors an item.

    values: (m, D) float32. offsets: (n + 1,) int64, item i has values[offsets[i] : offsets[i + 1]], maybe none.
    """

    values: Float32
    offsets: Int64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def width(self) -> int:
        """D."""
        return int(self.values.shape[1])

    @property
    def counts(self) -> Int64:
        """(n,) vectors of each item."""
        return np.diff(self.offsets)

    @property
    def present(self) -> Bool:
        """(n,) whether an item has any."""
        return self.counts > 0

    @property
    def known(self) -> Float32:
        """(m, D)."""
        return self.values

    @property
    def means(self) -> Float32:
        """(n, D): the mean of each item's vectors, zeros where it has none."""
        result = np.zeros((len(self), self.width), dtype=np.float32)
        some = self.present
        if some.any():
            sums = np.add.reduceat(self.values, self.offsets[:-1][some], axis=0)
            result[some] = sums / self.counts[some, None]
        return result

    def take(self, rows: Any) -> Tokens:
        """Of these items only. rows: int64 or bool."""
        rows = (
            np.flatnonzero(rows) if np.asarray(rows).dtype == np.bool_ else np.asarray(rows, dtype=np.int64)
        )
        counts = self.counts[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(counts, out=offsets[1:])
        places = np.repeat(self.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
        return Tokens(np.ascontiguousarray(self.values[places], dtype=np.float32), offsets)

    @classmethod
    def aligned(cls, ids: Any, values: Any, offsets: Any, wanted: Any) -> Tokens:
        """Vectors of `ids` (m,), item j's being values[offsets[j] : offsets[j + 1]], in the order of `wanted` (n,)."""
        if np.ndim(values) != 2 or len(ids) != len(offsets) - 1 or len(values) != offsets[-1]:
            raise BadInput(
                f"{len(ids)} ids, {len(offsets)} offsets and an array of shape {np.shape(values)} do not fit together"
            )
        row, present = _places(ids, wanted)
        whole = cls(values, np.asarray(offsets, dtype=np.int64))
        if not len(whole):
            return cls(np.zeros((0, whole.width), np.float32), np.zeros(len(row) + 1, np.int64))
        counts = np.where(present, whole.counts[row], 0)
        placed = np.zeros(len(row) + 1, dtype=np.int64)
        np.cumsum(counts, out=placed[1:])
        return cls(whole.take(row[present]).values, placed)


Stored = Vectors | Tokens


def _places(ids: Any, wanted: Any) -> tuple[Int64, Bool]:
    """(place in `ids` of each wanted id, whether it is there)."""
    names, asked = np.asarray(ids, dtype=np.str_), np.asarray(wanted, dtype=np.str_)
    if not len(names):
        return np.zeros(len(asked), dtype=np.int64), np.zeros(len(asked), dtype=np.bool_)
    order = np.argsort(names, kind="stable")
    place = np.minimum(np.searchsorted(names, asked, sorter=order), len(names) - 1)
    row = order[place]
    return row, names[row] == asked
