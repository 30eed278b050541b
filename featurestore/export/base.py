"""What the formats of an export have in common: a plan of files, and a folder that is whole or not there."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore import files
from featurestore.errors import BadInput, Conflict
from featurestore.release import Cell, Release
from featurestore.schema import Status, ValueKind

PROVENANCE = "provenance.json"
ROWS = 65_536  # rows of a table, or vectors, held at once
STATUS_OF = {Cell.OK: Status.OK, Cell.NO_INPUT: Status.NO_INPUT, Cell.ERROR: Status.ERROR}
ABSENT = "absent"  # the status of an item whose value had not been computed when the release was made
URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:/")


@dataclass(frozen=True)
class Planned:
    """One file of an export. bytes: its size, or about what it comes to before compression; write: makes it."""

    name: str
    bytes: int
    write: Callable[[Path], None]


@dataclass(frozen=True)
class Source:
    """What is exported: a release, the features of it that were asked for, and where they come from."""

    release: Release
    features: list[str]
    provenance: dict[str, Any]

    def kind(self, feature: str) -> ValueKind:
        return ValueKind(self.release.facts(feature)["kind"])

    def origin(self, feature: str | None) -> dict[str, Any]:
        """What a single file says of itself: store, release and, of a feature, its whole recipe."""
        about = {
            "store": (self.provenance["store"] or {}).get("id"),
            "release": self.provenance["release"]["name"],
            "release_created": self.provenance["release"]["created"],
            "written_by": self.provenance["written_by"],
        }
        if feature is not None:
            kept = self.provenance["features"][feature]
            about |= {"feature": feature, "recipe_id": kept["recipe_id"], "recipe": kept["recipe"]}
        return about

    def statuses(self, feature: str) -> pa.Array:
        """(n_items,) ok, no_input, error or absent, in the order of the release's rows."""
        names = pa.array([str(STATUS_OF.get(cell, ABSENT)) for cell in Cell])
        cells = self.release.cells(feature)
        return names.take(pa.array(np.asarray(cells, np.int32)))


def check_folder(out: str | Path, overwrite: bool) -> Path:
    """The folder to export to.

    Raises BadInput for a URL or a folder inside a store, Conflict where something is that may not be replaced.
    """
    if URL.match(str(out)):
        raise BadInput(
            f"'{out}' is no local folder", remedy="export to a local folder, then copy it to where it belongs"
        )
    folder = Path(out).expanduser().resolve()
    for above in folder.parents:
        if (above / "store.json").is_file() and (above / "tables").is_dir():
            raise BadInput(
                f"{folder} lies inside the store {above}, which is for the store's own files: gc may take it away",
                remedy="choose a folder outside the store",
            )
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return folder
    if not folder.is_dir() or not (folder / PROVENANCE).is_file():
        raise Conflict(
            f"{folder} is there and is no export (it has no {PROVENANCE})", remedy="choose another folder"
        )
    if not overwrite:
        raise Conflict(f"{folder} holds an export already", remedy="choose another folder, or --overwrite")
    if any((folder / "runs").glob("*/run.json")):
        raise Conflict(
            f"{folder} holds runs that were trained there",
            remedy="copy its runs/ away, or choose another folder",
        )
    return folder


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`; on success its files are flushed and it takes the place of `folder`."""
    mark = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    aside, old = (folder.with_name(f".{folder.name}.{mark}.{end}") for end in ("part", "old"))
    with files.disk_errors(str(folder)):
        aside.mkdir(parents=True)
        try:
            yield aside
            files.flush_tree(aside)
            if folder.exists():
                files.rename(folder, old)
            files.rename(aside, folder)
        finally:
            if old.exists() and not folder.exists():
                os.replace(old, folder)
            for path in (aside, old):
                shutil.rmtree(path, ignore_errors=True)
