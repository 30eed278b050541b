"""Tables in memory: Arrow, and pandas frames by duck typing (pandas itself is never imported). `line` is the row,
from 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.errors import BadInput
from ingest.raw import Raw


def read_memory(source: Any, role: str) -> Raw:
    """An Arrow table, record batch, or pandas frame (its index is left out)."""
    if isinstance(source, pa.RecordBatch):
        source = pa.Table.from_batches([source])
    if isinstance(source, pa.Table):
        return Raw(
            f"<arrow table of {role}>",
            source.replace_schema_metadata(None),
            np.arange(1, source.num_rows + 1),
        )
    if type(source).__module__.split(".")[0] == "pandas" and hasattr(source, "columns"):
        names = [str(name) for name in source.columns]
        typed = [_series(source.iloc[:, place], name) for place, name in enumerate(names)]
        table = pa.table([column for column, _ in typed], names=names)
        untyped = frozenset(name for name, (_, mixed) in zip(names, typed, strict=True) if mixed)
        return Raw(f"<pandas frame of {role}>", table, np.arange(1, table.num_rows + 1), untyped=untyped)
    raise BadInput(
        f"{role} cannot be read from a {type(source).__name__}",
        remedy="give a path, a pyarrow.Table or a pandas.DataFrame",
    )


def _series(series: Any, name: str) -> tuple[pa.Array, bool]:
    """(values, whether they mixed types and became text)."""
    try:
        return pa.array(series, from_pandas=True), False
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        values = [None if value is None or value != value else value for value in series]
    if any(isinstance(value, dict | list | tuple | bytes) for value in values):
        raise BadInput(
            f"column '{name}' mixes lists or objects with other values",
            remedy="make it one type, or leave it out",
        )
    return pa.array([None if value is None else str(value) for value in values], pa.string()), True
