"""Stored vectors of some items, read from the tables of several features: those rows, never the whole catalogue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore import schema
from featurestore.recipe import table_name
from ingest.fuse.stored import Int64, Stored, Tokens, Vectors

if TYPE_CHECKING:
    from featurestore.tables import Tables


class Reading:
    """Vectors of the items `ids`, by feature. upstream: (feature, recipe id) of each, as a recipe names them.

    All that is held of other items is where their rows are.
    """

    def __init__(self, tables: Tables, upstream: Iterable[tuple[str, str]], ids: Any) -> None:
        wanted = pa.array(ids.to_pylist() if hasattr(ids, "to_pylist") else list(ids), pa.string())
        self._columns: dict[str, tuple[Any, Int64]] = {}
        for name, recipe_id in upstream:
            dataset = tables.dataset(table_name(name, recipe_id))
            self._columns[name] = (dataset, _rows(dataset, wanted))

    def take(self, places: Int64) -> dict[str, Stored]:
        """Of the items at these places of `ids`, in that order."""
        return {name: _stored(dataset, rows[places]) for name, (dataset, rows) in self._columns.items()}


def _rows(dataset: Any, wanted: pa.Array) -> Int64:
    """(n,) the row of each wanted item in the table, -1 where it has no value."""
    cells = dataset.to_table(columns=[schema.ITEM_ID, schema.STATUS])
    ok = np.flatnonzero(np.asarray(pc.fill_null(pc.equal(cells[schema.STATUS], schema.Status.OK), False)))
    ids = cells[schema.ITEM_ID].combine_chunks().take(pa.array(ok))
    place = np.asarray(pc.fill_null(pc.index_in(wanted, ids), -1), dtype=np.int64)
    return np.where(place >= 0, ok[place] if len(ok) else -1, -1)


def _stored(dataset: Any, rows: Int64) -> Stored:
    """rows: (n,) of the table, -1 for none."""
    there = rows >= 0
    order = np.argsort(rows[there], kind="stable")  # Lance reads rows in their order
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    kind = dataset.schema.field(schema.VALUE).type
    if len(order):
        taken = dataset.take(rows[there][order].tolist(), columns=[schema.VALUE])[schema.VALUE]
        values = taken.combine_chunks()
    else:
        values = pa.array([], kind)
    if pa.types.is_fixed_size_list(kind):
        found = np.zeros((len(rows), kind.list_size), np.float32)
        found[there] = _flat(values, kind.list_size)[back]
        return Vectors(found, there)
    counts = np.asarray(pc.list_value_length(values), dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    held = Tokens(_flat(values.flatten(), kind.value_type.list_size), offsets).take(back)
    spread = np.zeros(len(rows) + 1, np.int64)
    spread[1:][there] = held.counts
    return Tokens(held.values, np.cumsum(spread))


def _flat(values: pa.Array, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(n, size) of a column of fixed-size lists without NULLs."""
    return np.asarray(values.flatten(), dtype=np.float32).reshape(-1, size)
