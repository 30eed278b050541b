"""Raw rows to clean typed columns: what fails is set aside with its line, field and reason, the rest goes on.

ids are strings, exactly as written ("007" is not "7") but for white space around them, which two exports of one
catalogue seldom agree on. Slashes, quotes and any script are allowed; control characters, line breaks and ids above
512 bytes are not. A row without a usable key is set aside whole; a value that does not fit its column only itself
(`Items.failed`), and an item that the store knows keeps the value it had. Of rows with the same item_id the first
wins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.errors import BadInput, did_you_mean
from featurestore.interactions import ordinals
from featurestore.schema import EVENT, IMAGE, ITEM_ID, POSITION, TIMESTAMP, TITLE, USER_ID, VALUE
from ingest.columns import LIST, convert, infer, plain
from ingest.mapping import ColumnSpec, SourceMapping, apply_names, our_name
from ingest.raw import Raw, Rejects
from ingest.times import to_seconds

ID_BYTES = 512
ODD = r"[\x00-\x1f\x7f-\x{9f}\x{2028}\x{2029}]"
EXACT = 2.0**53  # whole floats below this are the integers they were made from
UNLABELLED = "interaction"
RATING = "rating"


@dataclass(frozen=True)
class Items:
    """A clean catalogue: item_id, title, attributes, image (text as the source gave it); unique ids, source order.

    lines, raw: where each row came from and how it stood there. failed: column -> mask (n,) of values that were set
    aside.
    """

    table: pa.Table
    raw: pa.Table
    lines: np.ndarray
    failed: dict[str, np.ndarray]


@dataclass(frozen=True)
class Events:
    """A clean log: user_id, item_id, event, timestamp, position, value, in source order.

    ignored: columns not kept. placed: there was neither time nor position, so the input order stands for them.
    """

    table: pa.Table
    ignored: list[str]
    placed: bool


def clean_items(raw: Raw, mapping: SourceMapping, fixed: dict[str, pa.DataType]) -> Items:
    """Type and check a catalogue. fixed: the types of columns that the store has already. Rejected rows go to
    `raw.rejects`.
    """
    known = [ITEM_ID, TITLE, IMAGE, *fixed]
    table = apply_names(raw, mapping, known)
    _needs(table, ITEM_ID, raw.name)
    given, lines, rejects = table, raw.lines, raw.rejects
    theirs = {
        our_name(name, mapping, known): name for name in raw.table.column_names if name not in mapping.drop
    }
    unread = {ours: rejects.lines_of(name) for ours, name in theirs.items()}  # by the reader
    keys, usable = _keys(table.column(ITEM_ID), ITEM_ID, given, lines, rejects, raw.name)
    repeated = usable & ~_first_of_each(keys, usable)
    rejects.add_many(
        given,
        lines,
        repeated,
        ITEM_ID,
        "duplicate_id",
        "an earlier row has the same item_id; the first is kept",
    )
    keep = usable & ~repeated
    chosen = pa.array(keep)
    table, lines, keys = table.filter(chosen), lines[keep], keys.filter(chosen)

    columns: dict[str, pa.ChunkedArray] = {ITEM_ID: keys}
    failed: dict[str, np.ndarray] = {}
    types = {**fixed, TITLE: pa.string(), IMAGE: pa.string()}
    for name in table.column_names:
        if name == ITEM_ID:
            continue
        spec = mapping.spec(name)
        column = plain(table.column(name), name, raw.name)
        kind = types.get(name) or infer(
            plain(given.column(name), name, raw.name), spec, theirs[name] in raw.untyped
        )
        if kind is None:
            continue  # no value yet, so no type: the column begins with its first value
        if name in types:
            _agrees(name, column, kind, spec, raw.name)
        converted = convert(column, kind, spec)
        rejects.add_many(table, lines, converted.bad, name, converted.code, _reasons(converted.reasons))
        columns[name] = converted.values
        failed[name] = converted.bad | np.isin(lines, unread[name])
    return Items(pa.table(columns), table, lines, failed)


def clean_events(raw: Raw, mapping: SourceMapping, known: pa.ChunkedArray) -> Events:
    """Type and check a log. known: every item_id of the store; rows that name another one are set aside."""
    table = apply_names(raw, mapping, (USER_ID, ITEM_ID, TIMESTAMP, POSITION, VALUE, RATING))
    if VALUE not in table.column_names and RATING in table.column_names:
        table = table.rename_columns([VALUE if name == RATING else name for name in table.column_names])
    for name in (USER_ID, ITEM_ID):
        _needs(table, name, raw.name)
    lines, rejects = raw.lines, raw.rejects
    users, has_user = _keys(table.column(USER_ID), USER_ID, table, lines, rejects, raw.name)
    items, has_item = _keys(table.column(ITEM_ID), ITEM_ID, table, lines, rejects, raw.name, but=~has_user)
    unknown = has_user & has_item & ~pc.is_in(items, value_set=known).to_numpy()
    if unknown.any():
        shown = pc.utf8_slice_codeunits(items.filter(pa.array(unknown)), 0, 80)
        reason = pc.binary_join_element_wise(
            pa.scalar("the catalogue has no item '"), shown, pa.scalar("'"), ""
        )
        rejects.add_many(table, lines, unknown, ITEM_ID, "unknown_item", reason.combine_chunks())
    usable = has_user & has_item & ~unknown

    rows = table.num_rows
    times = positions = pa.chunked_array([pa.nulls(rows, pa.int64())])
    timed = TIMESTAMP in table.column_names
    if timed:
        times, bad, reasons = to_seconds(table.column(TIMESTAMP), mapping.spec(TIMESTAMP).unit)
        wrong = bad & usable
        rejects.add_many(table, lines, wrong, TIMESTAMP, "bad_timestamp", _some(reasons, bad, wrong))
        usable &= ~bad
    if POSITION in table.column_names:
        placed = convert(plain(table.column(POSITION), POSITION, raw.name), pa.int64(), ColumnSpec())
        wrong = placed.bad & usable
        rejects.add_many(
            table, lines, wrong, POSITION, "bad_position", _some(placed.reasons, placed.bad, wrong)
        )
        usable &= ~placed.bad
        positions = placed.values
    elif not timed:
        positions = pa.chunked_array(
            [_places(users, has_user)]
        )  # over all rows of a user, so that none depends on another's fate
    nowhen = usable & times.is_null().to_numpy() & positions.is_null().to_numpy()
    rejects.add_many(
        table,
        lines,
        nowhen,
        TIMESTAMP if timed else POSITION,
        "no_time",
        "neither a timestamp nor a position",
    )
    usable &= ~nowhen

    value = pa.chunked_array([pa.nulls(rows, pa.float64())])
    if VALUE in table.column_names:
        weighed = convert(plain(table.column(VALUE), VALUE, raw.name), pa.float64(), mapping.spec(VALUE))
        wrong = weighed.bad & usable
        rejects.add_many(table, lines, wrong, VALUE, weighed.code, _some(weighed.reasons, weighed.bad, wrong))
        value = weighed.values
    label = pa.chunked_array([pa.repeat(pa.scalar(UNLABELLED), rows)])
    if EVENT in table.column_names:
        labels = pc.cast(plain(table.column(EVENT), EVENT, raw.name), pa.string())
        label = pc.if_else(pc.fill_null(pc.equal(labels, ""), True), UNLABELLED, labels)
    kept = {USER_ID: users, ITEM_ID: items, EVENT: label, TIMESTAMP: times, POSITION: positions, VALUE: value}
    clean = pa.table(kept).filter(pa.array(usable))
    ignored = [name for name in table.column_names if name not in kept]
    return Events(clean, ignored, placed=not timed and POSITION not in table.column_names)


def key_texts(column: pa.ChunkedArray, name: str, source: str) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Ids as texts, and a mask (n,) of those that are no id (a fraction, a number too large to be exact).

    Whole floats become the integers they were (pandas makes floats of integers beside a NaN). Raises BadInput for
    types no id has.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return key_texts(pc.cast(column, kind.value_type), name, source)
    good = np.zeros(len(column), bool)
    if pa.types.is_floating(kind):
        column = pc.cast(column, pa.float64())
        column = pc.if_else(pc.is_nan(column), None, column)
        whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), EXACT))
        bad = pc.fill_null(pc.invert(whole), False)
        exact = pc.if_else(bad, pa.scalar(None, pa.float64()), column)
        return pc.if_else(
            bad, pc.cast(column, pa.string()), pc.cast(pc.cast(exact, pa.int64()), pa.string())
        ), bad.to_numpy()
    if pa.types.is_integer(kind) or pa.types.is_null(kind) or _texty(kind):
        return pc.utf8_trim_whitespace(pc.cast(column, pa.string())), good
    raise BadInput(
        f"column '{name}' of {source} holds {kind}, which is no type for an id",
        remedy="write ids as texts or whole numbers",
    )


def _keys(
    column: pa.ChunkedArray,
    name: str,
    table: pa.Table,
    lines: np.ndarray,
    rejects: Rejects,
    source: str,
    but: np.ndarray | None = None,
) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Ids and a mask (n,) of the usable ones; the others are set aside, save rows in `but`, which are already."""
    keys, inexact = key_texts(column, name, source)
    open_rows = np.ones(len(keys), bool) if but is None else ~but
    missing = pc.fill_null(pc.equal(keys, ""), True).to_numpy()
    control = pc.fill_null(pc.match_substring_regex(keys, ODD), False).to_numpy() & ~inexact
    long = pc.fill_null(pc.greater(pc.binary_length(keys), ID_BYTES), False).to_numpy() & ~control & ~inexact
    for mask, code, reason in (
        (missing, "missing_id", f"{name} is empty"),
        (control, "odd_id", f"{name} holds a line break or a control character"),
        (long, "odd_id", f"{name} is longer than {ID_BYTES} bytes"),
        (inexact, "odd_id", f"{name} is a number that is not whole, or too large to be exact"),
    ):
        rejects.add_many(table, lines, mask & open_rows, name, code, reason)
    return keys, ~(missing | control | long | inexact)


