import json
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from featurestore.errors import BadInput
from ingest.columns import LIST
from ingest.mapping import SourceMapping
from ingest.raw import Raw
from ingest.readers import read_source
from ingest.times import to_seconds
from ingest.validate import Events, Items, clean_events, clean_items

PLAIN = SourceMapping()


def raw_of(**columns: list[object] | pa.Array) -> Raw:
    table = pa.table(columns)
    return Raw("source", table, np.arange(2, 2 + table.num_rows), untyped=frozenset(table.column_names))


def said(**columns: dict[str, str]) -> SourceMapping:
    return SourceMapping.model_validate({"columns": columns})


def errors(raw: Raw) -> list[tuple[int, str, str]]:
    rows = raw.rejects.table().sort_by([("line", "ascending"), ("field", "ascending")]).to_pylist()
    return [(row["line"], row["field"], row["code"]) for row in rows]


def items(raw: Raw, mapping: SourceMapping = PLAIN, **fixed: pa.DataType) -> Items:
    return clean_items(raw, mapping, fixed)


def column(
    values: list[object] | pa.Array, mapping: SourceMapping = PLAIN, **fixed: pa.DataType
) -> tuple[pa.ChunkedArray, list[int]]:
    """A cleaned column `c` and the lines of the values that were set aside."""
    raw = raw_of(item_id=[str(n) for n in range(len(values))], c=values)
    found = items(raw, mapping, **fixed)
    assert all(field == "c" for _, field, _ in errors(raw))
    lines = [line for line, _, _ in errors(raw)]
    assert lines == found.lines[found.failed["c"]].tolist()
    return found.table["c"], lines


# ---- ids


def test_ids_are_kept_as_written_with_any_printable_character() -> None:
    odd = [
        "007",
        "7",
        "a/b",
        'q"uote',
        "it's",
        "名前",
        "a b",
        "é",
        "e\u0301",
        "x" * 512,
        "50%",
        "🙂",
        "NULL",
        "nan",
    ]
    raw = raw_of(item_id=odd)
    assert items(raw).table["item_id"].to_pylist() == odd
    assert errors(raw) == []


def test_white_space_around_ids_is_no_part_of_them() -> None:
    raw = raw_of(item_id=[" a", "b\n", "\u00a0c", "a"])
    assert items(raw).table["item_id"].to_pylist() == ["a", "b", "c"]
    assert errors(raw) == [(5, "item_id", "duplicate_id")]


def test_rows_without_a_usable_id_are_set_aside_with_the_whole_row() -> None:
    raw = raw_of(
        item_id=["a", None, "", "  ", "b\tc", "d\ne", "f\0", "g\u2028h", "x" * 513, "é" * 257],
        title=["t"] * 10,
    )
    assert items(raw).table["item_id"].to_pylist() == ["a"]
    assert [code for _, _, code in errors(raw)] == ["missing_id"] * 3 + ["odd_id"] * 6
    row = raw.rejects.table().filter(pa.array(np.array(raw.rejects.table()["line"]) == 6))["row"][0].as_py()
    assert json.loads(row) == {"item_id": "b\tc", "title": "t"}


def test_of_duplicate_ids_the_first_wins() -> None:
    raw = raw_of(item_id=["a", "b", "a", "a"], title=["1", "2", "3", "1"])
    assert items(raw).table["title"].to_pylist() == ["1", "2"]
    assert errors(raw) == [(4, "item_id", "duplicate_id"), (5, "item_id", "duplicate_id")]


def test_integer_ids_become_decimal_text_and_whole_floats_the_integers_they_were() -> None:
    assert items(raw_of(item_id=[1, 2**62])).table["item_id"].to_pylist() == ["1", str(2**62)]
    frame = read_source(pd.DataFrame({"item_id": [1.0, float("nan"), 30.0]}), PLAIN, "items")
    assert items(frame).table["item_id"].to_pylist() == ["1", "30"]
    assert [code for _, _, code in errors(frame)] == ["missing_id"]


