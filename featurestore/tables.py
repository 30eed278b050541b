"""LanceDB tables of a store: read at a pinned version, written by key, compacted on a gate.

Two decisions. Reading goes through pylance, which imports in a fifth of lancedb's time; only a write loads lancedb. And
a write is checked here before it reaches a table: a NULL or doubled key, a value that would be cut or overflow, a
vector that is NaN, infinite or all zeros is refused with the row's key, since the format would take them silently.

Lance commits by linking a manifest that is whole to its name, so a process may be killed at any moment. But it flushes
nothing (pylance 14: not one fsync in a trace of create, merge, overwrite and tag), so after each commit here its files
are flushed: what a verb reported survives a power cut. One between Lance's link and our flush can leave a newest
version that cannot be read; those that releases pin were flushed before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore import failpoints, files
from featurestore.errors import BadInput, Conflict, NotFound
from featurestore.schema import KEY_METADATA

SMALL_ROWS = 262_144  # a data file with fewer rows is small; the size that compaction aims at
SMALL_FILES = 32  # more small files than this are merged: 201 of them scan 60 times slower than one
DELETED_SHARE = 0.5  # of the rows on disk, from which the rest is written anew
CLOCK_SECONDS = 2.0  # by which a file's time may lie before our clock's: some file systems keep even seconds
INDEX_ROWS = 500_000  # a BTREE on the key pays from here on: nothing gained at 400k, 3.4x at 1M


class Tables:
    """The tables in `folder`. Names are plain; each is a Lance data set `folder/NAME.lance`."""

    def __init__(self, folder: str | Path, *, durable: bool = True) -> None:
        """durable: flush each commit to disk; not where the caller does, for many at once."""
        self.folder = Path(folder)
        self._durable = durable
        self._connection: Any = None

    # ---- reading

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.lance"

    def names(self) -> list[str]:
        return sorted(p.stem for p in self.folder.glob("*.lance") if self.exists(p.stem))

    def exists(self, name: str) -> bool:
        """Whether a version was ever committed: a folder without one is what a crash left of `create`."""
        return any((self.path(name) / "_versions").glob("*.manifest"))

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

    def same(self, name: str, version: int, other: int) -> bool:
        """Whether two versions are made of the same files, as a restored one and what it was restored from are."""
        if version == other:
            return True
        one, two = self.dataset(name, version), self.dataset(name, other)
        files_of = [[part.metadata.to_json() for part in each.get_fragments()] for each in (one, two)]
        return bool(one.schema.equals(two.schema) and files_of[0] == files_of[1])

    def disk(self, name: str) -> int:
        """Bytes on disk, all kept versions together."""
        total = 0
        for folder, _, names in os.walk(self.path(name)):  # which bears with folders that a writer takes away
            for file in names:
                with suppress(FileNotFoundError):
                    total += os.stat(os.path.join(folder, file)).st_size
        return total

    # ---- writing (the caller holds the writer's lock)

    def create(self, name: str, schema: pa.Schema) -> None:
        """Make an empty table. Raises Conflict if it exists."""
        if self.exists(name):
            raise Conflict(f"table '{name}' exists already", remedy="write into it with upsert")
        with self._writing(name):
            self._lancedb().create_table(name, schema=schema)

    def upsert(self, name: str, table: pa.Table, key: str) -> int:
        """Insert new keys and replace known ones, in one commit; returns the new version.

        `table` may hold a part of the columns: an update then leaves the others as they are, and a new row gets NULLs.
        Nothing is written (and the version stays) when `table` has no rows.
        """
        if table.num_rows == 0:
            return self.version(name)
        rows = conform(table, self._subschema(name, table), key, name)
        with self._writing(name):
            target = self._lancedb().open_table(name)
            self._index_key(target, name, key)
            target.merge_insert(key).when_matched_update_all().when_not_matched_insert_all().execute(
                rows, on_bad_vectors="null"
            )
        return self.version(name)

    def append(self, name: str, table: pa.Table, key: str) -> int:
        """Add rows whose keys are known to be new, in one commit."""
        if table.num_rows == 0:
            return self.version(name)
        self._subschema(name, table)
        rows = conform(table, self.schema(name), key, name)
        with self._writing(name):
            self._lancedb().open_table(name).add(rows)
        return self.version(name)

    def replace(self, name: str, table: pa.Table, key: str) -> int:
        """Swap all rows in one commit; older versions stay readable."""
        self._subschema(name, table)
        rows = conform(table, self.schema(name), key, name)
        with self._writing(name):
            import lance

            lance.write_dataset(rows, str(self.path(name)), mode="overwrite")
        return self.version(name)

    def restore(self, name: str, version: int) -> int:
        """Make the content of an older version the newest again, as a new version."""
        with self._writing(name):
            self.dataset(name, version).restore()
        return self.version(name)

    def delete(self, name: str, predicate: str) -> int:
        with self._writing(name):
            self._lancedb().open_table(name).delete(predicate)
        return self.version(name)

    def add_columns(self, name: str, fields: list[pa.Field]) -> None:
        """Add columns, NULL in every row there is."""
        if fields:
            with self._writing(name):
                self.dataset(name).add_columns(pa.schema(fields))

    def compact(self, name: str, force: bool = False) -> bool:
        """Merge small data files when there are many, or rewrite a table of which most rows are gone. True if it did.

        Old versions and tags are left alone. The files aimed at are of a bounded size, so a table that grows batch by
        batch is written about twice, not once for each gate it passes.
        """
        dataset = self.dataset(name)
        stats = dataset.stats.dataset_stats(SMALL_ROWS)
        kept = dataset.count_rows()
        crowded = stats["num_small_files"] > SMALL_FILES
        hollow = stats["num_deleted_rows"] > DELETED_SHARE * (kept + stats["num_deleted_rows"])
        if not (force or crowded or hollow):
            return False
        with self._writing(name):
            dataset.optimize.compact_files(target_rows_per_fragment=SMALL_ROWS)
        if dataset.describe_indices():
            with self._writing(name):
                dataset.optimize.optimize_indices()
        return True

    def tag(self, name: str, tag: str, version: int) -> None:
        """Pin a version, so that no cleanup removes it."""
        tags = self.dataset(name).tags
        with self._writing(name):
            if tag in tags.list():
                tags.update(tag, version)
            else:
                tags.create(tag, version)

    def untag(self, name: str, tag: str) -> None:
        tags = self.dataset(name).tags
        if tag in tags.list():
            with self._writing(name):
                tags.delete(tag)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """One commit to a table, on disk when the block ends."""
        begun = time.time() - CLOCK_SECONDS
        with files.disk_errors(f"this batch of table '{name}'"):
            with failpoints.commit(f"table {name}"):
                yield
            if self._durable:
                files.flush_tree(self.path(name), since=begun)

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
    """`table` with exactly the columns and types of `schema`, or BadInput that names table, row and field.

    Numbers become numbers of another width where they keep their value (a double may lose digits as a float32, as
    vectors do, but not overflow); nothing is turned into text or out of it, and no yes/no into a number.
    """
    missing = [field.name for field in schema if field.name not in table.column_names]
    if missing or key not in table.column_names:
        raise BadInput(f"table '{name}' needs column {', '.join(missing or [key])}")
    keys = table[key].combine_chunks()
    if pa.types.is_dictionary(keys.type):
        keys = keys.dictionary_decode()
    _check_keys(keys, key, name)
    columns = []
    for field in schema:
        column = table[field.name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # more text than one array can hold
            raise BadInput(f"table '{name}', field '{field.name}': more than 2 GB of text in one write")
        place = _Place(name, field.name, keys)
        columns.append(_checked(column, field.type, place))
        if not field.nullable and columns[-1].null_count:
            place.refuse(int(np.flatnonzero(np.asarray(columns[-1].is_null()))[0]), "there is no value")
    return pa.table(columns, schema=schema)


@dataclass(frozen=True)
class _Place:
    """Where a value stands, for refusals."""

    table: str
    field: str
    keys: pa.Array

    def refuse(self, row: int, reason: str, remedy: str | None = None) -> NoReturn:
        raise BadInput(
            f"table '{self.table}', row '{self.keys[row].as_py()}', field '{self.field}': {reason}",
            remedy=remedy,
        )


def _check_keys(keys: pa.Array, key: str, name: str) -> None:
    if keys.null_count:
        raise BadInput(f"table '{name}': {keys.null_count} rows have no {key}", remedy="give every row a key")
    if pc.count_distinct(keys).as_py() != len(keys):
        counts = pc.value_counts(keys)
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")[0].as_py()
        raise BadInput(
            f"table '{name}': {key} '{twice}' stands in one write twice", remedy="keep one row for each key"
        )


def _checked(column: pa.Array, kind: pa.DataType, place: _Place) -> pa.Array:
    if column.type != kind:
        if not _same_family(column.type, kind):
            raise BadInput(
                f"table '{place.table}', field '{place.field}': {column.type} is given, {kind} is kept"
            )
        _check_sizes(column, kind, place)
        try:
            cast = column.cast(kind, safe=True)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            place.refuse(_first_uncastable(column, kind), f"{column.type} does not fit {kind}: {error}")
        if pa.types.is_floating(kind) and pa.types.is_floating(column.type):
            lost = np.asarray(pc.and_(pc.is_inf(cast), pc.invert(pc.is_inf(column))).fill_null(False))
            if lost.any():
                row = int(np.flatnonzero(lost)[0])
                place.refuse(row, f"{column[row].as_py()} is too large for {kind}")
        column = cast
    _check_vectors(column, place)
    return column


def _same_family(given: pa.DataType, kind: pa.DataType) -> bool:
    """Whether a cast keeps what a value is: a number a number, a text a text."""
    types = pa.types
    if types.is_null(given):
        return True
    if types.is_dictionary(given):
        return _same_family(given.value_type, kind)
    if _is_list(given) and _is_list(kind):
        return _same_family(given.value_type, kind.value_type)
    tests = (
        lambda t: types.is_integer(t) or types.is_floating(t),
        lambda t: types.is_string(t) or types.is_large_string(t) or types.is_string_view(t),
        lambda t: types.is_binary(t) or types.is_large_binary(t),
        types.is_boolean,
        types.is_timestamp,
    )
    return any(bool(test(given) and test(kind)) for test in tests)


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _check_sizes(column: pa.Array, kind: pa.DataType, place: _Place) -> None:
    """Refuse vectors of another size than the column's, naming the first."""
    if not pa.types.is_fixed_size_list(kind) or not _is_list(column.type):
        return
    sizes = pc.list_value_length(column)
    wrong = np.asarray(pc.not_equal(sizes, kind.list_size).fill_null(False))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        place.refuse(row, f"the vector has {sizes[row].as_py()} values, the feature has {kind.list_size}")


