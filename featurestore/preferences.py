"""Preferences of users: texts that a model wrote about what somebody took, one row a user and step.

A row says what it was made of (which events, which earlier row's text) and is known by the hash of all that, so it is
never out of date: an event or a text that changes leads to other rows, and the old ones are not found any more. For
the same reason no release pins this table: what belongs to a release's log is told by the hashes alone.

Beside the table, preferences.lock.json holds the recipes that its rows were made by.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore import files, schema
from featurestore.errors import BadInput
from featurestore.recipe import Recipe
from featurestore.schema import TIME, key_field
from featurestore.tables import Tables

TABLE = schema.PREFERENCES
KIND = "preference"  # of the recipes
LOCK_FILE = "preferences.lock.json"
FORMAT = 1
FILTERED = 100  # users that a query names; more are picked out of what was read

STATE_ID = "state_id"  # of recipe, user and input_hash
RECIPE = "recipe"  # the recipe's whole hash
STEP = "step"  # 1 for the first block of events
START = (
    "start"  # position of the first event of step 1; positions count a user's events in their order, from 0
)
BEGIN = "begin"  # position of the first event that this step reads
END = "end"  # position after the last event that it reads: it may be used for the event there, and for later ones
ITEM_IDS = "item_ids"  # of the events begin..end, in order
TIMES = "times"  # theirs, unix seconds; NULL where the log has no clock
PREVIOUS = "previous"  # state_id of the step before, NULL for the first
READS = "reads"  # state_id of the text that was read: the step before, or an earlier one where that has none

SCHEMA = pa.schema(
    [
        key_field(STATE_ID),
        pa.field(schema.USER_ID, pa.string()),
        pa.field(RECIPE, pa.string()),
        pa.field(STEP, pa.int32()),
        pa.field(START, pa.int64()),
        pa.field(BEGIN, pa.int64()),
        pa.field(END, pa.int64()),
        pa.field(ITEM_IDS, pa.list_(pa.string())),
        pa.field(TIMES, pa.list_(pa.int64())),
        pa.field(PREVIOUS, pa.string()),
        pa.field(READS, pa.string()),
        pa.field(schema.VALUE, pa.string()),
        pa.field(schema.INPUT_HASH, pa.string()),
        pa.field(schema.STATUS, pa.string()),
        pa.field(schema.ERROR_CODE, pa.string()),
        pa.field(schema.ERROR_MESSAGE, pa.string()),
        pa.field(schema.TRANSIENT, pa.bool_()),
        pa.field(schema.ATTEMPTS, pa.int32()),
        *schema.ANSWER_FIELDS,
        pa.field(schema.UPDATED_AT, TIME),
    ]
)


def read(
    tables: Tables, *, recipe: str | None = None, users: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """Rows by columns of SCHEMA, ordered by user, recipe, start, step and end. recipe, users: only theirs."""
    if not tables.exists(TABLE):
        return []
    asked = [f"{RECIPE} = '{recipe}'"] if recipe is not None else []
    wanted = None if users is None else set(users)
    if wanted is not None and len(wanted) <= FILTERED:
        names = ", ".join("'" + name.replace("'", "''") + "'" for name in sorted(wanted))
        asked.append(f"{schema.USER_ID} IN ({names})" if names else "false")
    rows: list[dict[str, Any]] = tables.read(TABLE, filter=" AND ".join(asked) or None).to_pylist()
    if wanted is not None:
        rows = [row for row in rows if row[schema.USER_ID] in wanted]
    return sorted(rows, key=lambda r: (r[schema.USER_ID], r[RECIPE], r[START], r[STEP], r[END], r[STATE_ID]))


def commit(tables: Tables, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows (all columns but `updated_at`) in one commit. The caller holds the writer's lock."""
    if not rows:
        return
    if not tables.exists(TABLE):
        tables.create(TABLE, SCHEMA)
    now = datetime.now(UTC)
    tables.upsert(
        TABLE,
        pa.Table.from_pylist([{**row, schema.UPDATED_AT: now} for row in rows], schema=SCHEMA),
        STATE_ID,
    )
    tables.compact(TABLE)


def about(tables: Tables, items: Collection[str], version: int) -> set[str]:
    """state_id of every row that was made of one of these items, itself or through the texts that it read."""
    columns = [STATE_ID, ITEM_IDS, READS]
    rows = tables.read(TABLE, columns, version=version).to_pylist() if items else []
    wanted = set(items)
    found = {row[STATE_ID] for row in rows if not wanted.isdisjoint(row[ITEM_IDS] or ())}
    readers: dict[str, list[str]] = {}
    for row in rows:
        readers.setdefault(row[READS], []).append(row[STATE_ID])
    waiting = list(found)
    while waiting:
        fresh = [state for state in readers.get(waiting.pop(), ()) if state not in found]
        found.update(fresh)
        waiting += fresh
    return found


# ---- recipes


def recipes(root: Path) -> dict[str, Recipe]:
    """The recipes by their id, the one that was used last at the end. Raises BadInput for a file that is damaged."""
    return {name: Recipe.model_validate(entry["recipe"]) for name, entry in _entries(root).items()}


def keep_recipe(root: Path, recipe: Recipe) -> None:
    """Note that a recipe is used now. The caller holds the writer's lock."""
    known = _entries(root)
    if known and list(known)[-1] == recipe.id:
        return
    known.pop(recipe.id, None)
    known[recipe.id] = {
        "recipe": recipe.canonical(),
        "used": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    listed = [{"id": name, **entry} for name, entry in known.items()]
    files.write_json(root / LOCK_FILE, {"format": FORMAT, "recipes": listed})


def _entries(root: Path) -> dict[str, dict[str, Any]]:
    path = root / LOCK_FILE
    if not path.exists():
        return {}
    try:
        raw = files.read_json(path)
        if raw["format"] != FORMAT:
            raise BadInput(
                f"{path} has format {raw['format']}, this version reads format {FORMAT}",
                remedy="use the version of dualview that wrote it, or a newer one",
            )
        return {str(entry["id"]): {k: entry[k] for k in ("recipe", "used")} for entry in raw["recipes"]}
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} cannot be read: {type(error).__name__}: {error}",
            remedy="restore it from a copy; without it, preferences are made anew",
        ) from error
