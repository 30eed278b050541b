"""Files of values that somebody else computed, read a block at a time: NAME.npy with ids beside it, or Parquet.

A vector that cannot be stored (NaN, infinite, beyond float32, nothing but zeros) is the fault of its item, not of the
file; a file whose vectors differ in size, whose ids repeat, or that has no id for a row is refused whole, before
anything is written.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore import files
from featurestore.errors import BadInput, CellError, did_you_mean
from featurestore.schema import ITEM_ID, ValueKind

ROWS = 65_536  # values held at once
PREFIX = b"dualview."
ORIGIN = ("store", "release", "feature", "recipe_id", "recipe")

NOT_FINITE = CellError("not_finite", "the imported vector has NaN or infinite values")
OVERFLOW = CellError("overflow", "the imported vector has a value beyond the range of float32")
ZERO = CellError(
    "zero_vector", "the imported vector is nothing but zeros, which has no direction to compare by"
)

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Block:
    """Values of the file's rows start, start + 1, ...

    values: Arrow array in a table's type, of any content where `given` (m,) is false or a row has a fault.
    """

    start: int
    values: pa.Array
    given: Bool
    faults: dict[int, CellError] = field(default_factory=dict)


class ValueFile(ABC):
    """ids: (n,) strings, the file's rows in order; unique. identity: what of the file decides the values.

    origin: of a file that a store exported, which store, release and recipe it came from.
    """

    kind: ValueKind
    dim: int | None
    ids: pa.Array
    identity: dict[str, Any]
    origin: dict[str, Any] | None = None

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """All rows, in order."""


def open_vectors(path: Path, ids: Path | None, column: str | None) -> ValueFile:
    """A file of vectors: .npy with its ids (beside it as NAME.ids.txt unless given), or .parquet with both."""
    return _open(path, ids, column, ValueKind.VECTOR)


def open_texts(path: Path, column: str | None) -> ValueFile:
    """A .parquet file of item ids and texts."""
    return _open(path, None, column, ValueKind.TEXT)


def _open(path: Path, ids: Path | None, column: str | None, kind: ValueKind) -> ValueFile:
    if not path.is_file():
        raise BadInput(f"there is no file {path}", remedy="check its path")
    if path.suffix == ".npy" and kind is ValueKind.VECTOR:
        if column is not None:
            raise BadInput(f"{path.name} has no columns, and one was named", remedy="leave out the column")
        return _Npy(path, ids or path.with_name(f"{path.stem}.ids.txt"))
    if path.suffix in (".parquet", ".pq"):
        if ids is not None:
            raise BadInput(
                f"{path.name} holds its ids itself, in a column {ITEM_ID}", remedy="leave out the file of ids"
            )
        return _Parquet(path, column, kind)
    what = ".npy or .parquet file" if kind is ValueKind.VECTOR else ".parquet file"
    raise BadInput(f"{path.name} is no {what}", remedy="write the values as one, see docs/exchange.md")


class _Npy(ValueFile):
    kind = ValueKind.VECTOR

    def __init__(self, path: Path, ids: Path) -> None:
        try:
            self._values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError) as error:
            raise BadInput(
                f"{path} cannot be read as npy ({error})", remedy="write it with numpy.save"
            ) from error
        if self._values.ndim != 2 or self._values.dtype.kind != "f" or 0 in self._values.shape:
            raise BadInput(
                f"{path} holds {self._values.dtype} of shape {self._values.shape}, not one vector a row",
                remedy="save an array of float32 of shape (items, size)",
            )
        self.dim = int(self._values.shape[1])
        self.ids = _checked(read_ids(ids), ids)
        if len(self.ids) != len(self._values):
            raise BadInput(
                f"{path.name} has {len(self._values):,} rows and {ids.name} {len(self.ids):,} ids",
                remedy="row i of the one belongs to line i of the other; write both again",
            )
        self.identity = {"sha256": files.sha256_file(path), "ids_sha256": files.sha256_file(ids)}
        self.origin = _sidecar(path)

    def blocks(self) -> Iterator[Block]:
        for start in range(0, len(self._values), ROWS):
            given = np.ones(len(self._values[start : start + ROWS]), bool)
            yield _block(start, np.asarray(self._values[start : start + ROWS]), given)


class _Parquet(ValueFile):
    def __init__(self, path: Path, column: str | None, kind: ValueKind) -> None:
        self.kind, self._path = kind, path
        try:
            self._file = pq.ParquetFile(path)
            schema = self._file.schema_arrow
            if ITEM_ID not in schema.names:
                hint = did_you_mean(ITEM_ID, schema.names)
                raise BadInput(
                    f"{path} has no column '{ITEM_ID}'", remedy=f"rename the one with the ids; {hint}"
                )
            ids = self._file.read(columns=[ITEM_ID])[ITEM_ID]
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise BadInput(
                f"{path} cannot be read as parquet ({error})", remedy="write or fetch it again"
            ) from error
        self.ids = _checked(pc.cast(ids, pa.string()).combine_chunks(), path)
        self._column = _value_column(schema, column, kind, path)
        self.dim = self._size(schema.field(self._column).type) if kind is ValueKind.VECTOR else None
        self.identity = {"sha256": files.sha256_file(path), "column": self._column}
        said = {k: v for k, v in (schema.metadata or {}).items() if k.startswith(PREFIX)}
        texts = {k.removeprefix(PREFIX).decode(): v.decode() for k, v in said.items()}
        if "recipe" in texts:
            with suppress(ValueError):
                self.origin = _origin(texts | {"recipe": json.loads(texts["recipe"])})

    def blocks(self) -> Iterator[Block]:
        start = 0
        for batch in self._file.iter_batches(ROWS, columns=[self._column], use_threads=False):
            column = batch.column(0)
            yield self._texts(start, column) if self.dim is None else self._vectors(start, column, self.dim)
            start += len(column)

    def _texts(self, start: int, column: pa.Array) -> Block:
        texts = pc.cast(column, pa.string())
        says = pc.fill_null(pc.match_substring_regex(texts, r"[^\s\pZ]"), False)
        return Block(start, texts, says.to_numpy(zero_copy_only=False))

    def _vectors(self, start: int, column: pa.Array, dim: int) -> Block:
        given = column.is_valid().to_numpy(zero_copy_only=False)
        parts = column.flatten()  # of the rows that are not NULL
        inner = pc.fill_null(pc.cast(parts, pa.float64()) if parts.null_count else parts, float("nan"))
        values = np.zeros((len(column), dim), inner.to_numpy(zero_copy_only=False).dtype)
        values[given] = inner.to_numpy(zero_copy_only=False).reshape(-1, dim)
        return _block(start, values, given)

    def _size(self, kind: pa.DataType) -> int:
        """Size of the vectors; every list is looked at where the type does not say it."""
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        size, start = 0, 0
        for batch in self._file.iter_batches(ROWS, columns=[self._column], use_threads=False):
            lengths = pc.list_value_length(batch.column(0))
            known = lengths.drop_null()
            if len(known):
                size = size or known[0].as_py()
                other = pc.fill_null(pc.not_equal(lengths, size), False).to_numpy(zero_copy_only=False)
                if other.any():
                    at = int(np.flatnonzero(other)[0])
                    raise BadInput(
                        f"{self._path}: item '{self.ids[start + at].as_py()}' has a vector of "
                        f"{lengths[at].as_py()} numbers, those before it have {size}",
                        remedy="one feature holds vectors of one size",
                    )
            start += len(lengths)
        if not size:
            raise BadInput(f"{self._path} holds no vector", remedy="check that it was written whole")
        return size


def _block(start: int, values: npt.NDArray[Any], given: Bool) -> Block:
    """values: (m, dim) of any float type."""
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(values, dtype=np.float32)
    finite = np.isfinite(narrow).all(axis=1)
    faults: dict[int, CellError] = {}
    for row in np.flatnonzero(given & ~finite):
        faults[int(row)] = OVERFLOW if np.isfinite(values[row]).all() else NOT_FINITE
    for row in np.flatnonzero(given & finite & ~narrow.any(axis=1)):
        faults[int(row)] = ZERO
    array = pa.FixedSizeListArray.from_arrays(pa.array(narrow.ravel()), narrow.shape[1])
    return Block(start, array, given, faults)


def _value_column(schema: pa.Schema, asked: str | None, kind: ValueKind, path: Path) -> str:
    """The column that holds the values: the one named, else `vector` or `text`, else the only one that can."""
    fits = _is_vector if kind is ValueKind.VECTOR else _is_text
    fitting: list[str] = [f.name for f in schema if f.name != ITEM_ID and fits(f.type)]
    usual = "vector" if kind is ValueKind.VECTOR else "text"
    if asked is not None:
        if asked not in schema.names:
            raise BadInput(f"{path} has no column '{asked}'", remedy=did_you_mean(asked, schema.names))
        if asked not in fitting:
            raise BadInput(
                f"column '{asked}' of {path} holds {schema.field(asked).type}, not a {kind} an item",
                remedy=f"columns that do: {', '.join(fitting) or 'none'}",
            )
        return asked
    if usual in fitting:
        return usual
    if len(fitting) != 1:
        raise BadInput(
            f"{path} has {len(fitting)} columns that could hold a {kind} ({', '.join(fitting) or 'none'})",
            remedy="name one with --column" if fitting else "write lists of floats, or texts",
        )
    return fitting[0]


def _is_vector(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and pa.types.is_floating(kind.value_type))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


# ---- ids


def read_ids(path: Path) -> pa.Array:
    """Ids in the order of the rows, from a .txt (one a line), .npy (texts or whole numbers) or .json (a list)."""
    if not path.is_file():
        raise BadInput(
            f"there is no file of ids {path}", remedy="name it: one id a line (.txt), .npy, or a .json list"
        )
    try:
        if path.suffix == ".npy":
            found = np.load(path, allow_pickle=False)
            if found.ndim != 1 or found.dtype.kind not in "Uiu":
                raise ValueError(f"{found.dtype} of shape {found.shape}, not one text or whole number a row")
            return pa.array(found.astype(np.str_).tolist(), pa.string())
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            listed = json.loads(text)
            if not isinstance(listed, list) or not all(type(i) in (str, int) for i in listed):
                raise ValueError("not a list of texts or whole numbers")
            return pa.array([str(i) for i in listed], pa.string())
    except ValueError as error:
        raise BadInput(
            f"{path} cannot be read as ids ({error})", remedy="write one id a line, UTF-8"
        ) from error
    lines = text.split("\n")
    return pa.array([line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)], pa.string())


def _checked(ids: pa.Array, path: Path) -> pa.Array:
    """The same without white space around them, as ingest reads ids. Raises BadInput for an empty or repeated one."""
    ids = pc.utf8_trim_whitespace(ids)
    empty = pc.fill_null(pc.equal(ids, ""), True)
    if pc.any(empty).as_py():
        at = int(pc.index(empty, True).as_py())
        raise BadInput(f"row {at + 1} of {path} has no id", remedy="give every row the id of its item")
    counted = ids.value_counts()
    twice = counted.filter(pc.greater(counted.field("counts"), 1))
    if len(twice):
        shown = ", ".join(f"'{i}'" for i in twice.field("values").slice(0, 3).to_pylist())
        raise BadInput(
            f"{path} has {len(twice):,} ids more than once: {shown}", remedy="keep one row for each item"
        )
    return ids


# ---- where an exported file came from


def _sidecar(path: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        said = files.read_json(path.with_suffix(".json"))
        if isinstance(said, dict) and said.get("values") == path.name:
            return _origin(said)
    return None


def _origin(said: dict[str, Any]) -> dict[str, Any] | None:
    return {key: said.get(key) for key in ORIGIN} if isinstance(said.get("recipe"), dict) else None
