"""A release: every table pinned at one version, and the files that serve it. Immutable once it is there.

    releases/0001/manifest.json     written last: which versions, which recipes, which derived files
    derived/SHA256/                 those files, shared by all releases in which they are the same

Opening one needs numpy, pyarrow and json only, and no table: a machine that trains has a copy of these two folders and
neither LanceDB nor DuckDB. FAISS is imported when an index is asked for, DuckDB when a filter is.

The catalogue is an Arrow file and not a Lance table for that reason: it is memory-mapped, read without either library,
and a filter over it is evaluated in memory anyway. The text index is a folder of npy files beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore import files, remedies, spelling
from featurestore.errors import BadInput, Conflict, NotFound, did_you_mean
from featurestore.schema import ValueKind

if TYPE_CHECKING:
    from featurestore.bm25 import TextIndex
    from featurestore.exact import Index

FORMAT = 1  # of the manifest
LATEST = "latest"
MANIFEST = "manifest.json"
TEXT = "text/"  # before the names of the text index's files
MASKS = 64  # filters whose masks a release keeps

Strings = npt.NDArray[np.str_]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Bool = npt.NDArray[np.bool_]


class Cell(IntEnum):
    """What a release knows of one item's value of one feature."""

    OK = 0
    NO_INPUT = 1  # nothing to compute it from, such as no picture
    ERROR = 2
    ABSENT = 3  # never computed; only in a release that was published although not all was current


@dataclass(frozen=True, eq=False)
class FeatureMatrix:
    """The vectors of one feature, of the items that have one.

    ids: (n,) item ids, sorted. rows: (n,) int32, each one's row in the release.
    values: (n, dim) float32, memory-mapped. For a feature of several vectors an item: (all vectors, dim), of which
    item i has values[offsets[i] : offsets[i + 1]]; offsets is None otherwise.
    """

    ids: Strings
    rows: Int32
    values: Float32
    offsets: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def place_of(self, row: int) -> int:
        """Place in this matrix of the item in `row` of the release; -1 if it has no vector."""
        # of the rows' own type: for another numpy copies them all first
        place = int(np.searchsorted(self.rows, self.rows.dtype.type(row)))
        return place if place < len(self.rows) and self.rows[place] == row else -1


