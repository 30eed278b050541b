"""Cells of features: what each should be computed from, where it stands, and how results are written and read.

What has to be computed is one DuckDB query over the items and the feature tables, never a guess. A cell's `input_hash`
is the hash of its inputs' texts, of its picture's sha256 and of the `value_hash` of the features it reads (none where
that cell has no value: it had no input, or failed and is not tried again by itself); vectors are
never hashed, since an encoder's last bits depend on the batch. An input is hashed as its text with its length before
it, so that (ab, c) differs from (a, bc) and NULL from ""; 1 and "1" do not differ, as a column's type is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore import schema
from featurestore.errors import BadInput
from featurestore.files import sha256_text
from featurestore.recipe import COLUMN, FEATURE, Recipe
from featurestore.schema import State, Status, ValueKind
from featurestore.tables import Tables

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MAX_ATTEMPTS = 3  # of a transient error, before it waits for `--failed` or a changed input
HASH_LENGTH = 32  # hex characters of sha256 kept: 128 bits
READ_ROWS = 65_536
_VISIBLE = r"[^\s\pZ]"  # a character that is no blank: a space, a line's end or a tab of any script
_NOTHING = "n"  # stands in a hashed input for NULL; a value starts with its length, so the two cannot meet

PLAN_SCHEMA = pa.schema(
    [
        pa.field(schema.ITEM_ID, pa.string()),
        pa.field(schema.INPUT_HASH, pa.string()),
        pa.field("has_input", pa.bool_()),
        pa.field("state", pa.string()),
        pa.field(schema.STATUS, pa.string()),
        pa.field(schema.TRANSIENT, pa.bool_()),
        pa.field(schema.ATTEMPTS, pa.int32()),  # on today's input; 0 once the input changed
    ]
)


@dataclass(frozen=True)
class Counts:
    """How many live items' cells of one feature are in which state. `current` leaves `no_input` out."""

    current: int = 0
    no_input: int = 0
    missing: int = 0
    stale: int = 0
    failed: int = 0
    blocked: int = 0

    @property
    def total(self) -> int:
        return self.current + self.no_input + self.missing + self.stale + self.failed + self.blocked

    @property
    def done(self) -> bool:
        """Nothing is left to compute. A cell that failed for good is an error, not something stale."""
        return not (self.missing or self.stale or self.blocked)


def plan(tables: Tables, recipes: Mapping[str, Recipe], feature: str, item: str | None = None) -> pa.Table:
    """Where each live item's cell of `feature` stands, sorted by item id; columns as in PLAN_SCHEMA.

    recipes: the active recipe of `feature` and of all it reads, by feature name. item: only this one's cell.
    """
    if not tables.exists(schema.ITEMS):
        return PLAN_SCHEMA.empty_table()
    connection, steps = _query(tables, recipes, feature)
    names = ", ".join(PLAN_SCHEMA.names)
    only, given = ("", []) if item is None else ("WHERE item_id = ?", [item])
    query = f"WITH {steps} SELECT {names} FROM {_step(feature)} {only} ORDER BY item_id"
    found = connection.sql(query, params=given)
    return found.to_arrow_table().cast(PLAN_SCHEMA)


def counts(tables: Tables, recipes: Mapping[str, Recipe], feature: str) -> Counts:
    """The same, counted."""
    if not tables.exists(schema.ITEMS):
        return Counts()
    connection, steps = _query(tables, recipes, feature)
    rows = connection.execute(
        f"WITH {steps} SELECT CASE WHEN state = '{State.CURRENT}' AND status = '{Status.NO_INPUT}' "
        f"THEN '{Status.NO_INPUT}' ELSE state END, count(*) FROM {_step(feature)} GROUP BY 1"
    ).fetchall()
    return Counts(**{str(state): int(count) for state, count in rows})


def work(planned: pa.Table, *, failed: bool = False) -> pa.Table:
    """The rows of a plan that are to be computed now.

    Missing and stale cells, and errors that may pass by themselves up to three attempts; with `failed`, all errors.
    """
    state = planned["state"]
    todo = pc.is_in(state, pa.array([State.MISSING, State.STALE], pa.string()))
    error = pc.equal(state, State.FAILED)
    if not failed:
        again = pc.and_(
            pc.fill_null(planned[schema.TRANSIENT], False), pc.less(planned[schema.ATTEMPTS], MAX_ATTEMPTS)
        )
        error = pc.and_(error, again)
    return planned.filter(pc.or_(todo, error))


