"""Filters: what they mean, against a plain three-valued evaluation in Python, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import BadInput
from featurestore.filters import bound_here, compile_filter
from featurestore.sql import locked_connection

Row = dict[str, Any]
Truth = bool | None  # None: unknown

SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("price", pa.float64()),
        ("year", pa.int64()),
        ("genre", pa.string()),
        ("in_stock", pa.bool_()),
        ("tags", pa.list_(pa.string())),
        ("Odd name, here", pa.string()),
        ("vector", pa.list_(pa.float32(), 2)),
        ("_hidden", pa.string()),
    ]
)
WORDS = ["mug", "it's", "a%b", "Mug", "", "é_x", 'say "hi"', "a\\b", "m"]
TABLE = pa.table(
    {
        "item_id": ["a", "b", "c", "d"],
        "price": [5.0, None, 20.0, 35.5],
        "year": [1999, 2000, None, 2001],
        "genre": ["mug", None, "cup", "it's"],
        "in_stock": [True, False, None, True],
        "tags": [["x", "y"], None, [], ["y", None]],
        "Odd name, here": ["p", "q", None, "p"],
        "vector": [[1.0, 2.0]] * 4,
        "_hidden": ["h"] * 4,
    },
    schema=SCHEMA,
)


def selected(text: str, table: pa.Table = TABLE) -> list[str]:
    mask = compile_filter(text, table.schema).mask(table)
    return list(np.asarray(table["item_id"].to_pylist())[mask])


# ---- against Python


@dataclass(frozen=True)
class Case:
    text: str
    truth: Callable[[Row], Truth]


def quoted(word: str) -> str:
    return "'" + word.replace("'", "''") + "'"


def known(column: str, test: Callable[[Any], bool]) -> Callable[[Row], Truth]:
    return lambda row: None if row[column] is None else test(row[column])


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
MIRRORED = {"=": "=", "==": "=", "<>": "<>", "!=": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def like(pattern: str, folded: bool) -> Callable[[str], bool]:
    parts = [".*" if c == "%" else "." if c == "_" else re.escape(c) for c in pattern]
    compiled = re.compile("".join(parts), re.DOTALL | (re.IGNORECASE if folded else 0))
    return lambda text: compiled.fullmatch(text) is not None


numbers = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([0.5, -2.5, 3.0, 1e3, 2**53 + 1, 2**63 - 1, -(2**63), 2**64]),
)
prices = st.one_of(st.integers(-5, 5).map(float), st.sampled_from([0.5, -2.5, 1e3, 0.1]))
years = st.one_of(st.integers(-5, 5), st.sampled_from([2**53 + 1, 2**53, 2**63 - 1, -(2**63)]))
words = st.sampled_from(WORDS)


@st.composite
def leaves(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(["number", "text", "in", "between", "like", "null", "stock", "tags", "pair"]))
    column = draw(st.sampled_from(["price", "year"]))
    values = prices if column == "price" else numbers
    if kind == "number":
        operator, value = draw(st.sampled_from(sorted(OPERATORS))), draw(values)
        text = f"{column} {operator} {value}"
        if draw(st.booleans()):
            text = f"{value} {MIRRORED[operator]} {column}"
        return Case(text, known(column, lambda v: OPERATORS[operator](v, value)))
    if kind == "text":
        operator, word = draw(st.sampled_from(sorted(OPERATORS))), draw(words)
        order = lambda v: OPERATORS[operator](v.encode(), word.encode())  # noqa: E731
        return Case(f"genre {operator} {quoted(word)}", known("genre", order))
    negated = draw(st.booleans())
    word_not = "NOT " if negated else ""
    if kind == "in":
        listed = draw(st.lists(values, min_size=1, max_size=4))
        text = f"{column} {word_not}IN ({', '.join(map(str, listed))})"
        return Case(text, known(column, lambda v: (v in listed) != negated))
    if kind == "between":
        low, high = draw(values), draw(values)
        text = f"{column} {word_not}BETWEEN {low} AND {high}"
        return Case(text, known(column, lambda v: (low <= v <= high) != negated))
    if kind == "like":
        folded, pattern = draw(st.booleans()), draw(st.sampled_from([*WORDS, "%", "m%", "_ug", "%'%", "M_G"]))
        test = like(pattern, folded)
        text = f"genre {word_not}{'ILIKE' if folded else 'LIKE'} {quoted(pattern)}"
        return Case(text, known("genre", lambda v: test(v) != negated))
    if kind == "null":
        column = draw(st.sampled_from(["price", "year", "genre", "in_stock", "tags"]))
        return Case(f"{column} IS {word_not}NULL", lambda row: (row[column] is None) != negated)
    if kind == "stock":
        wanted = draw(st.booleans())
        form = draw(st.sampled_from(["in_stock", f"in_stock = {wanted}", f"in_stock IS {word_not}{wanted}"]))
        if form == "in_stock":
            return Case(form, lambda row: row["in_stock"])
        if " = " in form:
            return Case(form, known("in_stock", lambda v: v is wanted))
        return Case(form, lambda row: (row["in_stock"] is wanted) != negated)
    if kind == "tags":
        word = draw(words)
        forms = [
            f"contains(tags, {quoted(word)})",
            f"{quoted(word)} IN tags",
            f"list_contains(tags, {quoted(word)})",
        ]
        return Case(draw(st.sampled_from(forms)), known("tags", lambda v: word in v))
    return Case('genre = "Odd name, here"', lambda row: both(row["genre"], row["Odd name, here"]))


def both(left: Any, right: Any) -> Truth:
    return None if left is None or right is None else left == right


def conjoin(left: Truth, right: Truth) -> Truth:
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def negate(value: Truth) -> Truth:
    return None if value is None else not value


def joined(parts: list[Case], word: str) -> Case:
    def truth(row: Row) -> Truth:
        value: Truth = True
        for part in parts:
            found = part.truth(row)
            value = conjoin(value, found if word == "AND" else negate(found))
        return value if word == "AND" else negate(value)

    return Case(f" {word} ".join(f"({part.text})" for part in parts), truth)


cases = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        inner.map(lambda c: Case(f"NOT ({c.text})", lambda row: negate(c.truth(row)))),
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: joined(parts, "AND")),
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: joined(parts, "OR")),
    ),
    max_leaves=8,
)
rows = st.fixed_dictionaries(
    {
        "price": st.none() | prices,
        "year": st.none() | years,
        "genre": st.none() | words,
        "in_stock": st.none() | st.booleans(),
        "tags": st.none() | st.lists(st.none() | words, max_size=3),
        "Odd name, here": st.none() | words,
    }
)


@settings(max_examples=200, deadline=None)
@given(case=cases, drawn=st.lists(rows, min_size=1, max_size=30))
def test_a_filter_selects_what_three_valued_logic_says(case: Case, drawn: list[Row]) -> None:
    names = [n for n in SCHEMA.names if n in drawn[0]]
    table = pa.table(
        {n: [row[n] for row in drawn] for n in names}, schema=pa.schema([SCHEMA.field(n) for n in names])
    )
    mask = compile_filter(case.text, table.schema).mask(table)
    assert mask.dtype == np.bool_
    assert mask.tolist() == [case.truth(row) is True for row in drawn]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 1.0])
def test_rows_keep_their_places_at_any_selectivity(share: float) -> None:
    values = np.random.default_rng(0).random(200_000)
    table = pa.table({"price": values}).combine_chunks()
    chunked = pa.concat_tables([table.slice(0, 70_001), table.slice(70_001)])
    assert (compile_filter(f"price < {share}", chunked.schema).mask(chunked) == (values < share)).all()


# ---- details


def test_an_unknown_value_is_selected_by_neither_a_condition_nor_its_opposite() -> None:
    assert selected("price < 20") == ["a"]
    assert selected("NOT price < 20") == ["c", "d"]
    assert selected("NOT contains(tags, 'x')") == ["c", "d"]
    assert selected("price < 20 OR price IS NULL") == ["a", "b"]


def test_and_binds_tighter_than_or() -> None:
    assert selected("genre = 'mug' OR genre = 'cup' AND price > 100") == ["a"]
    assert selected("(genre = 'mug' OR genre = 'cup') AND price > 6") == ["c"]


def test_column_names_need_no_capitals_but_odd_ones_need_quotes() -> None:
    assert selected("GENRE = 'cup'") == ["c"]
    assert selected("\"Odd name, here\" = 'q'") == ["b"]


def test_columns_that_differ_by_capitals_only_must_be_spelled_exactly() -> None:
    table = pa.table({"item_id": ["a", "b"], "Size": [1, 2], "size": [2, 1]})
    assert selected("Size = 1", table) == ["a"]
    assert selected("size = 1", table) == ["b"]
    with pytest.raises(BadInput, match="no column 'SIZE'") as caught:
        selected("SIZE = 1", table)
    assert "Size or size" in str(caught.value)


def test_integers_beyond_double_precision_are_compared_exactly() -> None:
    table = pa.table({"item_id": ["a", "b"], "n": pa.array([2**53, 2**53 + 1], pa.int64())})
    assert selected(f"n = {2**53 + 1}", table) == ["b"]
    assert selected(f"n > {2**53}.0", table) == ["b"]


def test_a_thousand_conditions_and_ten_thousand_values_are_read() -> None:
    assert selected(" OR ".join(f"price = {n}" for n in range(1000))) == ["a", "c"]
    assert selected(f"year IN ({', '.join(map(str, range(10_000)))})") == ["a", "b", "d"]


def test_an_empty_table_gives_an_empty_mask() -> None:
    assert compile_filter("price < 3", SCHEMA).mask(TABLE.slice(0, 0)).shape == (0,)


def test_threads_do_not_meet() -> None:
    def count(n: int) -> int:
        table = pa.table({"x": np.arange(n)})
        return int(compile_filter("x >= 0", table.schema).mask(table).sum())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(count, range(1, 40))) == list(range(1, 40))


# ---- refusals


@pytest.mark.parametrize(
    ("text", "said", "remedy"),
    [
        ("pirce < 20", "no column 'pirce'", "did you mean 'price'"),
        ("_hidden = 'h'", "no column '_hidden'", "known"),
        ("price < '20'", "'price' is a number column, '20' is text", "write 20 without quotes"),
        ("price IN ('1', '2')", "is a number column", "without quotes"),
        ("price < 'cheap'", "is a number column", "compare it with a number"),
        ("genre = 3", "'genre' is a text column", "write '3' in quotes"),
        ("genre = price", "compared with 'price'", "grammar"),
        ("in_stock = 1", "yes/no column", "true or false"),
        ("in_stock > true", "no order", "use ="),
        ("price", "says nothing on its own", "compare it"),
        ("price = NULL", "NULL is never true", "IS NULL"),
        ("tags = 'x'", "list of texts", "contains(tags, 'x')"),
        ("tags IN ('x')", "is a list", "contains(tags, 'x')"),
        ("contains(genre, 'mug')", "is text, not a list", "ILIKE"),
        ("'m' IN genre", "is text, not a list", "ILIKE"),
        ("contains(tags, 3)", "lists texts", "'3' in quotes"),
        ("price LIKE '3%'", "LIKE reads text", "grammar"),
        ("vector = 3", "cannot be filtered by", "grammar"),
        ("price < 3 AND", "cannot be read from here on", "grammar"),
        ("price < 3 price", "cannot be read from here on", "grammar"),
        ("price < 'x", "cannot be read", "grammar"),
        ("price = 1e999", "not a number", "grammar"),
        ("price < 1" + 400 * "0", "not a number", "grammar"),
        ("price IN ()", "lists no value", "grammar"),
        ("1 = 1", "needs a column", "grammar"),
        ("true", "not part of a filter", "grammar"),
        ("", "empty", "grammar"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_remedy(text: str, said: str, remedy: str) -> None:
    with pytest.raises(BadInput) as caught:
        compile_filter(text, SCHEMA)
    assert said in caught.value.message
    assert remedy in (caught.value.remedy or "")


def test_the_place_is_pointed_at() -> None:
    with pytest.raises(BadInput) as caught:
        compile_filter("genre = 'mug' AND pirce < 20", SCHEMA)
    lines = caught.value.message.splitlines()
    assert lines[1] == "  genre = 'mug' AND pirce < 20"
    assert lines[2] == "                    ^^^^^"


@pytest.mark.parametrize(
    "text",
    [
        "genre = (SELECT content FROM read_text('/etc/hostname'))",
        "genre IN (SELECT content FROM read_text('/etc/hostname'))",
        "EXISTS (SELECT 1)",
        "genre IN '/etc/hostname'",
        "read_text('/etc/hostname') = 'x'",
        "lower(genre) = 'mug'",
        "price::VARCHAR = '5'",
        "CAST(price AS VARCHAR) = '5'",
        "TRY_CAST(genre AS INT) = 5",
        "genre = DATE '2020-01-01'",
        "price + 1 = 6",
        "-price = 5",
        "genre || 'x' = 'mugx'",
        "CASE WHEN in_stock THEN true END",
        "genre SIMILAR TO 'm.*'",
        "genre ~ 'm.*'",
        "genre GLOB 'm*'",
        "genre LIKE ANY ('m%', 'c%')",
        "genre LIKE 'm!%' ESCAPE '!'",
        "price = ANY (SELECT 1)",
        "price BETWEEN SYMMETRIC 30 AND 1",
        "price IS DISTINCT FROM 3",
        "(price, year) = (5, 1999)",
        "tags[1] = 'x'",
        "rows.price = 5",
        "price = ?",
        "price = $1",
        "COLUMNS(*) = 5",
        "* = 5",
        "genre = 'mug' COLLATE NOCASE",
        "genre = $$mug$$",
        "genre = e'mug'",
        "contains(tags, 'x', 'y')",
        "contains(tags, genre)",
        "price = 5; DROP TABLE items",
        "price = 5 UNION SELECT 1",
        "price = 5 ORDER BY 1",
        "price = 5 LIMIT 1",
        "x -> x > 3",
        "{'a': 1} = 3",
        "[1, 2] = 3",
        "INTERVAL 3 DAY = 3",
        "any_value(price) = 3",
        "row_number() OVER () = 1",
        "price = :name",
        "@price = 3",
        "TABLE items",
        "SELECT 1",
        "COPY items TO '/tmp/x'",
    ],
)
def test_anything_beyond_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        compile_filter(text, SCHEMA)


def test_depth_and_length_are_bounded() -> None:
    for text in (
        "(" * 5000 + "price < 3" + ")" * 5000,
        "NOT " * 3000 + "in_stock",
        "price < 3 OR " * 50_000 + "in_stock",
    ):
        with pytest.raises(BadInput):
            compile_filter(text, SCHEMA)


def test_values_never_become_sql() -> None:
    text = "genre = 'x'' OR true OR c0 = ''' AND price = 5 -- rest"
    made = compile_filter(text, SCHEMA)
    assert made.sql == "((c0 = ?) AND (c1 = ?))"
    assert made.values == ("x' OR true OR c0 = '", 5.0)
    assert selected(text) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/dualview-must-not-exist.csv'",
        "ATTACH '/tmp/dualview-must-not-exist.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SELECT * FROM TABLE",
    ],
)
def test_the_evaluating_connection_reaches_no_file_and_cannot_be_unlocked(sql: str) -> None:
    import duckdb

    with locked_connection(threads=1) as connection, pytest.raises(duckdb.Error):
        connection.execute(sql).fetchall()


def test_a_filter_that_takes_too_long_is_ended_where_time_is_bound() -> None:
    numbers = np.arange(400_000)
    table = pa.table({"title": pa.array(numbers.astype(str))})
    slow = " OR ".join(f"title ILIKE '%{n}%{n + 1}%z'" for n in range(300))

    def ask(where: str, seconds: float) -> int:
        bound_here(seconds)
        return int(compile_filter(where, table.schema).mask(table).sum())

    with ThreadPoolExecutor(1) as bounded:  # of that thread alone
        with pytest.raises(BadInput, match=r"more than 0\.05 seconds"):
            bounded.submit(ask, slow, 0.05).result()
        assert bounded.submit(ask, "title = '7'", 60.0).result() == 1
    assert compile_filter("title LIKE '%77777'", table.schema).mask(table).sum() == 4
