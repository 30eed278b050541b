"""Where a store stands: what of each feature is current, counted once for each state of the tables.

The counts of a state are kept in STORE/cache/status.json under the versions of all tables, so that a store in which
nothing was written is not scanned again. Neither torch nor lancedb is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore import definitions as defs
from featurestore import features, files, pending, release, remedies, schema
from featurestore.definitions import Definitions, FeatureDef, Locked
from featurestore.features import Counts

if TYPE_CHECKING:
    from featurestore.store import Store

DRIFT = 0.1  # share of items unknown to a fit from which `status` says so
PARTS = ("tables", "derived", "artifacts", "releases", "runs", "cache")
WALKED = 50_000  # files whose sizes are added up, at most
UNRESOLVED = "never resolved"

Judge = Callable[[FeatureDef], str | None]


@dataclass(frozen=True)
class FeatureStatus:
    """Where one feature stands. Counts are of live items; `current` leaves `no_input` out. disk: bytes."""

    name: str
    recipe: str | None
    current: int
    no_input: int
    missing: int
    stale: int
    failed: int
    blocked: int
    disk: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoreStatus:
    items: int
    items_without_image: int
    events: int
    quarantined: int
    release: str | None  # the latest
    releases: int
    features: list[FeatureStatus]
    disk: dict[str, int] = field(default_factory=dict)  # bytes of each part of the store's folder
    preferences: int = 0  # states of users' preferences, of all recipes
    pending: str | None = None  # what to tell of a verb that was begun and has not ended

    @property
    def current(self) -> bool:
        """Nothing is missing, stale or blocked."""
        return not any(f.missing or f.stale or f.blocked for f in self.features)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"current": self.current}


def read(store: Store, *, read_only: bool = False, judge: Judge | None = None) -> StoreStatus:
    """What is current. Unchanged tables are not scanned again; neither torch nor lancedb is loaded.

    read_only: what is counted is not kept for the next call. judge: what upper floors know against a feature's active
    recipe, such as an encoder of a newer version or a model folder that changed; None for nothing.
    """
    reasons = _reasons(store, judge)
    return replace(
        _counted(store, reasons, read_only), disk=_disk(store.root), pending=pending.notice(store.root)
    )


def _counted(store: Store, reasons: dict[str, str], read_only: bool) -> StoreStatus:
    """What is current, from the cache where nothing changed since."""
    key = _key(store, reasons)
    cache = store.root / "cache" / "status.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # no cache, or not one of ours: made anew
        kept = files.read_json(cache)
        if kept["key"] == key:
            made = kept["status"]
            made.pop("current")
            parts = [FeatureStatus(**(f | {"notes": tuple(f["notes"])})) for f in made.pop("features")]
            return StoreStatus(features=parts, **made)
    status = _scan(store, reasons)
    if read_only:
        return status
    with suppress(OSError):  # a store that may only be read has no cache
        files.write_json(cache, {"key": key, "status": status.to_dict()})
    return status


def next_step(store: Store, late: list[FeatureStatus]) -> str:
    """The command that makes current what is not."""
    declared = [store.definitions.get(feature.name) for feature in late]
    if not declared or any(feature.kind != schema.IMPORTED for feature in declared):
        return f"dualview materialize {store.root}"
    first, value = declared[0], declared[0].options.get("value")
    return f"{remedies.fill(store.root, first.name, first.kind, value)}, with values made anew"


def _reasons(store: Store, judge: Judge | None) -> dict[str, str]:
    """feature -> why its active recipe is not what is asked for today; features that are as asked for are left out."""
    definitions, locked = store.definitions, store.locked()
    found: dict[str, str] = {}
    for feature in definitions.ordered():
        reason = judge(feature) if judge else None
        reason = reason or outdated(store.root, definitions, locked, feature.name)
        late = [above for above in definitions.upstream(feature.name) if above in found]
        if reason is None and late:
            reason = f"'{late[0]}', which it reads: {found[late[0]]}"
        if reason is not None:
            found[feature.name] = reason
    return found


def _disk(root: Path) -> dict[str, int]:
    """Bytes of each part of the store; a walk that is given up beyond WALKED files, counted so far."""
    sizes = dict.fromkeys(PARTS, 0)
    left = WALKED
    for part in PARTS:
        for folder, _, names in os.walk(root / part):
            for name in names[:left]:
                with suppress(OSError):  # a writer's passing file
                    sizes[part] += os.lstat(os.path.join(folder, name)).st_size
            left -= len(names)
            if left <= 0:
                return sizes
    return sizes


def _key(store: Store, reasons: dict[str, str]) -> str:
    versions = {name: store.tables.version(name) for name in store.tables.names()}
    locked = store.root / defs.LOCK_FILE
    shape = [f.name for f in (*fields(StoreStatus), *fields(FeatureStatus))]  # of another version: not ours
    parts = [
        shape,
        versions,
        [feature.model_dump(mode="json") for feature in store.definitions],
        files.sha256_file(locked) if locked.exists() else None,
        [sha256_of(store.root / name) for each in store.locked().values() for name in sorted(each.files)],
        release.names(store.root),
        reasons,
    ]
    return files.sha256_text(files.canonical_json(parts))


def _scan(store: Store, reasons: dict[str, str]) -> StoreStatus:
    items = without = 0
    if store.tables.exists(schema.ITEMS):
        table = store.tables.dataset(schema.ITEMS)
        items = table.count_rows(f"{schema.DELETED} IS NOT TRUE")
        without = table.count_rows(f"{schema.DELETED} IS NOT TRUE AND {schema.IMAGE_SHA256} IS NULL")
    counted = {
        name: store.tables.count(name) if store.tables.exists(name) else 0
        for name in (schema.INTERACTIONS, schema.QUARANTINE, schema.PREFERENCES)
    }
    found = release.names(store.root)
    definitions, locked = store.definitions, store.locked()
    parts: dict[str, FeatureStatus] = {}
    for feature in definitions.ordered():
        above = [parts[name] for name in definitions.upstream(feature.name)]
        parts[feature.name] = _feature(store, feature, locked, items, reasons.get(feature.name), above)
    return StoreStatus(
        items=items,
        items_without_image=without,
        events=counted[schema.INTERACTIONS],
        quarantined=counted[schema.QUARANTINE],
        release=found[-1] if found else None,
        releases=len(found),
        features=[parts[feature.name] for feature in definitions],
        preferences=counted[schema.PREFERENCES],
    )


def _feature(
    store: Store,
    feature: FeatureDef,
    locked: dict[str, Locked],
    items: int,
    reason: str | None,
    above: list[FeatureStatus],
) -> FeatureStatus:
    """reason: why the active recipe will be made anew. above: where the features stand that this one reads."""
    name, notes = feature.name, []
    if reason is not None:
        # of several inputs, the one that most items wait for: at least so many are blocked
        waiting = max((f.missing + f.stale + f.failed + f.blocked for f in above), default=0)
        counted = Counts(missing=items - waiting, blocked=waiting)
        if reason != UNRESOLVED:
            notes.append(reason)
    else:
        counted = features.counts(
            store.tables, {other: entry.recipe for other, entry in locked.items()}, name
        )
        fitted = locked[name].fitted
        if fitted and items and abs(items - int(fitted.get("items", items))) > DRIFT * items:
            notes.append(
                f"fitted on {fitted['items']:,} items, there are {items:,} now; "
                f"to fit again: dualview fit {store.root} {fitted.get('same_fit', name)} --refit"
            )
    if feature.kind == schema.IMPORTED and (counted.missing or counted.stale):
        notes.append(
            "its values were imported: a new file of them makes items current that were added or edited since"
        )
    recipe = locked[name].recipe if name in locked else None
    table = recipe.table(name) if recipe else ""
    return FeatureStatus(
        name=name,
        recipe=recipe.short if recipe else None,
        disk=store.tables.disk(table) if recipe and store.tables.exists(table) else 0,
        notes=tuple(notes),
        **asdict(counted),
    )


def outdated(root: Path, definitions: Definitions, locked: dict[str, Locked], feature: str) -> str | None:
    """Why the active recipe is not what features.toml asks for today, or None if it is. root: of the store."""
    if feature not in locked:
        return UNRESOLVED
    if locked[feature].definition_hash != definitions.hash(feature):
        imported = definitions.get(feature).kind == schema.IMPORTED
        return (
            f"features.toml changed since; {'an import' if imported else 'materialize'} makes the new recipe"
        )
    for name, sha256 in locked[feature].files.items():
        if sha256_of(root / name) != sha256:
            return f"{name} changed since; materialize makes the new recipe"
    for above, recipe_id in locked[feature].recipe.upstream:
        if above not in locked or locked[above].recipe.id != recipe_id:
            return f"'{above}', which it reads, has a new recipe"
        if (reason := outdated(root, definitions, locked, above)) is not None:
            return f"'{above}', which it reads: {reason}"
    return None


def sha256_of(path: Path) -> str | None:
    """None where the file is gone."""
    try:
        return files.sha256_file(path)
    except OSError:
        return None
