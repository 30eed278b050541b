"""How a release is made: tag every table, derive what serving needs, write the manifest last.

Two decisions. A derived folder is named by the hash of what went into it (vectors: the ids and value hashes) or, where
that costs no more, of its content; so whatever is the same in two releases is kept once. And publishing what has not
changed since the latest release, under no new tag, gives that release back, with its derived files made again where
they are gone: a number always means a difference.

A kill at any moment leaves the earlier releases as they were: tags without a manifest and `.part` folders are orphans.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore import bm25, files, indexes, interactions, journal, schema
from featurestore import definitions as defs
from featurestore import release as releases
from featurestore.derived import Entry, Shelf, digest
from featurestore.errors import BadInput, Conflict, Stale
from featurestore.indexes import Wanted
from featurestore.recipe import Recipe
from featurestore.release import Cell, Release
from featurestore.schema import Status, ValueKind
from featurestore.sql import view_name
from featurestore.status import FeatureStatus, next_step

if TYPE_CHECKING:
    from featurestore.store import Store

TAG = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
READ_ROWS = 65_536  # vectors held at a time on their way from the table to the file
EVENT_COLUMNS = (
    schema.USER_ID,
    schema.ITEM_ID,
    schema.TIMESTAMP,
    schema.POSITION,
    schema.EVENT,
    schema.VALUE,
)
CELLS = {Status.OK: Cell.OK, Status.NO_INPUT: Cell.NO_INPUT, Status.ERROR: Cell.ERROR}

Int32 = npt.NDArray[np.int32]


def publish(
    store: Store,
    *,
    tag: str | None = None,
    allow_stale: bool = False,
    recall: float = indexes.RECALL,
    wait: float | None = None,
) -> Release:
    """Make a release of the store's tables as they are, or return the latest if nothing changed since.

    tag: a further name for it, given once. allow_stale: publish features that are not current too, with the values
    that are there. recall: recall@10 that an approximate index must reach (see `featurestore.indexes`). wait: seconds
    to wait for another writer.

    Raises Stale where a feature is not current or an index below the recall, BadInput for a store without items, a bad
    tag or recall, Conflict for a tag that is taken or a store that is being written.
    """
    with store.lock("publish", wait), files.disk_errors("the release"):
        from featurestore import rederive

        begun = time.monotonic()
        ready = prepare(store, tag, allow_stale, recall)
        if ready.latest and ready.name == ready.latest.name:
            if not ready.unchanged:
                rederive.rebuild(store, ready.name)
            return releases.open(store.root, ready.name)
        name, versions = ready.name, ready.versions
        for table, version in versions.items():
            store.tables.tag(table, f"release-{name}", version)
        manifest = derive(store, ready)
        manifest |= {
            "format": releases.FORMAT,
            "name": name,
            "tag": tag,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "inputs": ready.inputs,
            "definitions": store.definitions_text(),  # what `rollback` brings back, beside the tables
            "lock": defs.entries(store.locked()),
        }
        files.write_json(store.root / "releases" / name / releases.MANIFEST, manifest)
        journal.record(
            store.root,
            "publish",
            release=name,
            tag=tag,
            items=manifest["items"],
            tables=versions,
            seconds=round(time.monotonic() - begun, 3),
        )
        return releases.open(store.root, name)


@dataclass(frozen=True)
class Ready:
    """What a release would be made of, once nothing speaks against it.

    name: the number it would get; the latest's where that is the same, under this tag. versions: of each table.
    recipes: of each published feature, None where it was never resolved. wanted: the index of each. inputs: hash of all
    that. unchanged: the latest is the same, and whole.
    """

    name: str
    versions: dict[str, int]
    recipes: dict[str, Recipe | None]
    wanted: dict[str, Wanted]
    status: dict[str, FeatureStatus]
    inputs: str
    latest: Release | None
    unchanged: bool


def prepare(
    store: Store, tag: str | None, allow_stale: bool, recall: float, *, read_only: bool = False
) -> Ready:
    """Check that a release may be made and say of what; raises as `publish` does, and derives nothing.

    read_only: not even the cache of the status is written.
    """
    found = store.status(read_only=read_only)
    status = {feature.name: feature for feature in found.features}
    definitions = store.definitions
    published = definitions.published
    wanted = {name: Wanted(definitions.get(name).index, recall) for name in published}
    Wanted(recall=recall).check()
    _check(store, found.items, tag, [status[name] for name in published], allow_stale)
    recipes = store.recipes()
    versions = _versions(store, recipes)
    active = {name: recipes.get(name) for name in published}
    inputs = inputs_of(store, versions, active, wanted)
    known = releases.names(store.root)
    latest = releases.open(store.root) if known else None
    if latest and latest.manifest["inputs"] == inputs and tag in (None, latest.tag):
        name, unchanged = latest.name, not latest.verify(content=False)
    elif tag is not None and tag in (release.tag for release in releases.every(store.root)):
        raise Conflict(f"there is a release with the tag '{tag}'", remedy="choose another tag")
    else:
        name, unchanged = f"{int(known[-1]) + 1 if known else 1:04d}", False
    return Ready(name, versions, active, wanted, status, inputs, latest, unchanged)


def inputs_of(
    store: Store, versions: dict[str, int], recipes: dict[str, Recipe | None], wanted: dict[str, Wanted]
) -> str:
    """Hash of what a release is made of."""
    identities = {name: recipe.id if recipe else None for name, recipe in recipes.items()}
    approximate = indexes.identities(store.tables, versions, recipes, wanted)
    made_of = [releases.FORMAT, versions, identities, bm25.RECIPE, *approximate]
    return files.sha256_text(files.canonical_json(made_of))


def derive(store: Store, ready: Ready) -> dict[str, Any]:
    """Make the derived files of a release, or share those that are there; what its manifest says of them."""
    return _Publishing(store, ready).manifest()


def _check(
    store: Store, items: int, tag: str | None, features: list[FeatureStatus], allow_stale: bool
) -> None:
    if items == 0:
        raise BadInput(
            f"{store.root} holds no items to publish", remedy=f"dualview ingest {store.root} ITEMS"
        )
    if tag is not None and (not TAG.fullmatch(tag) or tag == releases.LATEST):
        raise BadInput(
            f"'{tag}' cannot be the tag of a release",
            remedy="a letter, then letters, digits, . _ -; and not 'latest'",
        )
    late = {feature.name: feature for feature in features if _lateness(feature)}
    if late and not allow_stale:
        raise Stale(
            f"not everything is current: {'; '.join(_lateness(f) for f in late.values())}",
            remedy=f"{next_step(store, list(late.values()))}, or publish with --allow-stale",
        )


def _lateness(feature: FeatureStatus) -> str:
    counts = {"missing": feature.missing, "stale": feature.stale, "blocked": feature.blocked}
    said = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
    return f"{feature.name}: {said}" if said else ""


def _versions(store: Store, recipes: dict[str, Recipe]) -> dict[str, int]:
    """The version of every table that belongs to today's state: all but those of recipes that are no longer active,
    and preferences, which are made from a release.
    """
    active = {recipe.table(name) for name, recipe in recipes.items()}
    known = [name for name in store.tables.names() if name != schema.PREFERENCES]
    belong = [name for name in known if "__" not in name or name in active]
    return {name: store.tables.version(name) for name in belong}


class _Publishing:
    """One publish: derives the files of a release from tables at fixed versions."""

    def __init__(self, store: Store, ready: Ready) -> None:
        self.store, self.versions, self.status = store, ready.versions, ready.status
        self.recipes, self.wanted, self.latest = ready.recipes, ready.wanted, ready.latest
        self.shelf = Shelf(store.root / "derived")

    def manifest(self) -> dict[str, Any]:
        items = self._items()
        ids = items[schema.ITEM_ID].combine_chunks()
        features = {name: self._feature(name, recipe, ids) for name, recipe in self.recipes.items()}
        names = np.asarray(ids.to_pylist(), dtype=np.str_)
        events, n_events = self._events()
        words, text = self._words(items)
        return {
            "items": len(ids),
            "events": n_events,
            "tables": self.versions,
            "features": features,
            "order": list(features),  # JSON is written with sorted keys
            "files": {
                "ids": self.shelf.array("ids", names),
                "catalogue": self.shelf.table("catalogue", self._with_texts(items)),
                "events": events,
                **words,
            },
            "text": text,
        }

    def _items(self) -> pa.Table:
        """The live items, sorted by id, with the columns that a release shows."""
        dataset = self.store.tables.dataset(schema.ITEMS, self.versions[schema.ITEMS])
        columns = [n for n in dataset.schema.names if not n.startswith("_") or n == schema.IMAGE_SHA256]
        live = dataset.to_table(columns=columns, filter=f"{schema.DELETED} IS NOT TRUE")
        return live.take(pc.sort_indices(live[schema.ITEM_ID]))

    def _with_texts(self, items: pa.Table) -> pa.Table:
        for name, recipe in self.recipes.items():
            if recipe is None or recipe.value is not ValueKind.TEXT:
                continue
            if recipe.table(name) not in self.versions:
                continue
            if view_name(name) in items.column_names:
                raise BadInput(
                    f"the items have a column '{view_name(name)}', which is where feature '{name}' would stand",
                    remedy="rename the feature or the column",
                )
            dataset = self._table(name, recipe)
            told = dataset.to_table(
                columns=[schema.ITEM_ID, schema.VALUE], filter=f"{schema.STATUS} = '{Status.OK}'"
            )
            at = pc.index_in(items[schema.ITEM_ID], value_set=told[schema.ITEM_ID])
            items = items.append_column(view_name(name), told[schema.VALUE].take(at))
        return items

    def _words(self, items: pa.Table) -> tuple[dict[str, Entry], dict[str, Any]]:
        """The text index over all items: its files, and what the manifest says of it. Kept while no text changes."""
        columns = schema.text_columns(items.schema)
        made = self.shelf.put(
            "text",
            digest([*bm25.RECIPE, columns], items.select(columns)),
            lambda folder: bm25.build(items, columns, folder),
        )
        return {releases.TEXT + name: entry for name, entry in made.files.items()}, made.facts

    def _events(self) -> tuple[Entry, int]:
        """The log, in each user's order. It is as large as the rest and seldom new: taken over while its table is."""
        version = self.versions.get(schema.INTERACTIONS)
        if self.latest and self.latest.manifest["tables"].get(schema.INTERACTIONS) == version:
            entry: Entry = self.latest.manifest["files"]["events"]
            if self.shelf.has(entry):
                return entry, self.latest.n_events
        log = interactions.read_log(self.store.tables, version).select(EVENT_COLUMNS)
        return self.shelf.table("events", log), log.num_rows

    def _table(self, feature: str, recipe: Recipe) -> Any:
        table = recipe.table(feature)
        return self.store.tables.dataset(table, self.versions[table])

    def _feature(self, name: str, recipe: Recipe | None, ids: pa.Array) -> dict[str, Any]:
        """What the manifest says of one feature. ids: of the release, sorted."""
        state = self.status[name]
        coverage = {"missing": state.missing, "stale": state.stale, "blocked": state.blocked}
        if recipe is None or recipe.table(name) not in self.versions:
            nothing = dict.fromkeys(("recipe", "recipe_id", "kind", "dim", "table"))
            return nothing | {"coverage": coverage | {"ok": 0, "no_input": 0, "error": 0}, "files": {}}
        dataset = self._table(name, recipe)
        cells, rows, hashes = _cells(dataset, ids, recipe.table(name))
        found: dict[str, Any] = {"files": {"cells": self.shelf.array("cells", cells)}}
        if recipe.value is ValueKind.TEXT:
            found["column"] = view_name(name)
        else:
            found["files"]["rows"] = self.shelf.array("rows", rows)
            found |= self._matrix(name, recipe, dataset, ids, rows, hashes, found["files"])
        return found | {
            "recipe": recipe.canonical(),
            "recipe_id": recipe.id,
            "kind": str(recipe.value),
            "dim": recipe.dim,
            "table": recipe.table(name),
            "coverage": coverage
            | {c.name.lower(): int((cells == c).sum()) for c in (Cell.OK, Cell.NO_INPUT, Cell.ERROR)},
        }

    def _matrix(
        self,
        name: str,
        recipe: Recipe,
        dataset: Any,
        ids: pa.Array,
        rows: Int32,
        hashes: pa.Array,
        stored: dict[str, Entry],
    ) -> dict[str, Any]:
        """Derive matrix and index, and enter their files into `stored`; returns what the manifest says of the index.

        The matrix depends on nothing but which items have which values, so that is what it is named by; the index also
        on what was wanted of it.
        """
        dim, single = recipe.dim or 0, recipe.value is ValueKind.VECTOR
        key = digest(
            [recipe.id, dim, str(recipe.value)], pa.table({"id": ids.take(pa.array(rows)), "hash": hashes})
        )
        write = _write_vectors if single else _write_lists
        made = self.shelf.put("matrix", key, lambda folder: write(folder, dataset, ids, rows, dim))
        stored |= {file.removesuffix(".npy"): entry for file, entry in made.files.items()}
        if not single:
            return {}
        values = self.store.root / "derived" / stored["values"]["derived"] / "values.npy"
        index_key = digest([*self.wanted[name].identity(len(rows), dim), key], pa.table({}))

        def build(folder: Path) -> dict[str, Any]:
            vectors = np.load(values, mmap_mode="r", allow_pickle=False)
            return indexes.build(folder, np.asarray(vectors), self.wanted[name], name)

        made = self.shelf.put("index", index_key, build)
        stored |= {file.split(".")[0]: entry for file, entry in made.files.items()}
        return {"index": made.facts}


