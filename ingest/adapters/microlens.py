"""MicroLens 50k, 100k and 1M, by Westlake University: *_pairs.csv (user, item, timestamp in milliseconds) or
*_pairs.tsv (a user and, in order, what they watched), *_titles.csv or *_title_en.csv, *_likes_and_views.txt, covers.

Titles are the 50k's with a header and the 100k's without one. Covers are ID.jpg, in a folder beside the files whose
name has "cover" in it, or where `images` says. Likes and views are counts of the whole period.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.errors import BadInput
from featurestore.schema import ITEM_ID, POSITION, TITLE, USER_ID
from ingest.adapters.base import Adapted, Adapter, joined, listing, replaced, with_pictures
from ingest.adapters.lines import read_matching
from ingest.mapping import ColumnSpec, Mapping, SourceMapping
from ingest.raw import Raw
from ingest.readers.csv import read_csv
from ingest.readers.text import opened

TITLES = ("_titles.csv", "_title_en.csv", "_title.csv")
PAIRS = ("_pairs.csv", "_pairs.tsv")
COUNTS = "_likes_and_views.txt"
HEADERS = ("item", "itemid", "item_id", "video", "videoid", "video_id", "user", "userid", "user_id")


def read(folder: Path, images: Path | None) -> Adapted:
    titles, pairs = _file(folder, TITLES), _file(folder, PAIRS)
    if titles is None or pairs is None:
        missing = "*_titles.csv" if titles is None else "*_pairs.csv"
        raise BadInput(
            f"{folder} has no file {missing}", remedy="name the folder that MicroLens was unpacked into"
        )
    items = _table(titles, [ITEM_ID, TITLE])
    beside: list[Raw] = []
    columns: dict[str, ColumnSpec] = {}
    if (counts := _file(folder, (COUNTS,))) is not None:
        raw = read_matching(
            counts,
            r"(?P<id>[^\t]*)\t(?P<likes>[^\t]*)\t(?P<views>[^\t]*)",
            "item, likes and views with tabs between",
        )
        items = joined(items, ITEM_ID, raw.table, "id")
        items = replaced(items, items.table, items.untyped | {"likes", "views"})
        columns = {name: ColumnSpec(type="integer") for name in ("likes", "views")}
        beside.append(raw)
    covers = images if images is not None else _covers(folder)
    items = with_pictures(items, covers)
    if pairs.name.removesuffix(".gz").endswith(".tsv"):
        events, log = _sequences(pairs), SourceMapping()
    else:
        events = _table(pairs, [USER_ID, ITEM_ID, "timestamp"])
        log = SourceMapping(columns={"timestamp": ColumnSpec(unit="ms")})
    return Adapted(items, events, Mapping(columns=columns, interactions=log), covers, tuple(beside))


def _file(folder: Path, endings: tuple[str, ...]) -> Path | None:
    """The one file with the first of these endings that any file has."""
    names = listing(folder)
    for ending in endings:
        found = [name for name in names if name.lower().removesuffix(".gz").endswith(ending)]
        if len(found) > 1:
            raise BadInput(
                f"{folder} holds more than one *{ending}: {', '.join(found)}",
                remedy="put one size of the data set in a folder of its own",
            )
        if found:
            return folder / found[0]
    return None


def _table(path: Path, ours: list[str]) -> Raw:
    """A csv whose columns are `ours` in this order, with or without a line of names."""
    with opened(path) as file:
        first = next(csv.reader(io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="")), [])
    named = bool(first) and first[0].strip().lower() in HEADERS
    raw = read_csv(path, SourceMapping(), names=None if named else ours)
    if len(raw.table.column_names) != len(ours):
        raise BadInput(
            f"{path} has {len(raw.table.column_names)} columns; expected {', '.join(ours)}",
            remedy="check that it is the file its name says",
        )
    return replaced(raw, raw.table.rename_columns(ours), frozenset(ours))


def _sequences(path: Path) -> Raw:
    """A user and their items in order, a line each, as one row an event with its position."""
    raw = read_matching(path, r"(?P<user_id>[^\t]*)\t(?P<items>.*)", "user, a tab, items with blanks between")
    split = pc.split_pattern(pc.utf8_trim_whitespace(raw.table["items"]), " ").combine_chunks()
    whose = pc.list_parent_indices(split).to_numpy()
    items = split.flatten()
    said = pc.not_equal(items, "").to_numpy(zero_copy_only=False)  # of two blanks in a row
    whose, items = whose[said], items.filter(pa.array(said))
    firsts = np.r_[0, np.cumsum(np.bincount(whose, minlength=len(raw.table)))[:-1]]
    table = pa.table(
        {
            USER_ID: raw.table[USER_ID].combine_chunks().take(pa.array(whose)),
            ITEM_ID: items,
            POSITION: pa.array(np.arange(len(whose)) - firsts[whose]),
        }
    )
    return Raw(raw.name, table, raw.lines[whose], raw.rejects, raw.unreadable)


def _covers(folder: Path) -> Path | None:
    found = sorted(p for p in folder.iterdir() if p.is_dir() and "cover" in p.name.lower())
    return found[0] if found else None


def _fits(folder: Path) -> bool:
    names = [name.lower().removesuffix(".gz") for name in listing(folder)]
    return any(n.endswith(PAIRS) for n in names) and any(n.endswith(TITLES) for n in names)


ADAPTERS = (Adapter("microlens", "*_pairs.csv or .tsv, *_titles.csv or *_title_en.csv", _fits, read),)