def test_fractions_and_inexact_floats_are_no_ids() -> None:
    raw = raw_of(item_id=pa.array([1.5, 2.0**60, float("inf"), 4.0]))
    assert items(raw).table["item_id"].to_pylist() == ["4"]
    assert [code for _, _, code in errors(raw)] == ["odd_id"] * 3


def test_a_source_without_item_id_is_refused_with_what_it_has() -> None:
    with pytest.raises(BadInput, match="no column 'item_id'") as caught:
        items(raw_of(itemid=["a"], title=["t"]))
    assert "itemid, title" in str(caught.value)
    assert "did you mean 'itemid'" in str(caught.value)


def test_ids_of_a_type_that_is_no_id_are_refused() -> None:
    with pytest.raises(BadInput, match="no type for an id"):
        items(raw_of(item_id=[True]))
    with pytest.raises(BadInput, match="no type for an id"):
        items(raw_of(item_id=pa.array([datetime(2024, 1, 1)])))


# ---- types


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "-2", None], pa.int64(), [1, -2, None]),
        (["1", "2.5", ".5", "1e3"], pa.float64(), [1.0, 2.5, 0.5, 1000.0]),
        (["1.0", "2.0"], pa.float64(), [1.0, 2.0]),
        (["true", "False", "N/A"], pa.bool_(), [True, False, None]),
        (["1", "NaN", "null", "-", " 3 "], pa.int64(), [1, None, None, None, 3]),
        (["007", "8"], pa.string(), ["007", "8"]),
        (["1234567890123456789", "8"], pa.string(), ["1234567890123456789", "8"]),
        (["0", "1"], pa.int64(), [0, 1]),
        (["yes", "no"], pa.string(), ["yes", "no"]),
        (["$17.00", "$5.50"], pa.string(), ["$17.00", "$5.50"]),
        (["a", "None", "", "NA"], pa.string(), ["a", "None", None, "NA"]),
        (["NA", "null"], pa.string(), ["NA", "null"]),
        (["1", "a"], pa.string(), ["1", "a"]),
        (["2024-01-01"], pa.string(), ["2024-01-01"]),
    ],
)
def test_a_text_column_has_the_type_its_values_read_as(
    values: list[object], kind: pa.DataType, expected: list[object]
) -> None:
    found, bad = column(values)
    assert (found.type, found.to_pylist(), bad) == (kind, expected, [])


def test_a_stray_text_among_many_numbers_is_set_aside_and_not_the_numbers() -> None:
    found, bad = column(["12"] * 15 + ["call us"] + ["1.5"] * 4)
    assert found.type == pa.float64()
    assert found.to_pylist()[14:17] == [12.0, None, 1.5]
    assert bad == [17]


def test_the_reason_quotes_the_value_and_names_the_type() -> None:
    raw = raw_of(item_id=["a", "b"], price=["1", "cheap"])
    items(raw, price=pa.float64())
    assert raw.rejects.table()["reason"].to_pylist() == ["'cheap' is not a number"]


@pytest.mark.parametrize(
    ("values", "kind", "expected", "bad"),
    [
        (["1", "2.0", "2.5", "x", None], pa.int64(), [1, 2, None, None, None], [4, 5]),
        ([1.0, 2.5, float("nan"), 1e300], pa.int64(), [1, None, None, None], [3, 5]),
        ([1, 2], pa.float64(), [1.0, 2.0], []),
        (["1e999", "5"], pa.float64(), [None, 5.0], [2]),
        ([1.5, float("inf"), float("nan")], pa.float64(), [1.5, None, None], [3]),
        ([1, 2], pa.string(), ["1", "2"], []),
        ([True, False], pa.int64(), [None, None], [2, 3]),
        ([1, 0], pa.bool_(), [None, None], [2, 3]),
        ([["a"], None], pa.string(), [None, None], [2]),
        (pa.nulls(2), pa.int64(), [None, None], []),
    ],
)
def test_a_fixed_type_takes_what_fits_and_sets_the_rest_aside(
    values: list[object], kind: pa.DataType, expected: list[object], bad: list[int]
) -> None:
    found, lines = column(values, c=kind)
    assert (found.type, found.to_pylist(), lines) == (kind, expected, bad)


