"""What type a catalogue's column has, and its values in that type: whole columns at a time.

A type is inferred once, over the whole first ingest: int64, double, bool, string or list<string>. A column of a csv, or
one that mixed types, is numeric if nine in ten of its values read as numbers; the others are set aside one by one, so
that one "call us" does not turn all prices into text. Digits that a number would change (leading zeros, more than 18
of them) keep it text: they are codes. "", NA, N/A, null, None, nan and - are no value where a column is not text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.errors import BadInput
from ingest.mapping import ColumnSpec

AGREE = 0.9
LIST = pa.list_(pa.string())
NAMED = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "list": LIST,
}
WORDS = {
    pa.string(): "a text",
    pa.int64(): "a whole number",
    pa.float64(): "a number",
    pa.bool_(): "true or false",
    LIST: "a list",
}
NO_VALUE = pa.array(["", "na", "n/a", "#n/a", "nan", "null", "none", "<na>", "-"])
WHOLE = r"^-?(?:0|[1-9]\d{0,17})(?:\.0*)?$"
INTEGER = r"^-?(?:0|[1-9]\d{0,17})$"
DECIMAL = r"^-?(?:\d{1,18}(?:\.\d*)?|\d*\.\d+)(?:[eE][+-]?\d+)?$"
CODE = r"^-?(?:0\d+|\d{19,})$"
SHOWN = 80  # characters of a value that a reason quotes


@dataclass(frozen=True)
class Converted:
    """`values` in the asked type, NULL where `bad` (n,); `reasons`: one text for each bad value, in order."""

    values: pa.ChunkedArray
    bad: np.ndarray
    code: str = "bad_value"
    reasons: pa.Array | None = None


def plain(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    """The column in one of the five types; finer Arrow types are widened, times become ISO texts.

    Raises BadInput for types that no column of a catalogue can have (structs, bytes, vectors).
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain(pc.cast(column, kind.value_type), name, source)
    if pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return column
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pc.cast(column, pa.string())
    if pa.types.is_integer(kind):
        fits = kind != pa.uint64() or not pc.any(pc.greater(column, 2**63 - 1), min_count=0).as_py()
        return pc.cast(column, pa.int64() if fits else pa.string())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pc.cast(column, pa.float64(), safe=False)
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        return pc.cast(column, pa.string())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_list_view(kind):
        inner = kind.value_type
        if (
            pa.types.is_null(inner)
            or pa.types.is_integer(inner)
            or pa.types.is_boolean(inner)
            or _is_text(inner)
        ):
            return pc.cast(column, LIST)
    what = "vectors" if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) else str(kind)
    raise BadInput(
        f"column '{name}' of {source} holds {what}, which no column of a catalogue can",
        remedy=f'leave it out (drop = ["{name}"] in a mapping file); vectors are features, see features.toml',
    )


def infer(column: pa.ChunkedArray, spec: ColumnSpec, untyped: bool) -> pa.DataType | None:
    """The type of a plain column; None if it has no value to tell by.

    untyped: its texts may stand for other types.
    """
    if spec.type is not None:
        return NAMED[spec.type]
    if column.null_count == len(column):
        return None
    if not untyped or not pa.types.is_string(column.type):
        return column.type
    text = pc.utf8_trim_whitespace(column)
    present = _number(pc.invert(_no_value(text)))
    if present == 0 or _matches(text, CODE):
        return pa.string()
    numbers = _matches(text, DECIMAL)
    if numbers >= AGREE * present:
        return pa.int64() if numbers == _matches(text, INTEGER) else pa.float64()
    if _number(_is_bool_word(text)) >= AGREE * present:
        return pa.bool_()
    return pa.string()


def convert(column: pa.ChunkedArray, kind: pa.DataType, spec: ColumnSpec) -> Converted:
    """A plain column's values as `kind`; what does not fit is NULL and named."""
    source = column.type
    if pa.types.is_null(source):
        return Converted(pa.chunked_array([pa.nulls(len(column), kind)]), np.zeros(len(column), bool))
    if kind == LIST:
        return _to_list(column, spec)
    if pa.types.is_list(source):
        return _failing(column, pa.nulls(len(column), kind), column.is_valid(), kind)
    if kind == pa.string():
        values = pc.cast(column, pa.string())
        return Converted(pc.if_else(pc.equal(values, ""), None, values), np.zeros(len(column), bool))
    if pa.types.is_string(source):
        return _from_text(column, kind, spec)
    if kind == pa.bool_():
        return (
            _failing(column, pa.nulls(len(column), kind), column.is_valid(), kind)
            if source != kind
            else _good(column)
        )
    if pa.types.is_boolean(source):
        return _failing(column, pa.nulls(len(column), kind), column.is_valid(), kind)
    if pa.types.is_floating(source):
        column = pc.if_else(pc.is_nan(column), None, column)
        fits = pc.is_finite(column)
        code = "not_finite"
        if kind == pa.int64():
            fits = pc.and_(
                fits, pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), 2.0**53))
            )
            code = "bad_value"
        return _where(column, fits, kind, code)
    return _good(pc.cast(column, kind, safe=False))  # int64 -> int64 or double


