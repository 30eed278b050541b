"""Without our lock, two processes that write the same keys at once still cannot double one.

Every table that we create marks its key as the primary key, and Lance then refuses, or repeats, a commit whose keys
another one wrote meanwhile. The lock is what users meet; this is what holds where it does not (a file system whose
locks lie).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from featurestore import schema
from featurestore.schema import ValueKind
from featurestore.tables import Tables, key_of
from tests.faults import processes

ROUNDS = 8
ROWS = 40

SCHEMAS = {
    "items": schema.items_schema([pa.field("brand", pa.string())]),
    "images": schema.IMAGES_SCHEMA,
    "interactions": schema.INTERACTIONS_SCHEMA,
    "quarantine": schema.QUARANTINE_SCHEMA,
    "texts": schema.feature_schema(ValueKind.TEXT, None),
    "vectors": schema.feature_schema(ValueKind.VECTOR, 4),
    "lists": schema.feature_schema(ValueKind.VECTORS, 4),
}


def rows(shape: pa.Schema, keys: list[str]) -> pa.Table:
    """Rows with these keys and one value in every other column."""
    key = key_of(shape)
    columns = [
        pa.array(keys) if field.name == key else pa.array([_some(field.type)] * len(keys), field.type)
        for field in shape
    ]
    return pa.table(columns, schema=shape)


def _some(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return [_some(kind.value_type)]
    if pa.types.is_fixed_size_list(kind):
        return [1.0] * kind.list_size
    if pa.types.is_binary(kind):
        return b"b"
    return "t" if pa.types.is_string(kind) else pa.scalar(1).cast(kind, safe=False).as_py()


def write(folder: Path, name: str, writer: int, start: float) -> tuple[int, int]:
    """Upsert overlapping keys round after round, all writers at the same instants; commits and refusals."""
    tables = Tables(folder)
    shape = tables.schema(name)
    done = refused = 0
    for number in range(ROUNDS):
        keys = [f"k{number}-{at}" for at in range(writer * ROWS // 4, writer * ROWS // 4 + ROWS)]
        time.sleep(max(0.0, start + number * 0.12 - time.time()))
        try:
            tables.upsert(name, rows(shape, keys), key_of(shape))
            done += 1
        except (OSError, RuntimeError):  # Lance's commit conflict: the whole batch is left out
            refused += 1
    return done, refused


@pytest.mark.parametrize("name", SCHEMAS)
def test_two_writers_without_the_lock_cannot_double_a_key(tmp_path: Path, name: str) -> None:
    Tables(tmp_path).create(name, SCHEMAS[name])
    start = time.time() + 1.5
    told = processes.each(lambda w: processes.run(write, tmp_path, name, w, start), [0, 1])
    found = Tables(tmp_path).read(name)
    keys = np.asarray(found[key_of(SCHEMAS[name])].to_pylist())
    commits = sum(done for done, _ in told)
    assert commits >= ROUNDS, f"commits and refusals by writer: {told}"
    assert len(np.unique(keys)) == len(keys), f"a key is there twice; commits and refusals by writer: {told}"
    if not sum(refused for _, refused in told):
        assert len(keys) == ROUNDS * (ROWS + ROWS // 4), "a batch that was committed is whole"