def test_prices_as_shops_write_them_are_numbers_where_the_mapping_says_so() -> None:
    written = ["$17.00", "€ 1,299.50", "1 200", "-5", "from 5", "$1 - $2", "1,2,3", "1.2.3", "12,50", None]
    found, bad = column(written, said(c={"type": "number"}))
    assert found.to_pylist() == [17.0, 1299.5, 1200.0, -5.0, None, None, None, None, None, None]
    assert bad == [6, 7, 8, 9, 10]


def test_a_comma_may_be_the_decimal_mark() -> None:
    found, bad = column(["1.299,50 €", "12,50", "3", "1,299.50"], said(c={"type": "number", "decimal": ","}))
    assert found.to_pylist() == [1299.5, 12.5, 3.0, None]
    assert bad == [5]


def test_the_mapping_decides_over_what_values_look_like() -> None:
    assert column(["1", "2"], said(c={"type": "string"}))[0].to_pylist() == ["1", "2"]
    assert column(["yes", "0", "x"], said(c={"type": "boolean"}))[0].to_pylist() == [True, False, None]
    assert column(["1,000", "007"], said(c={"type": "integer"}))[0].to_pylist() == [1000, None]


def test_lists_are_split_at_the_separator_and_cleaned() -> None:
    found, _ = column(
        ["a|b", "a | b ", "|", "", None, "x||y", "z"], said(c={"type": "list", "separator": "|"})
    )
    assert found.type == LIST
    assert found.to_pylist() == [["a", "b"], ["a", "b"], None, None, None, ["x", "y"], ["z"]]


def test_digits_in_a_text_column_of_a_typed_source_stay_text() -> None:
    raw = Raw("source", pa.table({"item_id": ["a"], "zip": ["12345"]}), np.array([1]))
    assert items(raw).table["zip"].to_pylist() == ["12345"]


def test_native_lists_and_finer_types_are_taken() -> None:
    assert column([["a", "b"], [], None])[0].to_pylist() == [["a", "b"], None, None]
    assert column([[1, 2], None])[0].to_pylist() == [["1", "2"], None]
    assert column(pa.array([1, 2], pa.uint8()))[0].type == pa.int64()
    assert column(pa.array(["a", "b"]).dictionary_encode())[0].to_pylist() == ["a", "b"]
    assert column(pa.array([1.5], pa.float32()))[0].to_pylist() == [1.5]
    assert column(pa.array(["x"], pa.large_string()))[0].type == pa.string()
    assert column(pa.array([datetime(2024, 1, 2)]).cast(pa.date32()))[0].to_pylist() == ["2024-01-02"]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([{"a": 1}]),
        pa.array([b"x"]),
        pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)),
        pa.array([[1.5]]),
        pa.array([[["a"]]]),
    ],
)
def test_structs_bytes_and_vectors_are_refused_as_columns(values: pa.Array) -> None:
    with pytest.raises(BadInput, match="column 'c'") as caught:
        column(values)
    assert 'drop = ["c"]' in str(caught.value)


def test_a_column_without_any_value_has_no_type_yet() -> None:
    found = items(raw_of(item_id=["a", "b"], c=pa.nulls(2, pa.string())))
    assert found.table.column_names == ["item_id"]


def test_a_whole_column_against_the_store_is_refused_once() -> None:
    with pytest.raises(BadInput, match="lists in the store") as caught:
        items(raw_of(item_id=["a"], genres=["x|y"]), genres=LIST)
    assert 'type = "list"' in str(caught.value)
    with pytest.raises(BadInput, match="the store holds it as string"):
        items(raw_of(item_id=["a"], price=["1"]), said(price={"type": "number"}), price=pa.string())


# ---- events

KNOWN = pa.chunked_array([["a", "b", "c"]])


def events(raw: Raw, mapping: SourceMapping = PLAIN) -> Events:
    return clean_events(raw, mapping, KNOWN)