def commit(tables: Tables, feature: str, recipe: Recipe, rows: pa.Table) -> int:
    """Write computed cells in one commit; returns the table's version. The caller holds the writer's lock.

    rows: item_id, value, input_hash, status, error_code, error_message, transient, attempts (those before this one);
    of a described feature also the columns of schema.ANSWER_FIELDS.
    """
    name = recipe.table(feature)
    if not tables.exists(name):
        tables.create(name, schema.feature_schema(recipe.value, recipe.dim, recipe.kind))
    ok = pc.equal(rows[schema.STATUS], Status.OK)
    if pc.any(pc.and_(ok, pc.is_null(rows[schema.VALUE]))).as_py():
        raise ValueError(f"{feature}: a cell that is ok has a value")
    whole = (
        rows.set_column(
            rows.column_names.index(schema.ATTEMPTS),
            schema.ATTEMPTS,
            pc.add(rows[schema.ATTEMPTS], pa.scalar(1, pa.int32())),
        )
        .append_column(schema.VALUE_HASH, _value_hashes(recipe, rows))
        .append_column(schema.UPDATED_AT, pa.repeat(pa.scalar(datetime.now(UTC), schema.TIME), len(rows)))
    )
    version = tables.upsert(name, whole, schema.ITEM_ID)
    return tables.version(name) if tables.compact(name) else version


def read_matrix(
    dataset: Any, dim: int, *, keep: npt.NDArray[np.str_] | None = None
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float32]]:
    """All vectors of a feature table: ids (n,) str and values (n, dim) float32, sorted by id.

    keep: sorted ids; others are left out.
    """
    cells = dataset.to_table(columns=[schema.ITEM_ID, schema.STATUS])
    names = cells[schema.ITEM_ID].combine_chunks()
    wanted = pc.fill_null(pc.equal(cells[schema.STATUS], Status.OK), False)
    if keep is not None:
        wanted = pc.and_(wanted, pc.is_in(names, pa.array(keep.tolist(), pa.string())))
    order = np.asarray(pc.sort_indices(names))
    order = order[np.asarray(wanted)[order]]
    place = np.full(len(names), -1, np.int64)  # of each stored row in the result; -1 leaves it out
    place[order] = np.arange(len(order))
    values = np.empty((len(order), dim), np.float32)
    start = 0
    # no filter: under one, Lance fetches vectors row by row, which takes six times as long as reading them all
    for batch in dataset.to_batches(columns=[schema.VALUE], batch_size=READ_ROWS, scan_in_order=True):
        column = batch.column(schema.VALUE)
        to = place[start : start + len(column)]
        start += len(column)
        vectors = column.values.to_numpy(zero_copy_only=False).reshape(-1, dim)
        vectors = vectors[column.offset : column.offset + len(column)]
        used = to >= 0
        if used.all():
            values[to] = vectors
        else:
            values[to[used]] = vectors[used]
    if start != len(names):
        raise RuntimeError(f"{start} vectors were read for {len(names)} cells")
    ids = names.take(pa.array(order)).to_pylist()
    return np.asarray(ids, dtype=np.str_), values


# ---- the query


