"""One JSON object a line, of which only the named columns are kept: a review's text is ten times all that a log needs.

Read as a stream, through gzip where the name says so; rows become Arrow columns some ten thousands at a time. A line
that is no JSON object is set aside with its number, a value that does not fit its column only itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.errors import BadInput
from ingest.raw import Raw, Rejects
from ingest.readers.text import opened

ROWS = 65_536  # objects held as Python values at once

Object = dict[str, Any]


class Unfit(Exception):
    """A value that cannot stand in its column; the message says why."""


class Column:
    """A column: its Arrow type, and how its value is found in an object (None where there is none; may raise Unfit)."""

    def __init__(self, kind: pa.DataType, pick: Callable[[Object], Any]) -> None:
        self.kind, self.pick = kind, pick


def read_objects(path: Path, columns: Mapping[str, Column], untyped: frozenset[str]) -> Raw:
    """`columns` of every object. untyped: those whose texts may stand for numbers.

    Raises BadInput for a file that is empty or holds no object, and for a gzip archive that is cut short: what it
    held before the cut is not taken, since nobody could tell what is missing.
    """
    rejects = Rejects()
    lines: list[int] = []
    waiting: dict[str, list[Any]] = {name: [] for name in columns}
    parts: list[pa.Table] = []
    schema = pa.schema([pa.field(name, column.kind) for name, column in columns.items()])
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            row, problem = _parsed(line)
            if row is None:
                text = {"text": line.decode("utf-8", "backslashreplace").rstrip("\r\n")}
                rejects.add(number, None, "bad_json", problem, json.dumps(text, ensure_ascii=False))
                continue
            lines.append(number)
            for name, column in columns.items():
                try:
                    value = column.pick(row)
                except Unfit as unfit:
                    value = None
                    shown = json.dumps(row, ensure_ascii=False)
                    rejects.add(number, name, "bad_value", str(unfit), shown)
                waiting[name].append(value)
            if len(lines) % ROWS == 0:
                parts.append(pa.table(waiting, schema=schema))
                waiting = {name: [] for name in columns}
    if not lines:
        raise BadInput(
            f"{path} holds no JSON object",
            remedy="check that it is the file its name says; one object a line",
        )
    parts.append(pa.table(waiting, schema=schema))
    unreadable = rejects.counts().get("bad_json", 0)
    return Raw(
        str(path.resolve()), pa.concat_tables(parts), np.array(lines, np.int64), rejects, unreadable, untyped
    )


def first_object(path: Path) -> Object | None:
    """The first line's object, to tell a format by; None where it is none."""
    with opened(path) as file:
        return _parsed(file.readline())[0]


def _parsed(line: bytes) -> tuple[Object | None, str]:
    """(object or None, why not)."""
    try:
        text = line.decode("utf-8-sig")
        row = json.loads(text)
        if "\\u" in text:
            json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {error}"
    return (row, "") if isinstance(row, dict) else (None, "not a JSON object")


# ---- columns as data sets have them


def text(*names: str) -> Column:
    """A text, or a number as it would be written; the first of the keys that has one."""
    return Column(pa.string(), lambda row: next((t for n in names if (t := _text(row.get(n), n))), None))


def texts(name: str) -> Column:
    """A list of texts. A single text is a list of one; empty texts are left out, an empty list is no value."""
    return Column(pa.list_(pa.string()), lambda row: _texts(row.get(name), name) or None)


def paragraphs(name: str) -> Column:
    """A list of texts as one text, a line each."""
    return Column(pa.string(), lambda row: "\n".join(_texts(row.get(name), name)) or None)


def _text(value: Any, name: str) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool | list | dict) or (isinstance(value, float) and not math.isfinite(value)):
        raise Unfit(f"{name} is {json.dumps(value)[:80]}, which is neither a text nor a number")
    return repr(value)


def _texts(value: Any, name: str) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, list) and all(isinstance(part, str | None) for part in value):
        return [part for part in value if part and part.strip()]
    raise Unfit(f"{name} is {json.dumps(value)[:80]}, which is no list of texts")