def test_a_clean_log_has_all_columns_in_source_order() -> None:
    raw = raw_of(
        user_id=["u", "v"],
        item_id=[" a", "b"],
        timestamp=["20", "10"],
        rating=["4.5", None],
        event=["buy", None],
    )
    assert events(raw).table.to_pylist() == [
        {"user_id": "u", "item_id": "a", "event": "buy", "timestamp": 20, "position": None, "value": 4.5},
        {
            "user_id": "v",
            "item_id": "b",
            "event": "interaction",
            "timestamp": 10,
            "position": None,
            "value": None,
        },
    ]


def test_events_without_user_item_known_item_or_time_are_set_aside_each_once() -> None:
    raw = raw_of(
        user_id=[None, "u", "u", "u", "u\n1x", "u", "u", None],
        item_id=["a", None, "zz", "a", "a", "a", "b", None],
        timestamp=["1", "1", "1", "noon", "1", None, "7", "noon"],
    )
    assert events(raw).table["item_id"].to_pylist() == ["b"]
    assert errors(raw) == [
        (2, "user_id", "missing_id"),
        (3, "item_id", "missing_id"),
        (4, "item_id", "unknown_item"),
        (5, "timestamp", "bad_timestamp"),
        (6, "user_id", "odd_id"),
        (7, "timestamp", "no_time"),
        (9, "user_id", "missing_id"),
    ]
    reasons = raw.rejects.table().sort_by("line")["reason"].to_pylist()
    assert reasons[2] == "the catalogue has no item 'zz'"
    assert reasons[3] == "'noon' is neither unix seconds nor an ISO date"


@pytest.mark.parametrize("moment", ["1e30", "-9e25", 1e30])
def test_a_number_that_is_no_moment_is_said_to_be_a_number(moment: object) -> None:
    raw = raw_of(user_id=["u"], item_id=["a"], timestamp=[moment])
    events(raw)
    reason = raw.rejects.table()["reason"][0].as_py()
    assert reason.endswith("is, as seconds or in any smaller unit, no moment of the years 1 to 9999")


def test_without_time_or_position_the_input_order_of_each_user_is_the_position() -> None:
    raw = raw_of(user_id=["u", "v", "u", "v", "u"], item_id=["a", "a", "unknown", "b", "c"])
    found = events(raw).table
    assert found["position"].to_pylist() == [0, 0, 1, 2], (
        "an unknown item keeps its place for the day it is known"
    )
    assert found["timestamp"].null_count == 4


def test_a_bad_position_is_set_aside_and_a_missing_one_too() -> None:
    raw = raw_of(user_id=["u"] * 4, item_id=["a"] * 4, position=["0", "x", None, "3"])
    assert events(raw).table["position"].to_pylist() == [0, 3]
    assert errors(raw) == [(3, "position", "bad_position"), (4, "position", "no_time")]


def test_a_bad_rating_costs_the_rating_and_not_the_event() -> None:
    raw = raw_of(
        user_id=["u"] * 3, item_id=["a"] * 3, timestamp=[1, 2, 3], rating=[5.0, float("inf"), float("nan")]
    )
    assert events(raw).table["value"].to_pylist() == [5.0, None, None]
    assert errors(raw) == [(3, "value", "not_finite")]


def test_integer_ids_of_a_parquet_log_meet_the_text_ids_of_a_csv_catalogue() -> None:
    raw = raw_of(user_id=[1], item_id=[7], timestamp=[1])
    assert clean_events(raw, PLAIN, pa.chunked_array([["7"]])).table["item_id"].to_pylist() == ["7"]


def test_only_a_log_without_time_and_position_is_placed_by_its_rows() -> None:
    assert events(raw_of(user_id=["u"], item_id=["a"])).placed
    assert not events(raw_of(user_id=["u"], item_id=["a"], position=[4])).placed
    assert not events(raw_of(user_id=["u"], item_id=["a"], timestamp=[4])).placed


def test_columns_a_log_does_not_keep_are_named() -> None:
    raw = raw_of(user_id=["u"], item_id=["a"], timestamp=[1], device=["phone"])
    assert events(raw).ignored == ["device"]