def _from_text(column: pa.ChunkedArray, kind: pa.DataType, spec: ColumnSpec) -> Converted:
    text = pc.utf8_trim_whitespace(column)
    text = pc.if_else(_no_value(text), None, text)
    if kind == pa.bool_():
        lower = pc.utf8_lower(text)
        yes = pa.array(["true", "1", "yes", "y", "t"] if spec.type else ["true"])
        no = pa.array(["false", "0", "no", "n", "f"] if spec.type else ["false"])
        value = pc.is_in(lower, value_set=yes)
        fits = pc.or_(value, pc.is_in(lower, value_set=no))
        return _failing(text, pc.if_else(fits, value, None), pc.and_(text.is_valid(), pc.invert(fits)), kind)
    written = text
    if spec.type is not None:
        text = _without_decoration(text, spec.decimal or ".")
    shape = WHOLE if kind == pa.int64() else DECIMAL
    fits = pc.fill_null(pc.match_substring_regex(text, shape), False)
    digits = pc.if_else(fits, text, None)
    if kind == pa.int64():
        digits = pc.replace_substring_regex(digits, r"\.0*$", "")
    values = pc.cast(digits, kind)
    if kind == pa.float64():
        finite = pc.fill_null(pc.is_finite(values), False)
        values, fits = pc.if_else(finite, values, None), pc.and_(fits, finite)
    return _failing(written, values, pc.and_(written.is_valid(), pc.invert(fits)), kind)


def _without_decoration(text: pa.ChunkedArray, decimal: str) -> pa.ChunkedArray:
    """Numbers as shops write them: currency signs, spaces and the marks between thousands left out."""
    bare = pc.replace_substring_regex(text, r"[\p{Sc}\s\x{a0}\x{202f}']", "")
    mark, point = (",", r"\.") if decimal == "." else (r"\.", ",")
    grouped = pc.match_substring_regex(bare, rf"^-?\d{{1,3}}(?:{mark}\d{{3}})+(?:{point}\d*)?$")
    bare = pc.if_else(grouped, pc.replace_substring_regex(bare, mark, ""), bare)
    return bare if decimal == "." else pc.replace_substring(bare, ",", ".")


def _to_list(column: pa.ChunkedArray, spec: ColumnSpec) -> Converted:
    none = np.zeros(len(column), bool)
    if pa.types.is_list(column.type):
        empty = pc.equal(pc.list_value_length(column), 0)
        return Converted(pc.if_else(empty, pa.scalar(None, LIST), column), none)
    text = pc.cast(column, pa.string())
    separator = spec.separator or "|"
    parts = pc.split_pattern(text, separator)
    if (
        pc.any(pc.match_substring_regex(text, r"^\s|\s$"), min_count=0).as_py()
        or pc.any(
            pc.or_(
                pc.match_substring(text, separator + " "),
                pc.or_(
                    pc.match_substring(text, " " + separator), pc.match_substring(text, separator + separator)
                ),
            ),
            min_count=0,
        ).as_py()
    ):
        cleaned = [
            None if row is None else [part.strip() for part in row if part.strip()]
            for row in parts.to_pylist()
        ]
        parts = pa.chunked_array([pa.array(cleaned, LIST)])
    empty = pc.or_(pc.equal(pc.list_value_length(parts), 0), pc.equal(pc.utf8_trim_whitespace(text), ""))
    return Converted(pc.if_else(empty, pa.scalar(None, LIST), parts), none)


def _where(column: pa.ChunkedArray, fits: pa.ChunkedArray, kind: pa.DataType, code: str) -> Converted:
    fits = pc.fill_null(fits, False)
    values = pc.cast(pc.if_else(fits, column, None), kind, safe=False)
    return _failing(column, values, pc.and_(column.is_valid(), pc.invert(fits)), kind, code)


def _good(column: pa.ChunkedArray) -> Converted:
    return Converted(column, np.zeros(len(column), bool))


def _failing(
    column: pa.ChunkedArray,
    values: pa.Array,
    bad: pa.ChunkedArray,
    kind: pa.DataType,
    code: str = "bad_value",
) -> Converted:
    mask = pc.fill_null(bad, False).to_numpy()
    reasons = None
    if mask.any():
        wrong = column.filter(pa.array(mask))
        if pa.types.is_list(wrong.type):
            wrong = pa.chunked_array([pa.array([str(value) for value in wrong.to_pylist()])])
        shown = pc.utf8_slice_codeunits(pc.cast(wrong, pa.string()), 0, SHOWN)
        reasons = pc.binary_join_element_wise(pa.scalar("'"), shown, pa.scalar(f"' is not {WORDS[kind]}"), "")
        reasons = reasons.combine_chunks()
    chunked = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    return Converted(chunked, mask, code, reasons)


def _no_value(text: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.or_(text.is_null(), pc.is_in(pc.utf8_lower(text), value_set=NO_VALUE))


def _is_bool_word(text: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.is_in(pc.utf8_lower(text), value_set=pa.array(["true", "false"]))


def _matches(text: pa.ChunkedArray, pattern: str) -> int:
    return _number(pc.match_substring_regex(text, pattern))


def _number(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask, min_count=0).as_py())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
