"""Text files that have one record a line and no quoting: `a::b::c`, `a|b|c`, tabs.

Each line is matched against one pattern as a whole column; a line that does not match is set aside with its number.
A last line without a line end is a line like any other; blank lines are none.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from featurestore.errors import BadInput
from ingest.raw import Raw, Rejects
from ingest.readers.text import check_encoding, opened

BLOCK = 1 << 24
NOWHERE = "\x1f"  # a delimiter that no text file has: a line is one column


def read_matching(path: Path, pattern: str, shape: str) -> Raw:
    """One column of texts a named group of `pattern` (RE2), which has to match whole lines.

    shape: how a line looks, for messages. UTF-8 where the file is, else latin-1 (MovieLens 100K and 1M are). Raises
    BadInput for a file of which no line matches.
    """
    texts, lines = read_lines(path)
    found = pc.extract_regex(texts, f"^(?:{pattern})$")
    bad = found.is_null().to_numpy()
    rejects = Rejects()
    for place in np.flatnonzero(bad):
        text = json.dumps({"text": texts[place].as_py()}, ensure_ascii=False)
        rejects.add(int(lines[place]), None, "bad_line", f"not of the shape {shape}", text)
    if bad.all():
        raise BadInput(
            f"no line of {path} has the shape {shape}",
            remedy="check that it is the file its name says, or choose another format",
        )
    table = pa.Table.from_struct_array(found.filter(pa.array(~bad)).combine_chunks())
    return Raw(
        str(path.resolve()), table, lines[~bad], rejects, int(bad.sum()), frozenset(table.column_names)
    )


def read_lines(path: Path) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Texts of the lines that are not blank, without their ends, and their numbers (n,) int64 from 1."""
    with opened(path) as file:
        try:
            table = arrow_csv.read_csv(
                pa.PythonFile(file, mode="r"),
                read_options=arrow_csv.ReadOptions(
                    use_threads=False, block_size=BLOCK, column_names=["line"], encoding=encoding(path)
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=NOWHERE, quote_char=False, double_quote=False, ignore_empty_lines=False
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types={"line": pa.string()}, strings_can_be_null=False
                ),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                raise BadInput(f"{path} is empty", remedy="unpack or fetch it again") from error
            raise BadInput(
                f"{path} cannot be read as lines of text ({error})", remedy="unpack or fetch it again"
            ) from error
    texts = table.column("line")
    said = pc.match_substring_regex(texts, r"\S").to_numpy()
    return texts.filter(pa.array(said)), np.flatnonzero(said) + 1


def encoding(path: Path) -> str:
    try:
        check_encoding(path, "utf-8")
    except BadInput:
        return "latin-1"
    return "utf-8"
