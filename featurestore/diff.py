"""`diff`: what is other in one release than in another, or in today's tables (TODAY) than in a release.

It is read from the tables at the versions that the two pin: items by their content hashes, events by their keys, cells
by their value hashes. A table that both pin at one version is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore import release as releases
from featurestore import schema
from featurestore.recipe import Recipe

if TYPE_CHECKING:
    from featurestore.store import Store
    from featurestore.tables import Tables

TODAY = "today"  # in the place of a release's name: the tables as they are now
EXAMPLES = 5  # items that are named of each kind


@dataclass(frozen=True)
class ItemChange:
    item_id: str
    columns: list[str]


@dataclass(frozen=True)
class ItemsDiff:
    """Live items. columns: in how many of the changed items each column differs. Examples come in order of ids."""

    before: int = 0
    after: int = 0
    added: int = 0
    removed: int = 0
    changed: int = 0
    columns: dict[str, int] = field(default_factory=dict)
    added_examples: list[str] = field(default_factory=list)
    removed_examples: list[str] = field(default_factory=list)
    changed_examples: list[ItemChange] = field(default_factory=list)


@dataclass(frozen=True)
class EventsDiff:
    """changed: events of which another value (a rating) is known now."""

    before: int = 0
    after: int = 0
    added: int = 0
    removed: int = 0
    changed: int = 0


@dataclass(frozen=True)
class FeatureDiff:
    """One feature. change: "added", "dropped", "same recipe" or "new recipe".

    recipe_changes: part of the recipe ("model", "option dim", "code_version", "inputs", ...) -> its value before and
    after. values_*: items that gained or lost a value; recomputed: that have another value under the same recipe.
    """

    feature: str
    change: str
    recipe_before: str | None
    recipe_after: str | None
    recipe_changes: dict[str, list[Any]] = field(default_factory=dict)
    values_added: int = 0
    values_removed: int = 0
    recomputed: int = 0

    @property
    def same(self) -> bool:
        return self.change == "same recipe" and not (
            self.values_added or self.values_removed or self.recomputed
        )


@dataclass(frozen=True)
class ReleaseDiff:
    """What came about between `before` and `after`, names of releases or "today"."""

    before: str
    after: str
    items: ItemsDiff
    events: EventsDiff
    features: list[FeatureDiff]

    @property
    def same(self) -> bool:
        """Whether items, events and features are the same in both."""
        items, events = self.items, self.events
        counts = (items.added, items.removed, items.changed, events.added, events.removed, events.changed)
        return not any(counts) and all(feature.same for feature in self.features)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"same": self.same}


@dataclass(frozen=True)
class _Side:
    name: str
    tables: Mapping[str, int]
    recipes: Mapping[str, Recipe]  # of features that have a table


def diff(store: Store, before: str, after: str = releases.LATEST) -> ReleaseDiff:
    """What is other in `after` than in `before`; each a release's name or tag, "latest" or "today".

    Raises NotFound for an unknown release, and for one of whose tables only a copy of the releases is there.
    """
    old, new = _side(store, before), _side(store, after)
    both = list(dict.fromkeys([*new.recipes, *old.recipes]))
    return ReleaseDiff(
        old.name,
        new.name,
        _items(store.tables, old, new),
        _events(store.tables, old, new),
        [_feature(store.tables, name, old, new) for name in both],
    )


def _side(store: Store, name: str) -> _Side:
    if name == TODAY:
        tables = {table: store.tables.version(table) for table in store.tables.names()}
        recipes = store.recipes()
        declared = {n: r for n, r in recipes.items() if n in store.definitions.features}
        return _Side(TODAY, tables, {n: r for n, r in declared.items() if r.table(n) in tables})
    manifest = store.release(name).manifest
    kept = {
        feature: Recipe.model_validate(facts["recipe"])
        for feature, facts in manifest["features"].items()
        if facts["recipe"]
    }
    kept |= {
        feature: Recipe.model_validate(entry["recipe"]) for feature, entry in manifest.get("lock", {}).items()
    }
    tables = manifest["tables"]
    return _Side(manifest["name"], tables, {n: r for n, r in kept.items() if r.table(n) in tables})


def _items(tables: Tables, old: _Side, new: _Side) -> ItemsDiff:
    versions = [side.tables.get(schema.ITEMS) for side in (old, new)]
    if versions[0] == versions[1]:
        count = _live(tables, versions[0], [schema.ITEM_ID]).num_rows
        return ItemsDiff(count, count)
    before, after = (
        _live(tables, version, [schema.ITEM_ID, schema.CONTENT_HASH]).sort_by(schema.ITEM_ID)
        for version in versions
    )
    added, removed, there, here = _joined(before[schema.ITEM_ID], after[schema.ITEM_ID])
    hashes = [side[schema.CONTENT_HASH].take(at) for side, at in ((before, there), (after, here))]
    differs = pc.invert(pc.fill_null(pc.equal(*hashes), False))
    changed = after[schema.ITEM_ID].take(here).filter(differs)
    columns, examples = _changed_columns(tables, versions, changed)
    return ItemsDiff(
        before=before.num_rows,
        after=after.num_rows,
        added=len(added),
        removed=len(removed),
        changed=len(changed),
        columns=columns,
        added_examples=after[schema.ITEM_ID].take(added[:EXAMPLES]).to_pylist(),
        removed_examples=before[schema.ITEM_ID].take(removed[:EXAMPLES]).to_pylist(),
        changed_examples=examples,
    )


def _live(tables: Tables, version: int | None, columns: list[str]) -> pa.Table:
    if version is None:
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    return tables.read(schema.ITEMS, columns, f"{schema.DELETED} IS NOT TRUE", version)


def _joined(before: pa.ChunkedArray, after: pa.ChunkedArray) -> tuple[pa.Array, pa.Array, pa.Array, pa.Array]:
    """Places of keys that only `after` has, that only `before` has, and of those of both: in `before`, in `after`."""
    at = pc.index_in(after, value_set=before)
    known = at.is_valid()
    gone = pc.invert(pc.is_in(before, value_set=after))
    whole = at.combine_chunks()
    return _true(pc.invert(known)), _true(gone), whole.drop_null(), _true(known)


def _true(mask: pa.ChunkedArray) -> pa.Array:
    return pa.array(np.flatnonzero(mask.to_numpy()), pa.int64())


def _changed_columns(
    tables: Tables, versions: list[int | None], changed: pa.ChunkedArray
) -> tuple[dict[str, int], list[ItemChange]]:
    """How many of the changed items differ in each column, and the first few items with their columns."""
    if not len(changed):
        return {}, []
    wanted = changed.combine_chunks()
    rows = []
    for version in versions:
        dataset = tables.dataset(schema.ITEMS, version)
        shown = [n for n in dataset.schema.names if not n.startswith("_") or n == schema.IMAGE_SHA256]
        whole = dataset.to_table(columns=shown)
        rows.append(whole.take(pc.index_in(wanted, value_set=whole[schema.ITEM_ID])))
    before, after = rows
    names = list(dict.fromkeys([*after.column_names, *before.column_names]))
    differ = {name: _differing(name, before, after) for name in names if name != schema.ITEM_ID}
    shown_as = {name: "image content" if name == schema.IMAGE_SHA256 else name for name in differ}
    counts = {shown_as[name]: int(mask.sum()) for name, mask in differ.items() if mask.any()}
    examples = [
        ItemChange(item, [shown_as[name] for name, mask in differ.items() if mask[place]])
        for place, item in enumerate(wanted[:EXAMPLES].to_pylist())
    ]
    return counts, examples


def _differing(name: str, before: pa.Table, after: pa.Table) -> npt.NDArray[np.bool_]:
    """(n,) whether the two differ in a column; one that a side lacks is NULL there."""
    columns = [side[name] if name in side.column_names else pa.nulls(len(side)) for side in (before, after)]
    if any(pa.types.is_nested(c.type) or pa.types.is_null(c.type) for c in columns):
        left, right = (column.to_pylist() for column in columns)
        return np.array([one != other for one, other in zip(left, right, strict=True)], np.bool_)
    equal = pc.fill_null(pc.equal(*columns), False).to_numpy()
    null = [column.is_null().to_numpy() for column in columns]
    return np.asarray(~(equal | (null[0] & null[1])))


def _events(tables: Tables, old: _Side, new: _Side) -> EventsDiff:
    versions = [side.tables.get(schema.INTERACTIONS) for side in (old, new)]
    if versions[0] == versions[1]:
        count = tables.count(schema.INTERACTIONS, versions[0]) if versions[0] is not None else 0
        return EventsDiff(count, count)
    before, after = (_log(tables, version) for version in versions)
    added, removed, there, here = _joined(before[schema.EVENT_ID], after[schema.EVENT_ID])
    values = (before.select([schema.VALUE]).take(there), after.select([schema.VALUE]).take(here))
    changed = _differing(schema.VALUE, *values).sum()
    return EventsDiff(before.num_rows, after.num_rows, len(added), len(removed), int(changed))


def _log(tables: Tables, version: int | None) -> pa.Table:
    columns = [schema.EVENT_ID, schema.VALUE]
    if version is None:
        return pa.table(
            {schema.EVENT_ID: pa.array([], pa.string()), schema.VALUE: pa.array([], pa.float64())}
        )
    return tables.read(schema.INTERACTIONS, columns, version=version)


def _feature(tables: Tables, name: str, old: _Side, new: _Side) -> FeatureDiff:
    was, now = old.recipes.get(name), new.recipes.get(name)
    before, after = _values(tables, name, old), _values(tables, name, new)
    if was is None or now is None:
        return FeatureDiff(
            name,
            "dropped" if now is None else "added",
            was.short if was else None,
            now.short if now else None,
            values_added=after.num_rows,
            values_removed=before.num_rows,
        )
    added, removed, there, here = _joined(before[schema.ITEM_ID], after[schema.ITEM_ID])
    same = was.id == now.id
    equal = pc.equal(before[schema.VALUE_HASH].take(there), after[schema.VALUE_HASH].take(here))
    return FeatureDiff(
        name,
        "same recipe" if same else "new recipe",
        was.short,
        now.short,
        recipe_changes={} if same else recipe_changes(was, now),
        values_added=len(added),
        values_removed=len(removed),
        recomputed=len(here) - int(pc.sum(equal).as_py() or 0) if same else len(here),
    )


def _values(tables: Tables, feature: str, side: _Side) -> pa.Table:
    """item_id and value_hash of the live items that have a value."""
    columns = [schema.ITEM_ID, schema.VALUE_HASH]
    recipe = side.recipes.get(feature)
    if recipe is None:
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    table = recipe.table(feature)
    cells = tables.read(table, columns, f"{schema.STATUS} = '{schema.Status.OK}'", side.tables[table])
    live = _live(tables, side.tables.get(schema.ITEMS), [schema.ITEM_ID])[schema.ITEM_ID]
    return cells.filter(pc.is_in(cells[schema.ITEM_ID], value_set=live))


def recipe_changes(was: Recipe, now: Recipe) -> dict[str, list[Any]]:
    """Part -> [before, after] of each part in which two recipes differ; None where one has no such option."""
    old, new = _parts(was), _parts(now)
    return {
        part: [old.get(part), new.get(part)]
        for part in dict.fromkeys([*old, *new])
        if old.get(part) != new.get(part)
    }


def _parts(recipe: Recipe) -> dict[str, Any]:
    found = recipe.canonical()
    options = {f"option {name}": value for name, value in found.pop("options").items()}
    fitted = {f"artifact {name}": sha256 for name, sha256 in found.pop("artifacts").items()}
    model = {f"model {name}": value for name, value in (found.pop("model") or {}).items()}
    return found | model | options | fitted
