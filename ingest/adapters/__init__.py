"""Public data sets as their authors hand them out: `read` picks the adapter of a format and reads a folder.

A new data set is one file here with `ADAPTERS`, and its name in the list below.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from featurestore.errors import BadInput, did_you_mean
from ingest.adapters import amazon, microlens, movielens
from ingest.adapters.base import Adapted, Adapter

__all__ = ["AUTO", "FORMATS", "Adapted", "Adapter", "detect", "read"]

FORMATS: dict[str, Adapter] = {
    a.name: a for module in (movielens, amazon, microlens) for a in module.ADAPTERS
}
AUTO = "auto"


def read(folder: str | Path, format: str, images: str | Path | None = None) -> Adapted:
    """Read the original files of a data set.

    format: a name in FORMATS, or "auto" to tell it by the names of the files. images: folder of pictures ID.jpg.
    Raises BadInput for an unknown format, a folder that is not there or holds something else, and an unreadable file.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise BadInput(
            f"{path} is no folder; format '{format}' reads the folder that a data set was unpacked into",
            remedy="name that folder, or leave the format out to read one file",
        )
    if format != AUTO and format not in FORMATS:
        raise BadInput(f"unknown format '{format}'", remedy=did_you_mean(format, [*FORMATS, AUTO]))
    pictures = None if images is None else Path(images).expanduser()
    if format != AUTO:
        return FORMATS[format].read(path, pictures)
    adapter = detect(path)
    found = adapter.read(path, pictures)
    return replace(found, notes=(f"{path} was read as {adapter.name}", *found.notes))


def detect(folder: Path) -> Adapter:
    """The one format whose files a folder holds. Raises BadInput where none or several fit."""
    fitting = [adapter for adapter in FORMATS.values() if adapter.fits(folder)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise BadInput(
            f"{folder} fits several formats: {', '.join(a.name for a in fitting)}",
            remedy="name one of them with --format",
        )
    inside = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
    looked = "; ".join(f"{a.name}: {a.files}" for a in FORMATS.values())
    raise BadInput(
        f"{folder} holds the files of no known format ({looked})",
        remedy=f"name a folder inside it ({', '.join(inside[:5])})"
        if inside
        else "check that it was unpacked",
    )
