"""One grammar of conditions on items, the same wherever a filter is taken: `price < 20 AND 'mug' IN tags`.

    price < 20        = != <> < <= > >=, with a value or another column
    category IN ('mug', 'cup') · price BETWEEN 5 AND 10 · title LIKE 'Blue%' · title ILIKE '%blue%'
    price IS NULL · in_stock IS TRUE · in_stock (a yes/no column alone)
    contains(tags, 'gift') · 'gift' IN tags (a list column)
    each also with NOT; joined by AND, OR, NOT and brackets

Two decisions. The text is parsed by sqlglot, and every node must be one of the few that stand above: anything
else is refused, with the place. What DuckDB then runs is written by us from that tree, with our names for the
columns and every value bound as a parameter, on a connection that reaches no file and whose settings are locked.

NULL is SQL's: a comparison with an unknown is unknown, and an item whose condition is unknown is not selected.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.errors import BadInput
from featurestore.grammar import REMEDY, Value, Writer, around, point

if TYPE_CHECKING:
    import duckdb

_here = threading.local()
MAX_LENGTH = 200_000  # characters of a filter: room for some ten thousand ids


@dataclass(frozen=True)
class Filter:
    """A checked filter. `sql` names its columns c0, c1, ... in the order of `columns`; `values` are parameters."""

    text: str
    columns: tuple[str, ...]
    sql: str
    values: tuple[Value, ...] = field(repr=False)

    def mask(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """(table.num_rows,) bool: which rows satisfy it."""
        if table.num_rows == 0:
            return np.zeros(0, np.bool_)
        used = table.select(list(self.columns)).rename_columns([f"c{n}" for n in range(len(self.columns))])
        # a cursor has its own views, so threads do not meet
        with _evaluator().cursor() as connection, _in_time(connection):
            connection.register("rows_to_filter", used)
            query = f"SELECT coalesce({self.sql}, false) AS keep FROM rows_to_filter"
            answer = connection.execute(query, list(self.values)).fetchnumpy()["keep"]
        return np.ascontiguousarray(answer, dtype=np.bool_)


def bound_here(seconds: float) -> None:
    """Let no filter that this thread evaluates take longer: BadInput then. For whoever answers strangers."""
    _here.seconds = seconds


@contextmanager
def _in_time(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    seconds: float | None = getattr(_here, "seconds", None)
    if seconds is None:
        yield
        return
    import duckdb

    timer = threading.Timer(seconds, connection.interrupt)
    timer.start()
    try:
        yield
    except duckdb.InterruptException:
        raise BadInput(
            f"the filter takes more than {seconds:g} seconds", remedy="give fewer conditions, or simpler ones"
        ) from None
    finally:
        timer.cancel()


def compile_filter(text: str, schema: pa.Schema) -> Filter:
    """Check `text` against the columns of `schema`. Raises BadInput with the place, and a hint where there is one."""
    import sqlglot
    from sqlglot import exp

    if not text.strip():
        raise BadInput("the filter is empty", remedy=REMEDY)
    if len(text) > MAX_LENGTH:
        raise BadInput(f"the filter is {len(text):,} characters long; at most {MAX_LENGTH:,} are read")
    try:
        tree = sqlglot.parse_one(text, dialect="duckdb", into=exp.Condition)
        writer = Writer(text, schema)
        sql = writer.condition(tree, 0)
    except sqlglot.errors.SqlglotError as error:
        raise _unreadable(text, error) from None
    except RecursionError:
        raise BadInput("the filter is nested too deeply", remedy="use IN lists instead of brackets") from None
    return Filter(text, tuple(writer.columns), sql, tuple(writer.values))


@cache
def _evaluator() -> duckdb.DuckDBPyConnection:
    from featurestore.sql import locked_connection

    return locked_connection(threads=1)


def _unreadable(text: str, error: Exception) -> BadInput:
    found = (getattr(error, "errors", None) or [{}])[0]
    start = found.get("start_context")
    if start is None or not found.get("highlight"):
        return BadInput(f"the filter cannot be read:\n  {around(text, 0)[0]}", remedy=REMEDY)
    offset = text.find(start + found["highlight"])
    offset = max(offset, 0) + len(start)
    place = point(text, offset, offset + len(found["highlight"]) - 1)
    return BadInput(f"the filter cannot be read from here on:{place}", remedy=REMEDY)
