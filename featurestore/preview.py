"""What a release would be, told before it is made; nothing is written and no lock is taken."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore import items, publish, schema
from featurestore.indexes import RECALL, Wanted
from featurestore.schema import ValueKind

if TYPE_CHECKING:
    from featurestore.publish import Ready
    from featurestore.recipe import Recipe
    from featurestore.release import Release
    from featurestore.store import Store

FLOAT = 4  # bytes


@dataclass(frozen=True)
class FeaturePlan:
    """One feature of the release. values: items that have one. recipe, before: short hashes, of now and of the latest.

    bytes: to be derived, about; 0 where the latest release's files serve, None where it cannot be told.
    """

    feature: str
    recipe: str | None
    before: str | None
    values: int
    not_current: int
    bytes: int | None


@dataclass(frozen=True)
class PublishPlan:
    """release: the number it would get, or the latest's where nothing changed since (`unchanged`), but that files of it
    are gone or cut short (`damaged`).

    added, removed: items against the latest release. events: of the log. bytes: to be derived in all, about; of files
    whose size cannot be told beforehand, None.
    """

    release: str
    unchanged: bool
    damaged: bool
    items: int
    added: int
    removed: int
    events: int
    tables_changed: list[str]
    features: list[FeaturePlan]
    bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        return {"dry_run": True} | asdict(self)


def publication(
    store: Store, *, tag: str | None = None, allow_stale: bool = False, recall: float = RECALL
) -> PublishPlan:
    """What `publish` would make of today's tables. Raises as it does: Stale, BadInput, Conflict."""
    ready = publish.prepare(store, tag, allow_stale, recall, read_only=True)
    latest = ready.latest
    then = latest.manifest["tables"] if latest else {}
    changed = sorted(name for name in {*then, *ready.versions} if then.get(name) != ready.versions.get(name))
    ids = _live_ids(store)
    before = latest.ids if latest else np.empty(0, np.str_)
    same_items = latest is not None and np.array_equal(ids, before)
    features = [_feature(ready, name, same_items) for name in ready.recipes]
    log = schema.INTERACTIONS
    events = store.tables.count(log, ready.versions[log]) if log in ready.versions else 0
    parts = [feature.bytes for feature in features]
    if schema.ITEMS in changed:
        size = _like(latest, "catalogue", len(before), len(ids))
        parts.append(store.tables.disk(schema.ITEMS) if size is None else size)
    if log in changed and events:
        size = _like(latest, "events", latest.n_events if latest else 0, events)
        parts.append(store.tables.disk(log) if size is None else size)
    return PublishPlan(
        release=ready.name,
        unchanged=ready.unchanged,
        damaged=latest is not None and ready.name == latest.name and not ready.unchanged,
        items=len(ids),
        added=len(np.setdiff1d(ids, before, assume_unique=True)),
        removed=len(np.setdiff1d(before, ids, assume_unique=True)),
        events=events,
        tables_changed=changed,
        features=features,
        bytes=None if None in parts else sum(part or 0 for part in parts),
    )


def _live_ids(store: Store) -> np.ndarray[Any, np.dtype[np.str_]]:
    found = items.live(store.tables, columns=[schema.ITEM_ID])[schema.ITEM_ID]
    return np.sort(np.asarray(found.to_pylist(), dtype=np.str_))


def _feature(ready: Ready, name: str, same_items: bool) -> FeaturePlan:
    recipe, state = ready.recipes[name], ready.status[name]
    facts = ready.latest.manifest["features"].get(name) if ready.latest else None
    table = recipe.table(name) if recipe else ""
    size: int | None = 0
    if recipe is not None and table in ready.versions:
        then = ready.latest.manifest["tables"].get(table) if ready.latest else None
        kept = bool(facts and facts["files"]) and then == ready.versions[table] and same_items
        size = 0 if kept else _bytes(recipe, state.current, ready.wanted[name])
    before = facts["recipe_id"] if facts else None
    return FeaturePlan(
        feature=name,
        recipe=recipe.short if recipe else None,
        before=before[:8] if before else None,
        values=state.current,
        not_current=state.missing + state.stale + state.blocked,
        bytes=size,
    )


def _bytes(recipe: Recipe, values: int, wanted: Wanted) -> int | None:
    """Of the matrix and its index: a second copy if exact, half a byte for every two numbers and a length if not."""
    if recipe.value is not ValueKind.VECTOR:
        return (
            0 if recipe.value is ValueKind.TEXT else None
        )  # a column of the catalogue; unknown how many vectors
    matrix = FLOAT * values * (recipe.dim or 0)
    return matrix + (matrix // 16 + FLOAT * values if wanted.approximate(values) else matrix)


def _like(latest: Release | None, name: str, then: int, now: int) -> int | None:
    """Size of a file of `now` rows, judged by the latest release's, which holds `then`; None where there is none."""
    if latest is None or not then:
        return None
    return int(latest.manifest["files"][name]["bytes"] / then * now)