def test_a_million_unknown_items_are_set_aside_in_columns() -> None:
    count = 300_000
    raw = raw_of(
        user_id=pa.array([f"u{n % 100}" for n in range(count)]),
        item_id=pa.repeat(pa.scalar("zz"), count),
        timestamp=pa.array(range(count)),
    )
    assert events(raw).table.num_rows == 0
    assert raw.rejects.counts() == {"unknown_item": count}
    assert raw.rejects._rows == [], "no row went through Python"
    last = raw.rejects.table().slice(count - 1).to_pylist()[0]
    assert json.loads(last["row"]) == {"user_id": "u99", "item_id": "zz", "timestamp": count - 1}


# ---- times

NOON = int(datetime(2023, 1, 5, 12, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (str(NOON), NOON),
        (f"{NOON}.9", NOON),
        (f"{NOON}000", NOON),
        (f"{NOON}999999", NOON),
        (f"{NOON}000000000", NOON),
        ("1.6729200e9", NOON),
        ("-5", -5),
        ("0", 0),
        ("2023-01-05", NOON - 43_200),
        ("2023-01-05T12:00:00Z", NOON),
        ("2023-01-05 12:00:00", NOON),
        ("2023-01-05T12:00", NOON),
        ("2023-01-05T14:00:00.750+02:00", NOON),
        ("2023-01-05T12:00:00.123456789Z", NOON),
        (" 2023-01-05T12:00:00Z ", NOON),
        ("2023-02-31", None),
        ("2023-13-01", None),
        ("05/01/2023", None),
        ("yesterday", None),
        ("1e400", None),
        ("99999999999999999999999", None),
        ("nan", None),
        ("12:00", None),
    ],
)
def test_a_moment_is_read_alone_and_among_others(value: str, expected: int | None) -> None:
    for others in ([], ["10"], ["2020-02-29"], ["2020-02-29T00:00:00Z", "7"], [None]):
        seconds, bad, reasons = to_seconds(pa.chunked_array([pa.array([value, *others], pa.string())]), None)
        assert seconds[0].as_py() == expected
        assert bad.tolist() == [expected is None] + [False] * len(others)
        assert (reasons is None) == (expected is not None)


def test_times_before_1970_are_floored_like_all_others() -> None:
    texts = pa.chunked_array([["1969-12-31T23:59:58.5Z", "1969-12-31T23:59:58.500", "-1.5"]])
    assert to_seconds(texts, None)[0].to_pylist() == [-2, -2, -2]
    stamps = pa.chunked_array([pa.array([-1_500], pa.timestamp("ms"))])
    assert to_seconds(stamps, None)[0].to_pylist() == [-2]


def test_a_named_unit_overrides_the_size() -> None:
    assert to_seconds(pa.chunked_array([[5000, 10**12]]), "ms")[0].to_pylist() == [5, 10**9]
    assert to_seconds(pa.chunked_array([["5000"]]), "s")[0].to_pylist() == [5000]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_arrow_timestamps_and_dates_are_exact_in_every_unit(unit: str) -> None:
    moment = datetime(2023, 1, 5, 12, tzinfo=UTC)
    stamps = pa.chunked_array([pa.array([moment, None]).cast(pa.timestamp(unit, "UTC"))])
    assert to_seconds(stamps, None)[0].to_pylist() == [NOON, None]
    assert to_seconds(pa.chunked_array([pa.array([moment.date()])]), None)[0].to_pylist() == [NOON - 43_200]


def test_floats_and_integers_are_times_and_booleans_are_not() -> None:
    assert to_seconds(pa.chunked_array([[1.5, float("nan"), float("inf")]]), None)[1].tolist() == [
        False,
        True,
        True,
    ]
    assert to_seconds(pa.chunked_array([[NOON, NOON * 1000]]), None)[0].to_pylist() == [NOON, NOON]
    assert to_seconds(pa.chunked_array([[True]]), None)[1].tolist() == [True]
