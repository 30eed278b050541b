"""The catalogue: one row an item, written only where its content changed.

Content is compared through a hash of the row's own columns, values and picture; NULLs are left out of it, so that a
new column changes no item that has no value there. An item that leaves the catalogue is marked, never erased, and
comes back as it was if it returns. Types are the caller's business: by the time rows arrive here they fit the
table.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.schema import (
    ADDED_AT,
    CONTENT_HASH,
    DELETED,
    IMAGE,
    IMAGE_SHA256,
    ITEM_ID,
    ITEMS,
    TIME,
    TITLE,
    UPDATED_AT,
    attribute_fields,
    items_schema,
)
from featurestore.tables import Tables

HASH_ROWS = 65_536  # rows hashed at once: what bounds memory


@dataclass(frozen=True)
class ItemChanges:
    """How many items an ingest added, changed, left as they were, tombstoned (`removed`) and brought back
    (`revived`).
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    revived: int = 0

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class ItemPlan:
    """What it takes to bring the catalogue up to what came in.

    columns: attributes that the table does not have yet. rows: new, changed and revived items, ready to be written.
    removed: (r,) ids of the items to be tombstoned.
    """

    changes: ItemChanges
    columns: list[pa.Field]
    rows: pa.Table
    removed: pa.ChunkedArray


def upsert_items(tables: Tables, incoming: pa.Table, *, remove_missing: bool = False) -> ItemChanges:
    """Bring the catalogue up to `incoming`; see `plan_items`. Nothing is written where nothing changed."""
    plan = plan_items(tables, incoming, remove_missing=remove_missing)
    write_items(tables, plan)
    return plan.changes


def plan_items(tables: Tables, incoming: pa.Table, *, remove_missing: bool = False) -> ItemPlan:
    """What changes with `incoming`: item_id (unique), then any of title, attributes, image, _image_sha256.

    A column that `incoming` lacks keeps what is stored; one that the table lacks is added. remove_missing: items that
    `incoming` does not name are tombstoned. Nothing is written here.
    """
    given = attribute_fields(incoming.schema)
    there = tables.schema(ITEMS) if tables.exists(ITEMS) else items_schema([])
    columns = [field for field in given if field.name not in there.names]
    content = [TITLE, *(f.name for f in (*attribute_fields(there), *columns)), IMAGE, IMAGE_SHA256]
    absent = [name for name in content if name not in incoming.column_names]
    kept = [ITEM_ID, CONTENT_HASH, DELETED, ADDED_AT, *absent]
    stored = tables.read(ITEMS, columns=kept) if tables.exists(ITEMS) else there.empty_table().select(kept)

    at = pc.index_in(incoming[ITEM_ID], value_set=stored[ITEM_ID])  # place in `stored`, NULL for a new item
    whole = incoming.select([name for name in (ITEM_ID, *content) if name in incoming.column_names])
    for name in absent:
        whole = whole.append_column(name, stored[name].take(at))
    hashes = content_hashes(whole.select(content))
    new = at.is_null().to_numpy()
    gone = pc.fill_null(stored[DELETED].take(at), False).to_numpy() & ~new
    differs = ~pc.fill_null(pc.equal(stored[CONTENT_HASH].take(at), hashes), False).to_numpy() & ~new & ~gone

    now = pa.scalar(datetime.now(UTC), TIME)
    write = pa.array(new | gone | differs)
    rows = whole.filter(write)
    for name, column in (
        (CONTENT_HASH, hashes.filter(write)),
        (DELETED, pa.repeat(False, rows.num_rows)),
        (ADDED_AT, pc.fill_null(stored[ADDED_AT].take(at), now).filter(write)),
        (UPDATED_AT, pa.repeat(now, rows.num_rows)),
    ):
        rows = rows.append_column(name, column)
    removed = stored[ITEM_ID].slice(0, 0)
    if remove_missing:
        missing = pc.invert(pc.is_in(stored[ITEM_ID], value_set=incoming[ITEM_ID]))
        removed = stored[ITEM_ID].filter(pc.and_(pc.invert(stored[DELETED]), missing))
    added, changed, revived = (int(np.count_nonzero(mask)) for mask in (new, differs, gone))
    unchanged = incoming.num_rows - added - changed - revived
    return ItemPlan(ItemChanges(added, changed, unchanged, len(removed), revived), columns, rows, removed)


def write_items(tables: Tables, plan: ItemPlan) -> None:
    """Write what `plan_items` found. The caller has held the writer's lock since then."""
    if tables.exists(ITEMS):
        tables.add_columns(ITEMS, plan.columns)
    else:
        tables.create(ITEMS, items_schema(plan.columns))
    tables.upsert(ITEMS, plan.rows, ITEM_ID)
    gone = len(plan.removed)
    if gone:
        now = pa.scalar(datetime.now(UTC), TIME)
        marks = [plan.removed, pa.repeat(True, gone), pa.repeat(now, gone)]
        tables.upsert(ITEMS, pa.table(marks, names=[ITEM_ID, DELETED, UPDATED_AT]), ITEM_ID)
    tables.compact(ITEMS)


def keep_stored(tables: Tables, incoming: pa.Table, failed: dict[str, np.ndarray]) -> pa.Table:
    """`incoming` with the stored value where an incoming one could not be used.

    failed: column -> mask (n,). A new item, or one that had no value, stays NULL there.
    """
    needed = [name for name, mask in failed.items() if mask.any()]
    if not needed or not tables.exists(ITEMS):
        return incoming
    needed = [name for name in needed if name in tables.schema(ITEMS).names]
    stored = tables.read(ITEMS, columns=[ITEM_ID, *needed])
    at = pc.index_in(incoming[ITEM_ID], value_set=stored[ITEM_ID])
    for name in needed:
        kept = pc.if_else(pa.array(failed[name]), stored[name].take(at), incoming[name])
        incoming = incoming.set_column(incoming.schema.get_field_index(name), name, kept)
    return incoming


def live(tables: Tables, columns: list[str] | None = None, version: int | None = None) -> pa.Table:
    """The items that have not left the catalogue."""
    if not tables.exists(ITEMS):
        return items_schema([]).empty_table()
    return tables.read(ITEMS, columns=columns, filter=f"{DELETED} IS NOT TRUE", version=version)


def content_hashes(content: pa.Table) -> pa.Array:
    """(n,) hex sha256 over each row's (name, value) pairs, NULLs left out, independent of the columns' order."""
    names = sorted(content.column_names)
    hashed: list[str] = []
    for start in range(0, content.num_rows, HASH_ROWS):
        part = content.slice(start, HASH_ROWS)
        cells = [_cell_texts(name, part[name]) for name in names]
        rows = pc.binary_join_element_wise(*cells, "")
        hashed += [hashlib.sha256(row.encode()).hexdigest() for row in rows.to_pylist()]
    return pa.array(hashed, pa.string())


def _cell_texts(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`name=length:value` for each value, "" for NULL: no two different rows spell the same."""
    if pa.types.is_list(column.type):
        spelled = [
            None if value is None else json.dumps(value, ensure_ascii=False) for value in column.to_pylist()
        ]
        text = pa.chunked_array([pa.array(spelled, pa.string())])
    else:
        text = pc.cast(column, pa.string())
    length = pc.cast(pc.binary_length(text), pa.string())
    return pc.fill_null(
        pc.binary_join_element_wise(pa.scalar(name + "="), length, pa.scalar(":"), text, ""), ""
    )
