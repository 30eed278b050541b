"""A release in formats that others read (Parquet, npy, RecBole's atomic files), or as it is, for another machine. Only
numpy and pyarrow are needed.

Vectors go from the memory-mapped matrix to the file a block at a time. The folder is written aside and renamed, with
provenance.json in it: every recipe in full, and the release that the values were taken from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featurestore import files, lineage
from featurestore.errors import BadInput, did_you_mean
from featurestore.export import as_npy, as_parquet, as_recbole, as_release
from featurestore.export.base import PROVENANCE, Planned, Source, check_folder, replacing_folder
from featurestore.release import Release
from featurestore.schema import ValueKind

__all__ = ["FORMATS", "ExportReport", "ExportedFile", "export"]

FORMATS = ("parquet", "npy", "recbole", "release")
TAKES = {  # the kinds of values that a format can hold
    "parquet": (ValueKind.TEXT, ValueKind.VECTOR, ValueKind.VECTORS),
    "npy": (ValueKind.VECTOR, ValueKind.VECTORS),
    "recbole": (ValueKind.VECTOR,),
    "release": (ValueKind.TEXT, ValueKind.VECTOR, ValueKind.VECTORS),
}


@dataclass(frozen=True)
class ExportedFile:
    """name: relative to the folder. bytes: of a dry run about, before compression."""

    name: str
    bytes: int


@dataclass(frozen=True)
class ExportReport:
    folder: str
    format: str
    release: str
    features: list[str]
    files: list[ExportedFile]
    notes: list[str]
    dry_run: bool

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"bytes": self.bytes}


def export(
    release: Release,
    out: str | Path,
    *,
    to: str = "parquet",
    features: Sequence[str] | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> ExportReport:
    """Write a release, or some of its features, into a folder.

    out: a folder that is not there yet, is empty, or with `overwrite` holds an earlier export. to: one of FORMATS.
    features: names; None for all that the format can hold. dry_run: say which files it would be, and write nothing.

    Raises BadInput for an unknown format and for what it cannot hold, NotFound for a feature that the release has not,
    Conflict where `out` holds something.
    """
    if to not in FORMATS:
        raise BadInput(f"unknown format '{to}' to export to", remedy=did_you_mean(to, FORMATS))
    folder = check_folder(out, overwrite)
    names, notes = _features(release, to, features)
    source = Source(release, names, lineage.provenance(release))
    planned = list(_plan(source, to, folder.name))
    if dry_run:
        made = [ExportedFile(file.name, file.bytes) for file in planned]
        return ExportReport(str(folder), to, release.name, names, made, notes, dry_run=True)
    made = []
    with replacing_folder(folder) as aside:
        for file in planned:
            path = aside / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            file.write(path)
            made.append(ExportedFile(file.name, path.stat().st_size))
    return ExportReport(str(folder), to, release.name, names, made, notes, dry_run=False)


def _features(release: Release, to: str, asked: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """(names to export, notes on those that are left out)."""
    if asked and to == "release":
        raise BadInput("a release is carried whole, not by features", remedy="leave --feature out")
    names = list(dict.fromkeys(asked)) if asked else release.features
    kinds = {name: ValueKind(release.facts(name)["kind"]) for name in names}
    unfit = [name for name, kind in kinds.items() if kind not in TAKES[to]]
    if asked and unfit:
        raise BadInput(
            f"{to} cannot hold feature '{unfit[0]}', whose values are {kinds[unfit[0]]}",
            remedy="export it to parquet",
        )
    notes = [f"left out feature '{name}': {to} cannot hold {kinds[name]}; parquet can" for name in unfit]
    return [name for name in names if name not in unfit], notes


def _plan(source: Source, to: str, name: str) -> Iterator[Planned]:
    if to == "parquet":
        yield from as_parquet.plan(source)
    elif to == "npy":
        yield from as_npy.plan(source)
    elif to == "release":
        yield from as_release.plan(source)
    else:
        yield from as_recbole.plan(source, name)
    said = source.provenance
    size = len(files.canonical_json(said))
    yield Planned(PROVENANCE, size, lambda path: files.write_json(path, said))
