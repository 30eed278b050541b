"""Moments as unix seconds: numbers in s, ms, us or ns, Arrow timestamps, and ISO 8601 texts (UTC where they name no
zone).

A number's unit is told from its size unless the mapping names it: 1.4e9 is seconds, 1.4e12 milliseconds, and so on
up to nanoseconds; the borders (1e11, 1e14, 1e17) lie beyond the year 5000 in the smaller unit. Fractions of a
second are cut off.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NUMBER = r"^[+-]?\d+(?:\.\d*)?(?:[eE][+]?\d+)?$"
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
FIRST, LAST = -62_135_596_800, 253_402_300_799  # years 1 to 9999
ISO = re.compile(r"^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?\s?(?:Z|[+-]\d\d:?\d\d)?)?$")
ISO_ARROW = r"^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:?\d\d)?)?$"
ZONED = r"\d\d:\d\d.*(?:Z|[+-]\d\d:?\d\d)$"


def to_seconds(
    column: pa.ChunkedArray, unit: str | None
) -> tuple[pa.ChunkedArray, np.ndarray, pa.Array | None]:
    """(int64 seconds with NULL where there is none, mask (n,) of values that are no moment, a reason for each of
    those).
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return to_seconds(pc.cast(column, kind.value_type), unit)
    if pa.types.is_null(kind):
        return pc.cast(column, pa.int64()), np.zeros(len(column), bool), None
    if pa.types.is_date(kind):
        column = pc.cast(column, pa.timestamp("s"))
        kind = column.type
    if pa.types.is_timestamp(kind):
        ticks = pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy()
        whole = pa.array(ticks // PER_SECOND[kind.unit], mask=column.is_null().to_numpy())
        return _judged(column, pa.chunked_array([whole]))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _judged(column, _numbers(column, unit))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        text = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
        text = pc.if_else(pc.equal(text, ""), None, text)
        as_number = pc.fill_null(pc.match_substring_regex(text, NUMBER), False)
        digits = pc.if_else(as_number, text, None)
        whole_numbers = not pc.any(pc.match_substring_regex(digits, r"[.eE]|\d{19}"), min_count=0).as_py()
        seconds = _numbers(
            pc.cast(pc.ascii_ltrim(digits, "+"), pa.int64() if whole_numbers else pa.float64()), unit
        )
        if pc.all(pc.or_(as_number, text.is_null()), min_count=0).as_py():
            return _judged(text, seconds)
        return _judged(text, pc.if_else(as_number, seconds, _iso(pc.if_else(as_number, None, text))))
    nothing = pa.chunked_array([pa.nulls(len(column), pa.int64())])
    return _judged(
        pa.chunked_array([pa.array([str(v) if v is not None else None for v in column.to_pylist()])]), nothing
    )


def _numbers(column: pa.ChunkedArray, unit: str | None) -> pa.ChunkedArray:
    """Whole seconds of numbers in `unit`, or in the unit that each one's size tells."""
    missing = column.is_null().to_numpy()
    if pa.types.is_integer(column.type) and column.type != pa.uint64():
        given = pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy()
    else:
        given = pc.fill_null(pc.cast(column, pa.float64(), safe=False), 0.0).to_numpy()
        missing = missing | ~np.isfinite(given)
        given = np.where(missing, 0.0, given)
    if unit is not None:
        scale: np.ndarray = np.full(len(given), PER_SECOND[unit], np.int64)
    else:
        size = np.abs(given.astype(np.float64))
        scale = np.choose(np.digitize(size, [1e11, 1e14, 1e17]), [1, 10**3, 10**6, 10**9]).astype(np.int64)
    seconds = np.floor_divide(given, scale)
    lost = np.abs(seconds.astype(np.float64)) > 2.0**60
    return pa.chunked_array([pa.array(np.where(lost, 0, seconds).astype(np.int64), mask=missing | lost)])


def _iso(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Seconds of ISO 8601 texts, NULL where a text is none."""
    like = pc.fill_null(pc.match_substring_regex(text, ISO_ARROW), False)
    zoned = pc.and_(like, pc.fill_null(pc.match_substring_regex(text, ZONED), False))
    try:
        if not pc.all(pc.or_(like, text.is_null()), min_count=0).as_py():
            raise pa.ArrowInvalid("some texts are of another shape")
        local = pc.cast(pc.if_else(zoned, None, text), pa.timestamp("us"))
        universal = pc.cast(pc.if_else(zoned, text, None), pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:  # one impossible date fails a whole column there, so look at each
        return pa.chunked_array([pa.array([_iso_one(value) for value in text.to_pylist()], pa.int64())])
    micros = pc.coalesce(pc.cast(local, pa.int64()), pc.cast(universal, pa.int64()))
    missing = micros.is_null().to_numpy()
    return pa.chunked_array([pa.array(pc.fill_null(micros, 0).to_numpy() // 10**6, mask=missing)])


def _iso_one(text: str | None) -> int | None:
    if text is None or not ISO.match(text):
        return None
    try:
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text).replace(" Z", "Z"))
    except ValueError:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() // 1)


def _judged(
    given: pa.ChunkedArray, seconds: pa.ChunkedArray
) -> tuple[pa.ChunkedArray, np.ndarray, pa.Array | None]:
    values = pc.if_else(
        pc.and_(pc.greater_equal(seconds, FIRST), pc.less_equal(seconds, LAST)), seconds, None
    )
    bad = given.is_valid().to_numpy() & values.is_null().to_numpy()
    if not bad.any():
        return values, bad, None
    shown = pc.utf8_slice_codeunits(pc.cast(given.filter(pa.array(bad)), pa.string()), 0, 80)
    number = pc.match_substring_regex(shown, NUMBER)
    tail = pc.if_else(
        number,
        "' is, as seconds or in any smaller unit, no moment of the years 1 to 9999",
        "' is neither unix seconds nor an ISO date",
    )
    return values, bad, pc.binary_join_element_wise(pa.scalar("'"), shown, tail, "").combine_chunks()