def _cells(dataset: Any, ids: pa.Array, table: str) -> tuple[npt.NDArray[np.uint8], Int32, pa.Array]:
    """The cell of each item (n_items,), the rows that have a value, sorted, and the hashes of their values."""
    read = dataset.to_table(columns=[schema.ITEM_ID, schema.STATUS, schema.VALUE_HASH])
    at = pc.index_in(read[schema.ITEM_ID], value_set=ids)
    read, rows = read.filter(at.is_valid()), at.drop_null().to_numpy()
    if len(np.unique(rows)) != len(rows):
        raise Conflict(
            f"table '{table}' holds an item twice",
            remedy=f"take away the folder tables/{table}.lance and materialize: it is made anew",
        )
    cells = np.full(len(ids), Cell.ABSENT, np.uint8)
    for status, cell in CELLS.items():
        cells[rows[pc.equal(read[schema.STATUS], status).to_numpy()]] = cell
    order = np.argsort(rows, kind="stable")
    order = order[cells[rows[order]] == Cell.OK]
    return cells, rows[order].astype(np.int32), read[schema.VALUE_HASH].take(pa.array(order)).combine_chunks()


def _batches(dataset: Any, ids: pa.Array, rows: Int32) -> Iterator[tuple[npt.NDArray[np.int64], pa.Array]]:
    """The values of the items in `rows`, a batch at a time, with the place of each in `rows`."""
    places = np.full(len(ids), -1, np.int64)
    places[rows] = np.arange(len(rows))
    columns = [schema.ITEM_ID, schema.VALUE]
    for batch in dataset.to_batches(
        columns=columns, filter=f"{schema.STATUS} = '{Status.OK}'", batch_size=READ_ROWS
    ):
        at = pc.index_in(batch.column(0), value_set=ids)
        yield places[at.drop_null().to_numpy()], batch.column(1).filter(at.is_valid())


