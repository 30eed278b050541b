"""A release as Parquet: items.parquet, interactions.parquet, features/NAME.parquet.

A feature's file has a row for each item of the release: item_id, its value (`vector`, a list of fixed size; `vectors`;
or `text`) and `status`; the value is NULL where there is none. Store, release, recipe id and the recipe as JSON stand
in each file's key-value metadata under `dualview.*`, where pyarrow and DuckDB show them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.export.base import ROWS, Planned, Source
from featurestore.release import FeatureMatrix
from featurestore.schema import ITEM_ID, STATUS, ValueKind, value_type

PREFIX = "dualview."


def plan(source: Source) -> Iterator[Planned]:
    release = source.release
    catalogue, events = release.catalogue, release.events()
    yield Planned("items.parquet", catalogue.nbytes, partial(_write_table, source, catalogue))
    yield Planned("interactions.parquet", events.nbytes, partial(_write_table, source, events))
    for name in source.features:
        size = release.n_items * 16 + _bytes(source, name)
        yield Planned(f"features/{name}.parquet", size, partial(_write_feature, source, name))


def _bytes(source: Source, feature: str) -> int:
    if source.kind(feature) is ValueKind.TEXT:
        column: pa.ChunkedArray = source.release.catalogue[source.release.facts(feature)["column"]]
        return int(column.nbytes)
    return int(source.release.matrix(feature).values.nbytes)


def _metadata(source: Source, feature: str | None) -> dict[str, str]:
    said = source.origin(feature).items()
    return {
        f"{PREFIX}{key}": value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for key, value in said
        if value is not None
    }


def _write_table(source: Source, table: pa.Table, path: Path) -> None:
    schema = table.schema.with_metadata(_metadata(source, None))
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, max(len(table), 1), ROWS):
            writer.write_table(table.slice(start, ROWS).replace_schema_metadata(schema.metadata))


def _write_feature(source: Source, feature: str, path: Path) -> None:
    release, kind = source.release, source.kind(feature)
    facts = release.facts(feature)
    column = {ValueKind.TEXT: "text", ValueKind.VECTOR: "vector", ValueKind.VECTORS: "vectors"}[kind]
    fields = [(ITEM_ID, pa.string()), (column, value_type(kind, facts["dim"])), (STATUS, pa.string())]
    schema = pa.schema(fields, metadata=_metadata(source, feature))
    ids, statuses = release.catalogue[ITEM_ID], source.statuses(feature)
    matrix = None if kind is ValueKind.TEXT else release.matrix(feature)
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=[STATUS]) as writer:
        for start in range(0, release.n_items, ROWS):
            stop = min(start + ROWS, release.n_items)
            if matrix is None:
                values = release.catalogue[facts["column"]].slice(start, ROWS).combine_chunks()
            elif matrix.offsets is None:
                values = _vectors(matrix, start, stop, facts["dim"])
            else:
                values = _lists(matrix, start, stop, facts["dim"])
            block = [ids.slice(start, ROWS).combine_chunks(), values, statuses.slice(start, ROWS)]
            writer.write_table(pa.table(block, schema=schema))


def _vectors(matrix: FeatureMatrix, start: int, stop: int, dim: int) -> pa.Array:
    """Vectors of the release's rows start..stop, NULL where an item has none."""
    low, high = np.searchsorted(matrix.rows, [start, stop])
    block = np.zeros((stop - start, dim), np.float32)
    missing = np.ones(stop - start, bool)
    at = matrix.rows[low:high] - start
    block[at] = matrix.values[low:high]
    missing[at] = False
    return pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), dim, mask=pa.array(missing))


def _lists(matrix: FeatureMatrix, start: int, stop: int, dim: int) -> pa.Array:
    """The same for several vectors an item."""
    assert matrix.offsets is not None
    low, high = np.searchsorted(matrix.rows, [start, stop])
    counts = np.zeros(stop - start, np.int64)
    missing = np.ones(stop - start, bool)
    at = matrix.rows[low:high] - start
    counts[at] = np.diff(matrix.offsets[low : high + 1])
    missing[at] = False
    offsets = pa.array(np.r_[0, np.cumsum(counts)], pa.int32())
    values = np.ascontiguousarray(matrix.values[matrix.offsets[low] : matrix.offsets[high]])
    inner = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), dim)
    return pa.ListArray.from_arrays(offsets, inner, mask=pa.array(missing))