class Release:
    """One release of a store, or of a copy of its releases/ and derived/ folders. Files are opened when first used."""

    def __init__(self, root: str | Path, manifest: dict[str, Any]) -> None:
        self.root = Path(root)
        self.manifest = manifest
        self._matrices: dict[str, FeatureMatrix] = {}
        self._indexes: dict[str, Index] = {}
        self.mask = lru_cache(maxsize=MASKS)(self._mask)

    def __repr__(self) -> str:
        served = ", ".join(self.features) or "none"
        return f"Release({self.name!r}, {self.n_items:,} items, features {served})"

    # ---- what it is

    @property
    def name(self) -> str:
        """ "0001", and so on."""
        return str(self.manifest["name"])

    @property
    def tag(self) -> str | None:
        """The name that it was given by its publisher."""
        tag: str | None = self.manifest["tag"]
        return tag

    @property
    def created(self) -> str:
        """UTC, ISO 8601."""
        return str(self.manifest["created"])

    @property
    def n_items(self) -> int:
        return int(self.manifest["items"])

    @property
    def n_events(self) -> int:
        return int(self.manifest["events"])

    @property
    def features(self) -> list[str]:
        """The features that it serves, as features.toml lists them."""
        return [name for name in self.manifest["order"] if self.manifest["features"][name]["files"]]

    def facts(self, feature: str) -> dict[str, Any]:
        """What the manifest says of a feature: recipe, recipe_id, kind, dim, table, coverage, files.

        Raises NotFound, also for one without files.
        """
        found = self.declared(feature)
        if not found["files"]:
            raise NotFound(
                f"feature '{feature}' had not been computed when release {self.name} was made",
                remedy=remedies.fill_and_publish(self, feature),
            )
        return found

    def declared(self, feature: str) -> dict[str, Any]:
        """The same of a feature that may not have been computed. Raises NotFound, with the nearest name."""
        known: dict[str, dict[str, Any]] = self.manifest["features"]
        if feature not in known:
            raise NotFound(
                f"release {self.name} has no feature '{feature}'", remedy=did_you_mean(feature, known)
            )
        return known[feature]

    def coverage_rows(self) -> list[list[Any]]:
        """One row a feature: name, recipe, items with a value, without input, failed, not current when published."""
        rows = []
        for name in self.manifest["order"]:
            facts = self.manifest["features"][name]
            c = facts["coverage"]
            late = c["missing"] + c["stale"] + c["blocked"]
            recipe = facts["recipe_id"][:8] if facts["recipe_id"] else None
            rows.append([name, recipe, c["ok"], c["no_input"], c["error"], late])
        return rows

    # ---- items

    @cached_property
    def ids(self) -> Strings:
        """(n_items,) item ids, sorted: an item's place here is its row."""
        loaded: Strings = np.load(self._path(self.manifest["files"]["ids"]), allow_pickle=False)
        return loaded

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids.tolist())}

    def row_of(self, item_id: str) -> int:
        """The item's row. Raises NotFound, with an id that is near."""
        row = self._rows.get(item_id)
        if row is None:
            raise NotFound(
                f"release {self.name} has no item '{item_id}'", remedy=spelling.hint(self.ids, item_id)
            )
        return row

    @cached_property
    def catalogue(self) -> pa.Table:
        """Row i is the item in row i: item_id, title, attributes, image, _image_sha256, and feature_NAME of each
        published feature whose values are texts. Memory-mapped.
        """
        return _mapped(self._path(self.manifest["files"]["catalogue"]))

    @cached_property
    def shown(self) -> pa.Table | pa.RecordBatch:
        """The catalogue's columns that answers carry; one batch where it can be, since taking rows of it is faster."""
        columns = [name for name in self.catalogue.column_names if not name.startswith("_")]
        table = self.catalogue.select(columns)
        batches = table.to_batches()
        return batches[0] if len(batches) == 1 else table

    def events(self) -> pa.Table:
        """The log: user_id, item_id, timestamp, position, event, value; ordered by user, then time or position, then
        as ingested. Events of items that left the catalogue are in it. Memory-mapped.
        """
        return _mapped(self._path(self.manifest["files"]["events"]))

    def _mask(self, where: str) -> Bool:
        """(n_items,) bool: which rows satisfy a filter. Kept for the last 64 filters."""
        from featurestore.filters import compile_filter

        mask = compile_filter(where, self.catalogue.schema).mask(self.catalogue)
        mask.setflags(write=False)
        return mask

    # ---- features

    def matrix(self, feature: str) -> FeatureMatrix:
        """The vectors of a feature. Raises NotFound, and BadInput for one whose values are texts."""
        if feature not in self._matrices:
            facts = self.facts(feature)
            if facts["kind"] == ValueKind.TEXT:
                raise BadInput(
                    f"feature '{feature}' holds texts, not vectors",
                    remedy=f"they are a column of the catalogue: release.catalogue['{facts['column']}']",
                )
            stored = facts["files"]
            rows = np.load(self._path(stored["rows"]), allow_pickle=False)
            values = np.load(self._path(stored["values"]), mmap_mode="r", allow_pickle=False)
            offsets = None
            if "offsets" in stored:
                offsets = np.load(self._path(stored["offsets"]), allow_pickle=False)
            ids = self.ids if len(rows) == self.n_items else self.ids[rows]
            self._matrices[feature] = FeatureMatrix(ids, rows, values, offsets)
        return self._matrices[feature]

    def index(self, feature: str) -> Index:
        """The search index of a feature, under cosine; its row i is row i of `matrix(feature)`. Kept once opened.

        Raises NotFound, and BadInput for a feature that does not have one vector an item.
        """
        if feature not in self._indexes:
            from featurestore import indexes

            facts = self.facts(feature)
            if facts["kind"] != ValueKind.VECTOR:
                held = "texts" if facts["kind"] == ValueKind.TEXT else "several vectors an item"
                raise BadInput(
                    f"feature '{feature}' holds {held}: items are compared by a feature of one vector each",
                    remedy=f"choose one of: {', '.join(self.searchable) or 'none in this release'}",
                )
            stored = facts["files"]
            self._indexes[feature] = indexes.open(
                facts["index"], stored["index"]["sha256"], lambda part: self._path(stored[part])
            )
        return self._indexes[feature]

    @cached_property
    def words(self) -> TextIndex:
        """The text index over all items; its row i is item i. Opened when first used, and then kept.

        Raises NotFound where there is none.
        """
        from featurestore.bm25 import TextIndex

        stored = {n: e for n, e in self.manifest["files"].items() if n.startswith(TEXT)}
        if not stored and "text" in self.manifest:
            raise NotFound(
                f"no item of release {self.name} has a word to be found by",
                remedy="ingest titles or texts, then publish again",
            )
        if not stored:
            raise NotFound(
                f"release {self.name} was published before items could be found by words",
                remedy=f"publish again: dualview publish {self.root}",
            )
        (folder,) = {self._path(entry).parent for entry in stored.values()}
        return TextIndex.open(folder)

    @property
    def recall(self) -> float:
        """The recall@10 that its approximate indexes were asked for; the usual one where it has none."""
        from featurestore.indexes import RECALL

        asked = [
            facts["index"].get("target") for facts in self.manifest["features"].values() if "index" in facts
        ]
        return min((float(target) for target in asked if target is not None), default=RECALL)

    @property
    def searchable(self) -> list[str]:
        """The features that items can be compared by."""
        return [name for name in self.features if self.facts(name)["kind"] == ValueKind.VECTOR]

    def cell(self, feature: str, row: int) -> Cell:
        """Whether the item in `row` has a value of `feature`, and if not, why."""
        return Cell(int(self.cells(feature)[row]))

    def cells(self, feature: str) -> npt.NDArray[np.uint8]:
        """(n_items,) the same of every row, memory-mapped."""
        path = self._path(self.facts(feature)["files"]["cells"])
        states: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
        return states

    # ---- files

    def paths(self, feature: str) -> dict[str, Path]:
        """The derived files of a feature: cells, rows, values, offsets, index, lengths. Raises NotFound."""
        return {part: self._path(entry) for part, entry in self.facts(feature)["files"].items()}

    def files(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Every derived file, as (path, {"bytes", "sha256", ...}). With the manifest they are the whole release."""
        entries = list(self.manifest["files"].values())
        for facts in self.manifest["features"].values():
            entries += (facts["files"] or {}).values()
        for entry in entries:
            yield self.root / "derived" / entry["derived"] / entry["file"], entry

    def verify(self, content: bool = True) -> list[Path]:
        """Files that are gone or not as they were written; with content=False only their sizes are looked at."""
        damaged = []
        for path, entry in self.files():
            same = path.is_file() and path.stat().st_size == entry["bytes"]
            if not same or (content and files.sha256_file(path) != entry["sha256"]):
                damaged.append(path)
        return damaged

    def _path(self, entry: dict[str, Any]) -> Path:
        path: Path = self.root / "derived" / entry["derived"] / entry["file"]
        if not path.exists():
            raise NotFound(f"{path}, a file of release {self.name}, is gone", remedy=remedies.rebuild(self))
        if path.stat().st_size != entry["bytes"]:
            raise Conflict(
                f"{path} has {path.stat().st_size:,} bytes, release {self.name} wrote {entry['bytes']:,}",
                remedy=remedies.rebuild(self),
            )
        return path


def names(root: str | Path) -> list[str]:
    """Names of all releases, oldest first. One without a manifest was never finished and is none.

    Listed again where the newest went while it was looked at: then `gc` took it away, and there is a newer one.
    """
    folder, before = Path(root) / "releases", None
    while True:
        listed = sorted((path.name for path in folder.glob("*") if path.name.isdigit()), key=int)
        found = [name for name in listed if (folder / name / MANIFEST).exists()]
        if found[-1:] == listed[-1:] or listed == before:
            return found
        before = listed


def every(root: str | Path) -> list[Release]:
    """All releases, oldest first, but for one that `gc` takes away in this moment."""
    found = []
    for name in names(root):
        with suppress(FileNotFoundError):
            found.append(Release(root, _manifest(root, name)))
    return found


def open(root: str | Path, name: str = LATEST) -> Release:
    """Open a release by its name ("0001" or "1"), its tag, or "latest". root: the store, or a copy that has releases/.

    Raises NotFound with the nearest name.
    """
    known = names(root)
    if not known:
        raise NotFound(f"nothing was published in {root}", remedy=f"dualview publish {root}")
    numbered = {str(int(other)): other for other in known}
    chosen = known[-1] if name == LATEST else numbered.get(name.lstrip("0"))
    if chosen is not None:
        try:
            return Release(root, _manifest(root, chosen))
        except FileNotFoundError:  # `gc` took it away since it was listed
            return open(root, name)
    tags = {release.tag: release for release in every(root) if release.tag}
    if name in tags:
        return tags[name]
    near = did_you_mean(name, [*known, *tags, LATEST])
    raise NotFound(f"there is no release '{name}' in {root}", remedy=near)


def _manifest(root: str | Path, name: str) -> dict[str, Any]:
    path = Path(root) / "releases" / name / MANIFEST
    try:
        manifest: dict[str, Any] = files.read_json(path)
        found = int(manifest["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise Conflict(
            f"{path} cannot be read: {type(error).__name__}: {error}",
            remedy=f"restore it from a copy; or take {path.parent} away, and with it that release",
        ) from error
    if found > FORMAT:
        raise BadInput(
            f"{path} has format {found}, this version reads format {FORMAT}",
            remedy="use the version of dualview that wrote it, or a newer one",
        )
    return manifest


def _mapped(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()
