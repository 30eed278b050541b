"""LanceDB tables of a store: read at a pinned version, written by key, compacted on a gate.

Two decisions. Reading goes through pylance, which imports in a fifth of lancedb's time; only a write loads lancedb. And
a write is checked here before it reaches a table: a NULL or doubled key, a value that would be cut or overflow, a
vector that is NaN, infinite or all zeros is refused with the row's key, since the format would take them silently.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.errors import BadInput, Conflict, DualviewError, NotFound
from featurestore.schema import KEY_METADATA

COMPACT_FRAGMENTS = (
    32  # more than this many data files of a table are merged: 201 small ones scan 60 times slower
)
INDEX_ROWS = 100_000  # from here on a BTREE on the key pays for itself in merges


class Tables:
    """The tables in `folder`. Names are plain; each is a Lance data set `folder/NAME.lance`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._connection: Any = None

    # ---- reading

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.lance"

    def names(self) -> list[str]:
        return sorted(p.stem for p in self.folder.glob("*.lance") if (p / "_versions").is_dir())

    def exists(self, name: str) -> bool:
        return (self.path(name) / "_versions").is_dir()

    def dataset(self, name: str, version: int | None = None) -> Any:
        """The Lance data set, at `version` or at its newest. Raises NotFound."""
        import lance

        if not self.exists(name):
            raise NotFound(f"there is no table '{name}' in {self.folder}")
        return lance.dataset(str(self.path(name)), version=version)

    def version(self, name: str) -> int:
        return int(self.dataset(name).version)

    def schema(self, name: str) -> pa.Schema:
        return self.dataset(name).schema

    def count(self, name: str, version: int | None = None) -> int:
        return int(self.dataset(name, version).count_rows())

    def read(
        self,
        name: str,
        columns: list[str] | None = None,
        filter: str | None = None,
        version: int | None = None,
    ) -> pa.Table:
        return self.dataset(name, version).to_table(columns=columns, filter=filter)

    def disk(self, name: str) -> int:
        """Bytes on disk, all kept versions together."""
        return sum(p.stat().st_size for p in self.path(name).rglob("*") if p.is_file())

    # ---- writing (the caller holds the writer's lock)

    def create(self, name: str, schema: pa.Schema) -> None:
        """Make an empty table. Raises Conflict if it exists."""
        if self.exists(name):
            raise Conflict(f"table '{name}' exists already")
        with _disk_errors(name):
            self._lancedb().create_table(name, schema=schema)

    def upsert(self, name: str, table: pa.Table, key: str) -> int:
        """Insert new keys and replace known ones, in one commit; returns the new version.

        `table` may hold a part of the columns: an update then leaves the others as they are, and a new row gets NULLs.
        Nothing is written (and the version stays) when `table` has no rows.
        """
        if table.num_rows == 0:
            return self.version(name)
        rows = conform(table, self._subschema(name, table), key, name)
        with _disk_errors(name):
            target = self._lancedb().open_table(name)
            self._index_key(target, name, key)
            target.merge_insert(key).when_matched_update_all().when_not_matched_insert_all().execute(rows, on_bad_vectors="null")
        return self.version(name)

    def append(self, name: str, table: pa.Table, key: str) -> int:
        """Add rows whose keys are known to be new, in one commit."""
        if table.num_rows == 0:
            return self.version(name)
        rows = conform(table, self.schema(name), key, name)
        with _disk_errors(name):
            self._lancedb().open_table(name).add(rows)
        return self.version(name)

    def replace(self, name: str, table: pa.Table, key: str) -> int:
        """Swap all rows in one commit; older versions stay readable."""
        rows = conform(table, self.schema(name), key, name)
        with _disk_errors(name):
            import lance

            lance.write_dataset(rows, str(self.path(name)), mode="overwrite")
        return self.version(name)

    def delete(self, name: str, predicate: str) -> int:
        with _disk_errors(name):
            self._lancedb().open_table(name).delete(predicate)
        return self.version(name)

    def add_columns(self, name: str, fields: list[pa.Field]) -> None:
        """Add columns, NULL in every row there is."""
        if fields:
            with _disk_errors(name):
                self.dataset(name).add_columns(pa.schema(fields))

    def drop(self, name: str) -> None:
        shutil.rmtree(self.path(name), ignore_errors=True)

    def compact(self, name: str, force: bool = False) -> bool:
        """Merge small data files when there are many; old versions and tags are left alone. True if it did."""
        dataset = self.dataset(name)
        if not force and len(dataset.get_fragments()) <= COMPACT_FRAGMENTS:
            return False
        with _disk_errors(name):
            dataset.optimize.compact_files()
            if dataset.list_indices():
                dataset.optimize.optimize_indices()
        return True

    def tag(self, name: str, tag: str, version: int) -> None:
        """Pin a version, so that no cleanup removes it."""
        tags = self.dataset(name).tags
        if tag in tags.list():
            tags.update(tag, version)
        else:
            tags.create(tag, version)

    def untag(self, name: str, tag: str) -> None:
        tags = self.dataset(name).tags
        if tag in tags.list():
            tags.delete(tag)

    def _subschema(self, name: str, table: pa.Table) -> pa.Schema:
        whole = self.schema(name)
        unknown = sorted(set(table.column_names) - set(whole.names))
        if unknown:
            raise BadInput(
                f"table '{name}' has no column {', '.join(unknown)}", remedy="add the columns first"
            )
        return pa.schema([whole.field(column) for column in table.column_names])

    def _index_key(self, target: Any, name: str, key: str) -> None:
        if self.count(name) >= INDEX_ROWS and not target.list_indices():
            from lancedb.index import BTree

            target.create_index(key, config=BTree())

    def _lancedb(self) -> Any:
        if self._connection is None:
            import lancedb

            self.folder.mkdir(parents=True, exist_ok=True)
            self._connection = lancedb.connect(str(self.folder))
        return self._connection