def _first_of_each(keys: pa.ChunkedArray, usable: np.ndarray) -> np.ndarray:
    """Mask (n,) of the usable rows that no earlier usable row has the key of."""
    rows = np.flatnonzero(usable)
    codes = _codes(keys.filter(pa.array(usable)))
    first = np.zeros(len(usable), bool)
    if len(rows):
        first[rows[np.unique(codes, return_index=True)[1]]] = True
    return first


def _places(users: pa.ChunkedArray, has_user: np.ndarray) -> pa.Array:
    """Each row's place among the rows of its user, in source order; NULL without a user."""
    rows = np.flatnonzero(has_user)
    places = np.zeros(len(has_user), np.int64)
    places[rows] = ordinals(_codes(users.filter(pa.array(has_user))))
    return pa.array(places, mask=~has_user)


def _codes(keys: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.dictionary_encode(keys.combine_chunks()).indices)


def _needs(table: pa.Table, name: str, source: str) -> None:
    if name not in table.column_names:
        hint = did_you_mean(name, table.column_names)
        raise BadInput(
            f"{source} has no column '{name}' (it has: {', '.join(table.column_names)})",
            remedy=f'rename the column that holds it in a mapping file: rename = {{ "its name" = "{name}" }}; {hint}. '
            "If the columns look glued together, name the delimiter there",
        )


