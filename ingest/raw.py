"""What a reader hands over: `Raw`, one Arrow table with a line number a row, and `Rejects`, what could not be taken.

`Rejects` grows in columns: one call sets aside one row or a million, and `table()` is what the quarantine stores.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

REJECTS_SCHEMA = pa.schema(
    [
        pa.field("line", pa.int64()),
        pa.field("field", pa.string()),
        pa.field("code", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("row", pa.string()),
    ]
)


class Rejects:
    """Rows, or single fields of rows, that were set aside: line, field (None: the whole row), code, reason, row as
    JSON.
    """

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []
        self._rows: list[dict[str, object]] = []

    def __len__(self) -> int:
        return len(self._rows) + sum(int(part.num_rows) for part in self._parts)

    def add(self, line: int, field: str | None, code: str, reason: str, row: str) -> None:
        self._rows.append({"line": line, "field": field, "code": code, "reason": reason, "row": row})

    def add_many(
        self,
        table: pa.Table,
        lines: np.ndarray,
        where: np.ndarray,
        field: str,
        code: str,
        reason: str | pa.Array,
    ) -> None:
        """Set aside the rows of `table` where the mask `where` (n,) is true; `reason` is one text or one a chosen
        row.
        """
        chosen = np.flatnonzero(where)
        if not len(chosen):
            return
        count = len(chosen)
        reasons = pa.repeat(pa.scalar(reason), count) if isinstance(reason, str) else reason
        self._parts.append(
            pa.table(
                [
                    pa.array(lines[chosen], pa.int64()),
                    pa.repeat(pa.scalar(field), count),
                    pa.repeat(pa.scalar(code), count),
                    reasons,
                    rows_as_json(table.take(pa.array(chosen))),
                ],
                schema=REJECTS_SCHEMA,
            )
        )

    def lines_of(self, field: str) -> np.ndarray:
        """Lines of the single rows whose `field` was set aside."""
        return np.array([row["line"] for row in self._rows if row["field"] == field], np.int64)

    def table(self) -> pa.Table:
        rows = pa.Table.from_pylist(self._rows, schema=REJECTS_SCHEMA)
        return pa.concat_tables([rows, *self._parts])

    def counts(self) -> dict[str, int]:
        codes: Counter[str] = Counter(str(row["code"]) for row in self._rows)
        for part in self._parts:
            for entry in pc.value_counts(part.column("code")).to_pylist():
                codes[entry["values"]] += entry["counts"]
        return dict(sorted(codes.items()))


@dataclass(frozen=True)
class Raw:
    """A source as it was read.

    table: columns as the source names them. lines: (n,) int64, the 1-based physical line (csv, jsonl) or row (parquet,
    tables) each row begins at. unreadable: rows whose id is not known. untyped: columns whose texts may stand for
    other types (every column of a csv; a column that mixed types); a text of a typed source is a text.
    """

    name: str
    table: pa.Table
    lines: np.ndarray
    rejects: Rejects = field(default_factory=Rejects)
    unreadable: int = 0
    untyped: frozenset[str] = frozenset()


def rows_as_json(table: pa.Table) -> pa.Array:
    """Each row as a JSON object, whole columns at a time (a million unknown items must not cost a million Python
    calls).
    """
    if table.num_rows == 0:
        return pa.array([], pa.string())
    cells: list[pa.Array | pa.Scalar] = []
    for place, name in enumerate(table.column_names):
        key = json.dumps(name, ensure_ascii=False)
        cells.append(pa.scalar(("{" if place == 0 else ", ") + key + ": "))
        cells.append(_json_cells(table.column(place)))
    joined = pc.binary_join_element_wise(*cells, pa.scalar("}"), "")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _json_cells(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_string(kind):
        escaped = pc.replace_substring(column, "\\", "\\\\")
        for raw, spelled in (('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
            escaped = pc.replace_substring(escaped, raw, spelled)
        if not pc.any(pc.match_substring_regex(escaped, r"[\x00-\x1f]"), min_count=0).as_py():
            return pc.fill_null(
                pc.binary_join_element_wise(pa.scalar('"'), escaped, pa.scalar('"'), ""), "null"
            )
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return pc.fill_null(pc.cast(column, pa.string()), "null")
    spelled_out = [json.dumps(value, ensure_ascii=False, default=str) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(spelled_out, pa.string())])
