"""CSV through Arrow's parser, every cell a string: types are decided later, over the whole column.

Line numbers are physical lines of the file (1-based, the header counts), true also after cells with line breaks in
quotes. A record with too few or too many cells is set aside alone. A quote that is opened and never closed would
swallow the rest of the file, one that is closed in the wrong place some rows: its line is set aside and reading goes on
with the next one. An empty cell, quoted or
not, is NULL.
"""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from featurestore.errors import BadInput
from ingest.mapping import SourceMapping
from ingest.raw import Raw, Rejects
from ingest.readers.text import check_encoding, codec_name, opened

BLOCK = 1 << 26  # bytes parsed at once; one record must fit
UNCLOSED_MAX = 100  # unclosed quotes we recover from in one file
LINE_BREAK = r"\r\n?|\n"


def read_csv(path: Path, mapping: SourceMapping, names: list[str] | None = None) -> Raw:
    """names: the columns of a file that begins without a line of them."""
    last = check_encoding(path, mapping.encoding)
    delimiter = mapping.delimiter or ("\t" if ".tsv" in path.name.lower() else ",")
    skip = 0
    if names is None:
        names, skip = _header(path, mapping.encoding, delimiter)
    rejects = Rejects()
    unreadable = 0
    tables: list[pa.Table] = []
    lines: list[np.ndarray] = []
    for _ in range(UNCLOSED_MAX):
        table, starts, bad = _parse(path, mapping.encoding, delimiter, names, skip)
        never = _unclosed(table, starts, bad, last)
        early = _misquoted(path, mapping.encoding, delimiter, table, starts, bad)
        unclosed = min((line for line in (never, early) if line is not None), default=None)
        if unclosed is not None:
            table, starts = table.filter(pa.array(starts < unclosed)), starts[starts < unclosed]
            bad = [entry for entry in bad if entry[0] < unclosed]
        for line, text, reason in bad:
            rejects.add(line, None, "column_count", reason, json.dumps({"text": text}, ensure_ascii=False))
        unreadable += len(bad)
        tables.append(table)
        lines.append(starts)
        if unclosed is None:
            break
        text = _physical_line(path, mapping.encoding, unclosed)
        reason = "a quote is opened on this line and never closed"
        if unclosed == early:
            reason = "a quote that this line opens is not closed where a cell ends"
        reason += "; the next lines were read as rows of their own"
        rejects.add(unclosed, None, "unclosed_quote", reason, json.dumps({"text": text}, ensure_ascii=False))
        unreadable += 1
        skip = unclosed
    else:
        raise BadInput(
            f"{path} has more than {UNCLOSED_MAX} quotes that are never closed",
            remedy="write it again as CSV",
        )
    whole = pa.concat_tables(tables)
    return Raw(str(path.resolve()), whole, np.concatenate(lines), rejects, unreadable, frozenset(names))