def _write_vectors(folder: Path, dataset: Any, ids: pa.Array, rows: Int32, dim: int) -> dict[str, Any]:
    values = np.lib.format.open_memmap(folder / "values.npy", "w+", np.float32, (len(rows), dim))
    for places, column in _batches(dataset, ids, rows):
        values[places] = column.flatten().to_numpy().reshape(-1, dim)
    values.flush()
    return {}


def _write_lists(folder: Path, dataset: Any, ids: pa.Array, rows: Int32, dim: int) -> dict[str, Any]:
    """Two passes: how many vectors each item has, then the vectors, each to its place."""
    offsets = np.zeros(len(rows) + 1, np.int64)
    for places, column in _batches(dataset, ids, rows):
        offsets[places + 1] = column.value_lengths().to_numpy()
    np.cumsum(offsets, out=offsets)
    np.save(folder / "offsets.npy", offsets)
    values = np.lib.format.open_memmap(folder / "values.npy", "w+", np.float32, (int(offsets[-1]), dim))
    for places, column in _batches(dataset, ids, rows):
        counts = column.value_lengths().to_numpy()
        first = np.cumsum(counts) - counts  # of each item, within the batch
        into = np.repeat(offsets[places] - first, counts) + np.arange(counts.sum())
        values[into] = column.flatten().flatten().to_numpy().reshape(-1, dim)
    values.flush()
    return {}