def conform(table: pa.Table, schema: pa.Schema, key: str, name: str) -> pa.Table:
    """`table` with exactly the columns and types of `schema`, or BadInput that names table, key and field."""
    missing = [field.name for field in schema if field.name not in table.column_names]
    if missing:
        raise BadInput(f"table '{name}' needs column {', '.join(missing)}")
    _check_keys(table[key], key, name)
    columns = []
    for field in schema:
        column = table[field.name]
        if column.type != field.type:
            try:
                column = column.cast(field.type, safe=True)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise BadInput(
                    f"table '{name}', field '{field.name}': {column.type} does not fit {field.type}: {error}"
                ) from error
        _check_vectors(column, table[key], field.name, name)
        columns.append(column.combine_chunks() if column.num_chunks > 1 else column)
    return pa.table(columns, schema=schema)


def _check_keys(keys: pa.ChunkedArray, key: str, name: str) -> None:
    if keys.null_count:
        raise BadInput(f"table '{name}': {keys.null_count} rows have no {key}")
    if len(pc.unique(keys)) != len(keys):
        counts = pc.value_counts(keys.combine_chunks())
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")[0].as_py()
        raise BadInput(
            f"table '{name}': {key} '{twice}' stands in one write twice", remedy="keep one row for each key"
        )


def _check_vectors(column: pa.ChunkedArray, keys: pa.ChunkedArray, field: str, name: str) -> None:
    inner = column.type
    listed = pa.types.is_list(inner)
    if listed:
        inner = inner.value_type
    if not pa.types.is_fixed_size_list(inner):
        return
    for chunk, ids in zip(column.chunks, _like(keys, column).chunks, strict=True):
        valid = np.asarray(chunk.is_valid())
        vectors = chunk.flatten().flatten() if listed else chunk.flatten()
        values = vectors.to_numpy(zero_copy_only=False).reshape(-1, inner.list_size)
        bad = ~np.isfinite(values).all(axis=1) | ~values.any(axis=1)
        if bad.any():
            place = int(np.flatnonzero(bad)[0])
            if listed:
                lengths = np.asarray(pc.fill_null(pc.list_value_length(chunk), 0))
                row = int(np.searchsorted(np.cumsum(lengths), place, side="right"))
            else:
                row = int(np.flatnonzero(valid)[place])
            what = "all zeros" if not values[place].any() else "NaN or infinite"
            raise BadInput(
                f"table '{name}', row '{ids[row].as_py()}', field '{field}': the vector is {what}",
                remedy="a vector that says nothing cannot be compared; leave the row without a value",
            )


def _like(keys: pa.ChunkedArray, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`keys` cut into chunks as `column` is."""
    pieces, start = [], 0
    whole = keys.combine_chunks()
    for chunk in column.chunks:
        pieces.append(whole.slice(start, len(chunk)))
        start += len(chunk)
    return pa.chunked_array(pieces, type=keys.type)


@contextmanager
def _disk_errors(name: str) -> Iterator[None]:
    """A full or unwritable disk as a clear refusal. What was committed before stays."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        text = str(error)
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text:
            raise DualviewError(
                f"the disk is full: nothing of this batch was written to table '{name}'",
                remedy="free some space and run the same command again; what was committed before is kept",
            ) from error
        if isinstance(error, PermissionError) or "Permission denied" in text:
            raise DualviewError(
                f"table '{name}' cannot be written: {error}", remedy="check the folder's owner"
            ) from error
        raise


def key_of(schema: pa.Schema) -> str:
    """Name of the field that is marked as the primary key."""
    mark = next(iter(KEY_METADATA)).encode()
    return str(next(f.name for f in schema if f.metadata and mark in f.metadata))