def _agrees(name: str, column: pa.ChunkedArray, kind: pa.DataType, spec: ColumnSpec, source: str) -> None:
    """Refuse a source whose whole column stands against what the store holds; single values are set aside instead."""
    if (
        kind == LIST
        and spec.type != "list"
        and not pa.types.is_list(column.type)
        and not pa.types.is_null(column.type)
    ):
        raise BadInput(
            f"column '{name}' is one of lists in the store and of single values in {source}",
            remedy=f'say how it is split in a mapping file: [columns.{name}] type = "list", separator = "|"',
        )
    said = {
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "list": LIST,
        "string": pa.string(),
    }
    if spec.type is not None and said[spec.type] != kind:
        raise BadInput(
            f"the mapping types column '{name}' as {spec.type}; the store holds it as {kind}",
            remedy="a column's type is fixed at its first ingest: leave the type out, or rename the column",
        )


def _reasons(reasons: pa.Array | None) -> pa.Array | str:
    return "does not fit" if reasons is None else reasons


def _some(reasons: pa.Array | None, bad: np.ndarray, wanted: np.ndarray) -> pa.Array | str:
    """Of the reasons of all `bad` rows, those of the `wanted` ones."""
    return "does not fit" if reasons is None else reasons.filter(pa.array(wanted[bad]))


def _texty(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
