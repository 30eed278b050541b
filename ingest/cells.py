"""Cells on their way to a table: grouped by equal inputs, and collected into commits of some thousands."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore import features as cells
from featurestore import schema
from featurestore.errors import CellError
from featurestore.schema import Status
from ingest.pipeline import Encoded

if TYPE_CHECKING:
    from featurestore.recipe import Recipe
    from featurestore.store import Store

Places = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

COMMIT_SECONDS = 60.0  # the most work that an interruption can lose, whatever the encoder's speed


class Progress(Protocol):
    def start(self, label: str, total: int | None = None) -> None: ...

    def advance(self, n: int = 1) -> None: ...

    def done(self) -> None: ...


class Silent:
    """Progress that nobody watches."""

    def start(self, label: str, total: int | None = None) -> None: ...

    def advance(self, n: int = 1) -> None: ...

    def done(self) -> None: ...


class Groups:
    """Cells with the same input, which are computed once. Group g's representative is row g of `first`."""

    def __init__(self, todo: pa.Table) -> None:
        hashes = np.asarray(todo[schema.INPUT_HASH].to_pylist(), dtype=np.str_)
        _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
        self._todo = todo
        self._members = np.argsort(group, kind="stable")  # rows of `todo`, group after group
        self._starts = np.searchsorted(group[self._members], np.arange(len(first) + 1))
        self.first = todo.take(pa.array(first))[schema.ITEM_ID]
        self.hashes = [str(each) for each in hashes[first]]

    def rows(self, groups: Places) -> tuple[pa.Table, Places]:
        """(rows of the plan in these groups, for each of them the place of its group in `groups`)."""
        sizes = self._starts[groups + 1] - self._starts[groups]
        place = np.repeat(np.arange(len(groups)), sizes)
        offset = np.arange(len(place)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self._todo.take(pa.array(self._members[self._starts[groups][place] + offset])), place


class Sink:
    """Collects computed cells and commits them some thousands at a time. on_commit: called after each commit."""

    def __init__(
        self, store: Store, feature: str, recipe: Recipe, commit_rows: int, progress: Progress
    ) -> None:
        self.on_commit: Callable[[], None] | None = None
        self._store, self._feature, self._recipe = store, feature, recipe
        self._commit_rows, self._progress = commit_rows, progress
        self._parts: list[pa.Table] = []
        self._waiting = 0
        self._committed = time.monotonic()
        self.counts = dict.fromkeys(Status, 0)

    def no_input(self, rows: pa.Table) -> None:
        for start in range(0, len(rows), self._commit_rows):
            self.put(rows.slice(start, self._commit_rows), Status.NO_INPUT)

    def add(self, groups: Groups, encoded: Encoded) -> None:
        if len(encoded.empty):
            self.no_input(groups.rows(encoded.empty)[0])
        if len(encoded.places):
            rows, place = groups.rows(encoded.places)
            kind = schema.value_type(self._recipe.value, self._recipe.dim)
            self.put(rows, Status.OK, values=_values(encoded, place, kind))
        for group, error in encoded.errors.items():
            self.put(groups.rows(np.asarray([group]))[0], Status.ERROR, error=error)

    def flush(self) -> None:
        if self._parts:
            cells.commit(self._store.tables, self._feature, self._recipe, pa.concat_tables(self._parts))
            if self.on_commit is not None:
                self.on_commit()
        self._parts, self._waiting = [], 0
        self._committed = time.monotonic()

    def put(
        self,
        rows: pa.Table,
        status: Status,
        *,
        values: pa.Array | None = None,
        error: CellError | None = None,
        more: Mapping[str, pa.Array] | None = None,
    ) -> None:
        """Hand over cells. rows: of the plan; values: one each, None for none; more: further columns, if any."""
        if not len(rows):
            return
        kind = schema.value_type(self._recipe.value, self._recipe.dim)
        text = pa.string()
        columns = {
            schema.ITEM_ID: rows[schema.ITEM_ID],
            schema.INPUT_HASH: rows[schema.INPUT_HASH],
            schema.VALUE: pa.nulls(len(rows), kind) if values is None else values,
            schema.STATUS: pa.repeat(pa.scalar(str(status), text), len(rows)),
            schema.ERROR_CODE: pa.repeat(pa.scalar(error.code if error else None, text), len(rows)),
            schema.ERROR_MESSAGE: pa.repeat(pa.scalar(error.message if error else None, text), len(rows)),
            schema.TRANSIENT: pa.repeat(pa.scalar(error is not None and error.transient), len(rows)),
            schema.ATTEMPTS: rows[schema.ATTEMPTS],
        }
        if self._recipe.kind == schema.DESCRIBE:
            columns |= {field.name: pa.nulls(len(rows), field.type) for field in schema.ANSWER_FIELDS}
        columns |= more or {}
        self._parts.append(pa.table(columns))
        self._waiting += len(rows)
        self.counts[status] += len(rows)
        self._progress.advance(len(rows))
        late = time.monotonic() - self._committed > COMMIT_SECONDS
        if self._waiting >= self._commit_rows or late:
            self.flush()


def _values(encoded: Encoded, place: Places, kind: pa.DataType) -> pa.Array:
    """The values at `place` of `encoded.places`, as their column holds them: a vector each, or a list of vectors."""
    if encoded.offsets is None:
        return _vectors(encoded.vectors[place], kind)
    counts = np.diff(encoded.offsets)[place]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    chosen = np.repeat(encoded.offsets[place] - offsets[:-1], counts) + np.arange(offsets[-1])
    vectors = _vectors(encoded.vectors[chosen], kind.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), vectors, type=kind)


def _vectors(values: Vectors, kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind)
