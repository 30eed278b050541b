"""One JSON object a line. Parsed by Python's own scanner (some 400,000 lines a second): Arrow's reader gives up a
whole file for one bad line, turns dates into timestamps and cannot hold a column whose rows differ in type.

A column whose values agree keeps its type; one that mixes scalars becomes text in JSON's spelling, and the typing
of columns judges it as it judges a csv. Lists stay lists if nearly all values are lists, and the others are set
aside.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.errors import BadInput
from ingest.mapping import SourceMapping
from ingest.raw import Raw, Rejects
from ingest.readers.text import check_encoding, codec_name, opened

AGREE = 0.9  # share of lists from which on a column is one of lists
INT64 = range(-(2**63), 2**63)


def read_jsonl(path: Path, mapping: SourceMapping) -> Raw:
    check_encoding(path, mapping.encoding)
    rejects = Rejects()
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    with opened(path) as file:
        name = codec_name(mapping.encoding)
        content = file.read().decode("utf-8-sig" if name == "utf-8" else name)
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        problem = ""
        row: Any = None
        try:
            row = json.loads(line)
            if "\\u" in line:
                json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except (ValueError, RecursionError) as error:
            problem = f"not JSON: {error}"
        if not problem and not isinstance(row, dict):
            problem = f"not an object but {_kind(row)}"
        if problem:
            if number == 1 and line.lstrip().startswith("["):
                raise BadInput(
                    f"{path} is one JSON array",
                    remedy="write one object a line (jq -c '.[]' does), or a csv or parquet file",
                )
            rejects.add(number, None, "bad_json", problem, json.dumps({"text": line}, ensure_ascii=False))
        else:
            rows.append(row)
            lines.append(number)
    unreadable = len(rejects)
    names = list(dict.fromkeys(key for row in rows for key in row))
    typed = [_column(name, rows, lines, rejects) for name in names]
    table = pa.table([column for column, _ in typed], names=names)
    untyped = frozenset(name for name, (_, mixed) in zip(names, typed, strict=True) if mixed)
    if not rows and not unreadable:
        raise BadInput(f"{path} is empty", remedy="write one JSON object a line")
    return Raw(str(path.resolve()), table, np.array(lines, np.int64), rejects, unreadable, untyped)


def _column(
    name: str, rows: list[dict[str, Any]], lines: list[int], rejects: Rejects
) -> tuple[pa.Array, bool]:
    """(values, whether they mixed types and became text)."""
    values = [row.get(name) for row in rows]
    kinds = {type(value) for value in values if value is not None}
    if list in kinds and kinds != {list}:
        given = sum(value is not None for value in values)
        if sum(isinstance(value, list) for value in values) >= AGREE * given:
            for at, value in enumerate(values):
                if value is not None and not isinstance(value, list):
                    reason = f"{_kind(value)} in a column of lists"
                    rejects.add(
                        lines[at], name, "bad_value", reason, json.dumps(rows[at], ensure_ascii=False)
                    )
                    values[at] = None
            kinds = {list}
    if kinds == {list}:
        listed = [None if v is None else [_spelled(part) for part in v if part is not None] for v in values]
        return pa.array(listed, pa.list_(pa.string())), False
    if kinds == {int} and all(value is None or value in INT64 for value in values):
        return pa.array(values, pa.int64()), False
    if kinds == {int, float} and all(not isinstance(value, int) or abs(value) < 2**53 for value in values):
        return pa.array(values, pa.float64()), False
    if kinds in (set(), {bool}, {float}, {str}):
        return pa.array(values), False
    return pa.array([None if value is None else _spelled(value) for value in values], pa.string()), True


def _spelled(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")
