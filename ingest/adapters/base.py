"""What an adapter is: it reads the files of one public data set as their authors wrote them, and hands over what the
ordinary readers do, so that checking, setting aside and writing are the same for all sources.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from featurestore.errors import BadInput
from featurestore.schema import IMAGE, ITEM_ID
from ingest.mapping import Mapping
from ingest.raw import Raw
from ingest.readers.folder import SUFFIXES


@dataclass(frozen=True)
class Adapted:
    """A data set as it was read.

    mapping: how its columns become ours. images: folder that the column `image` is relative to, if there is one.
    beside: further files whose values were joined to the items; of them only what was set aside is left to store.
    """

    items: Raw
    interactions: Raw | None
    mapping: Mapping
    images: Path | None = None
    beside: tuple[Raw, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """One format. files: what it looks for, for messages. fits: whether a folder holds that.

    read: takes the folder and the folder of downloaded pictures or None. Raises BadInput for a file that is missing
    or cannot be read as a whole.
    """

    name: str
    files: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, Path | None], Adapted]


def listing(folder: Path) -> list[str]:
    """Names of the files in a folder, sorted; hidden ones left out. Subfolders are not looked into."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_file() and entry.name[0] != ".")


def find(folder: Path, *names: str) -> Path | None:
    """The first of these files that is there, as it is or with .gz."""
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def needed(folder: Path, *names: str) -> Path:
    """The same; raises BadInput where none is there."""
    path = find(folder, *names)
    if path is None:
        raise BadInput(
            f"{folder} has no file {' or '.join(names)}",
            remedy="name the folder that the data set was unpacked into",
        )
    return path


def with_pictures(items: Raw, folder: Path | None, ids: str = ITEM_ID) -> Raw:
    """`items` with a column `image`: the file in `folder` (or below) whose name is the item's id, NULL where none is.

    Without a folder the column is left out, so that pictures ingested earlier stay.
    """
    if folder is None:
        return items
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder of pictures", remedy="name the folder that holds ID.jpg files")
    paths: dict[str, str] = {}
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES):
                paths.setdefault(Path(name).stem, (Path(base) / name).relative_to(folder).as_posix())
    known, files = list(paths), list(paths.values())
    place = pc.index_in(pc.utf8_trim_whitespace(items.table[ids]), value_set=pa.array(known, pa.string()))
    if len(items.table) and place.null_count == len(items.table):
        raise BadInput(
            f"no picture in {folder} is named after an item",
            remedy="a picture's name is the item's id, such as B00123.jpg",
        )
    return replaced(
        items, items.table.append_column(IMAGE, pa.array(files, pa.string()).take(place.combine_chunks()))
    )


def joined(items: Raw, ids: str, side: pa.Table, side_ids: str) -> Raw:
    """`items` with the columns of `side` (but its ids) for the same id; NULL where `side` has no row of an item."""
    place = pc.index_in(items.table[ids], value_set=side[side_ids].combine_chunks()).combine_chunks()
    table = items.table
    for name in side.column_names:
        if name != side_ids:
            table = table.append_column(name, side[name].combine_chunks().take(place))
    return replaced(items, table)


def replaced(raw: Raw, table: pa.Table, untyped: frozenset[str] | None = None) -> Raw:
    """The same source with another table of the same rows."""
    kept = raw.untyped if untyped is None else untyped
    return Raw(raw.name, table, raw.lines, raw.rejects, raw.unreadable, kept)