def _first_uncastable(column: pa.Array, kind: pa.DataType) -> int:
    """Row of the first value that does not fit, by halving."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            column.slice(low, middle - low).cast(kind, safe=True)
            low = middle
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            high = middle
    return low


def _check_vectors(column: pa.Array, place: _Place) -> None:
    kind = column.type
    listed = pa.types.is_list(kind)
    inner = kind.value_type if listed else kind
    if not pa.types.is_fixed_size_list(inner):
        return
    vectors = column.flatten() if listed else column
    if listed:
        owners = np.repeat(np.arange(len(column)), np.asarray(pc.list_value_length(column).fill_null(0)))
        if vectors.null_count:
            place.refuse(
                int(owners[np.flatnonzero(np.asarray(vectors.is_null()))[0]]), "one of its vectors is NULL"
            )
    else:
        owners = np.flatnonzero(np.asarray(column.is_valid()))
    values = vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, inner.list_size)
    finite = np.isfinite(values).all(axis=1)
    bad = np.flatnonzero(~finite | ~values.any(axis=1))
    if len(bad):
        place.refuse(
            int(owners[bad[0]]),
            "the vector is all zeros" if finite[bad[0]] else "the vector holds NaN or infinite values",
            "a vector that says nothing cannot be compared; leave the row without a value",
        )


def key_of(schema: pa.Schema) -> str:
    """Name of the field that is marked as the primary key."""
    mark = next(iter(KEY_METADATA)).encode()
    return str(next(f.name for f in schema if f.metadata and mark in f.metadata))
