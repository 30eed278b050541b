"""A folder of pictures is a catalogue: one item a file, its id the file's stem, its title the stem made readable.

Subfolders count; hidden files and links to folders do not. Two files with one stem: the first in path order is
taken, the other set aside. `line` is the file's place in that order.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa

from featurestore.errors import BadInput
from featurestore.schema import IMAGE, ITEM_ID, TITLE
from ingest.raw import Raw, Rejects

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


def read_folder(folder: Path) -> Raw:
    paths: list[str] = []
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(base).relative_to(folder)
        paths += [
            (inside / name).as_posix()
            for name in files
            if not name.startswith(".") and name.lower().endswith(SUFFIXES)
        ]
    if not paths:
        raise BadInput(
            f"{folder} holds no pictures ({', '.join(SUFFIXES)})",
            remedy=_instead(folder),
        )
    paths.sort()
    rejects = Rejects()
    for place, path in enumerate(paths, start=1):
        if not path.isprintable():  # half-decoded bytes too: such a name can be neither stored nor told
            text = path.encode("utf-8", "backslashreplace").decode()
            rejects.add(
                place, IMAGE, "odd_path", "the name holds bytes that are no text", json.dumps({"image": text})
            )
    lines = np.array([place for place, path in enumerate(paths, start=1) if path.isprintable()], np.int64)
    paths = [path for path in paths if path.isprintable()]
    stems = [Path(path).stem for path in paths]
    titles = [readable(stem) for stem in stems]
    table = pa.table(
        [pa.array(column, pa.string()) for column in (stems, titles, paths)], names=[ITEM_ID, TITLE, IMAGE]
    )
    return Raw(str(folder.resolve()), table, lines, rejects, len(rejects))


def _instead(folder: Path) -> str:
    """What to do about a folder without pictures; it may hold a public data set."""
    from ingest import adapters

    try:
        return f"to read it as a data set: --format {adapters.detect(folder).name}"
    except BadInput:
        return "name the folder with the pictures in it, or a csv, jsonl or parquet file"


def readable(stem: str) -> str:
    """
    >>> readable("red_mug-02")
    'red mug 02'
    """
    return re.sub(r"[\s_\-.+]+", " ", stem).strip()
