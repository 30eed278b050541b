"""Rows and values that were set aside, each with source, line, field, code, reason and the row as it stood.

Ingesting a source again replaces what was set aside of it before: the table says what is wrong today.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from featurestore.errors import ErrorExample, ErrorGroup
from featurestore.schema import ADDED_AT, QUARANTINE, QUARANTINE_SCHEMA, TIME
from featurestore.tables import Tables

KEY = "quarantine_id"
CONTENT = [KEY, "code", "reason", "row"]


def put(tables: Tables, rows: pa.Table, source: str) -> int:
    """Replace what is set aside of `source` by `rows` (line, field, code, reason, row), in one commit; returns how
    many.

    Of several entries for one field of one line the first is kept. Nothing is written where nothing changed.
    """
    fields = pc.fill_null(rows["field"], "").to_pylist()
    keys = [
        hashlib.sha256(f"{source}\0{line}\0{field}".encode()).hexdigest()[:32]
        for line, field in zip(rows["line"].to_pylist(), fields, strict=True)
    ]
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    places = sorted(first.values())
    chosen = rows.take(pa.array(places, pa.int64()))
    count = len(places)
    if not tables.exists(QUARANTINE):
        if not count:
            return 0
        tables.create(QUARANTINE, QUARANTINE_SCHEMA)
    now = pa.scalar(datetime.now(UTC), TIME)
    columns = {name: chosen[name] for name in ("line", "field", "code", "reason", "row")}
    columns |= {
        KEY: pa.array([keys[place] for place in places], pa.string()),
        "source": pa.repeat(pa.scalar(source), count),
        ADDED_AT: pa.repeat(now, count),
    }
    fresh = pa.table([columns[field.name] for field in QUARANTINE_SCHEMA], schema=QUARANTINE_SCHEMA)
    stored = tables.read(QUARANTINE)
    of_source = pc.equal(stored["source"], source)
    before = stored.filter(of_source)
    if not before.select(CONTENT).sort_by(KEY).equals(fresh.select(CONTENT).sort_by(KEY)):
        others = stored.filter(pc.invert(of_source)).cast(QUARANTINE_SCHEMA)
        tables.replace(QUARANTINE, pa.concat_tables([others, fresh]), KEY)
    return count


def read(tables: Tables, source: str | None = None) -> pa.Table:
    """What is set aside, in order of source and line."""
    if not tables.exists(QUARANTINE):
        return QUARANTINE_SCHEMA.empty_table()
    rows = tables.read(QUARANTINE)
    if source is not None:
        rows = rows.filter(pc.equal(rows["source"], source))
    return rows.sort_by([("source", "ascending"), ("line", "ascending"), ("field", "ascending")])


def summary(tables: Tables, examples: int | None = 3) -> list[ErrorGroup]:
    """What is set aside, grouped by code, the largest group first; examples (None: all) are placed as SOURCE:LINE."""
    rows = read(tables)
    found = []
    for entry in pc.value_counts(rows["code"]).to_pylist():
        some = rows.filter(pc.equal(rows["code"], entry["values"])).slice(0, examples).to_pylist()
        listed = [ErrorExample(f"{row['source']}:{row['line']}", row["field"], row["reason"]) for row in some]
        found.append(ErrorGroup("ingest", entry["values"], entry["counts"], listed))
    return sorted(found, key=lambda group: (-group.count, group.code))