def _step(feature: str) -> str:
    return _quoted(f"step {feature}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _query(tables: Tables, recipes: Mapping[str, Recipe], feature: str) -> tuple[DuckDBPyConnection, str]:
    """A connection that sees each table at one version, and the steps that end in `feature`'s: all after WITH."""
    import duckdb

    connection = duckdb.connect(":memory:")
    connection.execute("SET threads = 2")
    items = tables.dataset(schema.ITEMS)
    connection.register("items", items)
    columns = {field.name: field for field in items.schema}
    steps = []
    for name in _needed(recipes, feature):
        table = recipes[name].table(name)
        exists = tables.exists(table)
        if exists:
            connection.register(table, tables.dataset(table))
        steps.append(f"{_step(name)} AS ({_one_step(name, recipes[name], columns, exists)})")
    return connection, ",\n".join(steps)


def _needed(recipes: Mapping[str, Recipe], feature: str) -> list[str]:
    """`feature` and all it reads, each after what it reads."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        for above, recipe_id in recipes[name].upstream:
            if above not in recipes or recipes[above].id != recipe_id:
                raise BadInput(
                    f"feature '{name}' was made from another recipe of '{above}' than the active one",
                    remedy="run dualview materialize, which resolves it anew",
                )
            visit(above)
        order.append(name)

    visit(feature)
    return order


def _one_step(feature: str, recipe: Recipe, columns: dict[str, pa.Field], exists: bool) -> str:
    parts: list[str] = []  # what is hashed, one SQL text an input
    given: dict[str, str] = {}  # whether an input says something, one SQL text an input
    joins: list[str] = []
    blocked: list[str] = []
    for name in recipe.inputs:
        if name.startswith(FEATURE):
            above = name.removeprefix(FEATURE).split("@", 1)[0]
            alias = f"u{len(joins)}"
            joins.append(f"JOIN {_step(above)} {alias} USING (item_id)")
            blocked.append(f"NOT ({alias}.state = '{State.CURRENT}' OR {_given_up(alias)})")
            text = f"CASE WHEN {alias}.state = '{State.CURRENT}' THEN {alias}.value_hash END"
            says = f"{text} IS NOT NULL"
        else:
            column = name.removeprefix(COLUMN) if name.startswith(COLUMN) else schema.IMAGE_SHA256
            text = _text_of(column, columns, feature)
            says = _says_something(text, columns[column])
        parts.append(f"coalesce(CAST(strlen({text}) AS VARCHAR) || ':' || {text}, '{_NOTHING}')")
        given[name] = f"coalesce({says}, false)"
    enough = " AND ".join(
        f"({' OR '.join(given[name] for name in group)})" for group in recipe.required or (recipe.inputs,)
    )
    hashed = f"substr(sha256(concat({', '.join(parts)})), 1, {HASH_LENGTH})"
    own = (
        f"SELECT item_id, input_hash, value_hash, status, transient, attempts FROM {_quoted(recipe.table(feature))}"
        if exists
        else "SELECT NULL::VARCHAR item_id, NULL::VARCHAR input_hash, NULL::VARCHAR value_hash, NULL::VARCHAR status, "
        "false transient, 0 attempts WHERE false"
    )
    return f"""
        SELECT w.item_id, w.input_hash, w.has_input, r.status, r.value_hash, coalesce(r.transient, false) AS transient,
            CASE WHEN r.input_hash = w.input_hash THEN r.attempts ELSE 0 END AS attempts,
            CASE WHEN w.blocked THEN '{State.BLOCKED}'
                 WHEN r.item_id IS NULL THEN '{State.MISSING}'
                 WHEN r.input_hash IS DISTINCT FROM w.input_hash THEN '{State.STALE}'
                 WHEN r.status = '{Status.ERROR}' THEN '{State.FAILED}'
                 ELSE '{State.CURRENT}' END AS state
        FROM (
            SELECT i.item_id, {hashed} AS input_hash, {enough} AS has_input,
                {" OR ".join(blocked) or "false"} AS blocked
            FROM items i {" ".join(joins)} WHERE i.{schema.DELETED} IS NOT TRUE
        ) w LEFT JOIN ({own}) r USING (item_id)"""


def _given_up(cell: str) -> str:
    """Whether a cell failed and is not tried again by itself: to what reads it, it is an input that is not there."""
    return (
        f"({cell}.state = '{State.FAILED}' AND (NOT {cell}.transient OR {cell}.attempts >= {MAX_ATTEMPTS}))"
    )


def _text_of(column: str, columns: dict[str, pa.Field], feature: str) -> str:
    if column not in columns:
        raise BadInput(
            f"feature '{feature}' reads column '{column}', which the items do not have",
            remedy="ingest a catalogue with that column, or edit features.toml",
        )
    return f"CAST(i.{_quoted(column)} AS VARCHAR)"


def _says_something(text: str, field: pa.Field) -> str:
    """Whether a column's value holds anything but blanks; of a list, whether one of its entries does."""
    if pa.types.is_nested(field.type):
        entry = f"regexp_matches(CAST(entry AS VARCHAR), '{_VISIBLE}')"
        return f"len(list_filter(i.{_quoted(field.name)}, lambda entry: {entry})) > 0"
    return f"regexp_matches({text}, '{_VISIBLE}')"


def _value_hashes(recipe: Recipe, rows: pa.Table) -> pa.Array:
    """Identity of each value: of a text its own hash, of a vector its recipe's and input's; NULL without one."""
    if recipe.value is ValueKind.TEXT:
        made = [
            sha256_text(v)[:HASH_LENGTH] if s == Status.OK else None
            for v, s in zip(rows[schema.VALUE].to_pylist(), rows[schema.STATUS].to_pylist(), strict=True)
        ]
    else:
        identity = recipe.id
        made = [
            sha256_text(f"{identity}:{h}")[:HASH_LENGTH] if s == Status.OK else None
            for h, s in zip(rows[schema.INPUT_HASH].to_pylist(), rows[schema.STATUS].to_pylist(), strict=True)
        ]
    return pa.array(made, pa.string())