def _header(path: Path, encoding: str, delimiter: str) -> tuple[list[str], int]:
    """Column names, and how many physical lines come before the first record."""
    name = codec_name(encoding)
    with opened(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig" if name == "utf-8" else name, newline="")
        rows = csv.reader(text, delimiter=delimiter)
        try:
            names = next((row for row in rows if row), None)
        except csv.Error as error:
            raise BadInput(
                f"the header of {path} cannot be read ({error})", remedy="check that it is a csv"
            ) from error
        skip = rows.line_num
        text.detach()
    if names is None:
        raise BadInput(f"{path} is empty", remedy="it needs a first line with the names of its columns")
    return [cell.strip() for cell in names], skip


def _parse(
    path: Path, encoding: str, delimiter: str, names: list[str], skip: int
) -> tuple[pa.Table, np.ndarray, list[tuple[int, str, str]]]:
    """Records after `skip` physical lines: (table, first line of each row, rejected (line, text, reason))."""
    invalid: list[arrow_csv.InvalidRow] = []

    def set_aside(row: arrow_csv.InvalidRow) -> str:
        invalid.append(row)
        return "skip"

    places = [
        str(place) for place in range(len(names))
    ]  # names may repeat; judged by the caller of the reader
    with opened(path) as file:
        try:
            table = arrow_csv.read_csv(
                pa.PythonFile(file, mode="r"),
                read_options=arrow_csv.ReadOptions(
                    use_threads=False,  # else rejected rows carry no number
                    block_size=BLOCK,
                    skip_rows=skip,
                    column_names=places,
                    encoding=codec_name(encoding),
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=delimiter,
                    newlines_in_values=True,
                    ignore_empty_lines=False,
                    invalid_row_handler=set_aside,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(places, pa.string()),
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                table = pa.table([pa.array([], pa.string()) for _ in names], names=places)
            else:
                raise BadInput(
                    f"{path} cannot be read as csv ({error})",
                    remedy="look for a quote that is opened and never closed, or name the delimiter in a mapping file",
                ) from error

    # records in file order: the valid ones fill the numbers that no rejected one has
    total = table.num_rows + len(invalid)
    is_valid = np.ones(total, bool)
    at_invalid = np.array([row.number - skip - 1 for row in invalid], np.int64)
    is_valid[at_invalid] = False
    breaks = np.zeros(total, np.int64)
    breaks[is_valid] = _line_breaks(table)
    breaks[at_invalid] = [len(re.findall(LINE_BREAK, row.text)) for row in invalid]
    starts = skip + 1 + np.arange(total) + np.concatenate([[0], np.cumsum(breaks)[:-1]])[:total]
    bad = [
        (
            int(starts[at]),
            row.text,
            f"{row.actual_columns} cells where the header names {row.expected_columns}",
        )
        for at, row in zip(at_invalid, invalid, strict=True)
    ]
    table = table.rename_columns(names)
    starts = starts[is_valid]
    blank = np.ones(table.num_rows, bool)
    for column in table.columns:
        blank &= column.is_null().to_numpy()
    if blank.any():
        table, starts = table.filter(pa.array(~blank)), starts[~blank]
    return table, starts, bad


def _line_breaks(table: pa.Table) -> np.ndarray:
    """(n,) line breaks inside each row's cells."""
    found = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        if pc.any(pc.match_substring_regex(column, r"[\r\n]"), min_count=0).as_py():
            found += pc.fill_null(pc.count_substring_regex(column, LINE_BREAK), 0).to_numpy()
    return found


def _unclosed(table: pa.Table, starts: np.ndarray, bad: list[tuple[int, str, str]], last: str) -> int | None:
    """First line of the final record if its quote is never closed, else None.

    A final cell with a line break must be quoted, so the file must end in that quote.
    """
    last_valid = int(starts[-1]) if len(starts) else -1
    last_bad = bad[-1][0] if bad else -1
    if last_bad > last_valid:
        text = bad[-1][1]
        return last_bad if re.search(LINE_BREAK, text) and text.count('"') % 2 else None
    if last_valid < 0 or last == '"':
        return None
    final = table.column(table.num_columns - 1)[-1].as_py()
    return last_valid if final is not None and ("\n" in final or "\r" in final) else None


def _misquoted(
    path: Path,
    encoding: str,
    delimiter: str,
    table: pa.Table,
    starts: np.ndarray,
    bad: list[tuple[int, str, str]],
) -> int | None:
    """First line of the first record over several lines in which text follows a closing quote, else None.

    Arrow takes such text for part of the cell: `"15"",9.99`, where one quote was meant, goes on to the next quote there
    is, lines later. Rare: only records with line breaks are looked at.
    """
    wide = [line for line, text, _ in bad if re.search(LINE_BREAK, text) and not _strict(text, delimiter)]
    first = min(wide, default=None)
    breaks = _line_breaks(table)
    ends = dict(zip(starts[breaks > 0].tolist(), (starts + breaks)[breaks > 0].tolist(), strict=True))
    if not ends:
        return first
    with opened(path) as file:
        text = io.TextIOWrapper(file, encoding=codec_name(encoding), newline="")
        begun, end, record = 0, 0, [""]
        for number, line in enumerate(text, start=1):
            if number in ends:
                begun, end, record = number, ends[number], []
            if number <= end:
                record.append(line)
            if number == end and not _strict("".join(record), delimiter):
                first = begun if first is None else min(first, begun)
                break
        text.detach()
    return first


def _strict(record: str, delimiter: str) -> bool:
    """Whether every quote of a record is closed where its cell ends."""
    if len(record) > csv.field_size_limit():
        return True  # Python's reader takes no cell of that length
    try:
        return len(list(csv.reader(io.StringIO(record, newline=""), delimiter=delimiter, strict=True))) == 1
    except csv.Error:
        return False


def _physical_line(path: Path, encoding: str, number: int) -> str:
    with opened(path) as file:
        text = io.TextIOWrapper(file, encoding=codec_name(encoding))
        found = next((line for at, line in enumerate(text, start=1) if at == number), "")
        text.detach()
    return found.rstrip("\r\n")
