"""`rollback`: the tables, features.toml and features.lock.json of a store as they were at a release, as new versions.

Nothing is lost: each table gets a new version with the old content, so every release stays as it is and the store can
be rolled forward to any of them. What no release holds is refused, or given up knowingly with `discard`. The store is
then published, so that "latest" serves the old content; derived files are shared with the release they came from.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from featurestore import definitions as defs
from featurestore import files, journal, pending, schema, status
from featurestore import release as releases
from featurestore.errors import BadInput, Conflict, Stale
from featurestore.release import Release

if TYPE_CHECKING:
    from featurestore.store import Store

COMMON = (schema.ITEMS, schema.IMAGES, schema.INTERACTIONS, schema.QUARANTINE)


@dataclass(frozen=True)
class RollbackReport:
    """What a rollback did, or with `dry_run` would do.

    tables: those that got a new version. unpublished: tables with changes that no release holds, which were given up
    (or, in a dry run, would have to be). kept_as: the file that keeps a features.toml that was replaced. published: the
    release that serves the old content. prompts: files of prompts that are not what they were then, which stay as they
    are: while they do, what was written by them is not current.
    """

    release: str
    tables: list[str]
    unpublished: list[str]
    kept_as: str | None
    published: str | None
    prompts: list[str]
    dry_run: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def rollback(
    store: Store, release: str, *, discard: bool = False, dry_run: bool = False, wait: float | None = None
) -> RollbackReport:
    """Make the store what it was at `release` (a name, a tag or "latest"), and publish that.

    discard: give up what was written since the latest release. Killed in the middle, it is finished by running it
    again, or by the next verb that writes.

    Raises NotFound, Conflict where something is not published or the store is being written, BadInput for a release
    that does not hold what the recipes of its features were, or of which every item was forgotten.
    """
    if dry_run:
        chosen = releases.open(store.root, release)
        return _report(chosen.name, _intent(store, chosen), dry_run=True)
    going_on = pending.read(store.root)
    with store.lock("rollback", wait):  # which finishes what was begun
        chosen = releases.open(store.root, release)
        intent = _intent(store, chosen)
        if intent["unpublished"] and not discard:
            raise Conflict(
                f"no release holds what was written since: {', '.join(intent['unpublished'])}",
                remedy="publish first, or give it up: --discard",
            )
        report = _report(chosen.name, intent, dry_run=False)
        if report.tables or intent["changed"]:
            pending.begin(store.root, "rollback", intent)
            finish(store, intent)
        elif going_on is not None and going_on.get("release") == chosen.name:
            report = _report(chosen.name, going_on, dry_run=False)
        made = store.publish(allow_stale=True, recall=chosen.recall)
    return replace(report, published=made.name)


def finish(store: Store, intent: dict[str, Any]) -> None:
    """Do what the intent says and is not done yet. The caller holds the writer's lock."""
    for name, (before, version) in intent["tables"].items():
        if store.tables.version(name) == before:
            store.tables.restore(name, version)
    for name, before in intent["clear"].items():
        if store.tables.version(name) == before:
            store.tables.delete(name, "true")
    if intent["kept_as"] and store.definitions_text() != intent["definitions"]:
        files.write_text(store.root / intent["kept_as"], store.definitions_text())
        files.write_text(store.root / defs.FILE, intent["definitions"])
    defs.Lock(store.root / defs.LOCK_FILE).write(intent["lock"])
    journal.record(store.root, "rollback", release=intent["release"], tables=sorted(intent["tables"]))
    with suppress(
        BadInput, Stale
    ):  # `rollback` publishes again, and says why it cannot; nobody else is held up by it
        store.publish(allow_stale=True, recall=intent["recall"])  # as then, with what was not current
    pending.done(store.root)


def _intent(store: Store, chosen: Release) -> dict[str, Any]:
    """All that is to be done: version of each table before and to go back to, tables that were not there yet, files."""
    if not chosen.n_items:
        raise BadInput(
            f"release {chosen.name} holds no items any more: all of them were forgotten",
            remedy="choose another release: dualview releases",
        )
    pinned: dict[str, int] = chosen.manifest["tables"]
    today = {name: store.tables.version(name) for name in store.tables.names()}
    lost = sorted(name for name in pinned if name not in today)
    if lost:
        raise BadInput(
            f"release {chosen.name} was made of tables that are gone: {', '.join(lost)}",
            remedy="a copy that holds releases only can be served from, not rolled back",
        )
    text = chosen.manifest.get("definitions", store.definitions_text())
    lock = chosen.manifest["lock"] if "lock" in chosen.manifest else _lock_of_recipes(store, chosen)
    return {
        "release": chosen.name,
        "tables": {
            n: [today[n], version]
            for n, version in pinned.items()
            if not store.tables.same(n, today[n], version)
        },
        "clear": {n: today[n] for n in COMMON if n in today and n not in pinned and store.tables.count(n)},
        "definitions": text,
        "kept_as": _free_name(store, chosen.name) if text != store.definitions_text() else None,
        "lock": lock,
        "changed": text != store.definitions_text() or lock != defs.entries(store.locked()),
        "unpublished": _unpublished(store, today),
        "prompts": sorted(
            name
            for entry in lock.values()
            for name, sha256 in entry.get("files", {}).items()
            if status.sha256_of(store.root / name) != sha256
        ),
        "recall": chosen.recall,
    }


def _lock_of_recipes(store: Store, chosen: Release) -> dict[str, Any]:
    """Today's lock, for a release whose manifest has none, if the recipes it published are in it."""
    locked = store.locked()
    for name, facts in chosen.manifest["features"].items():
        if facts["recipe"] is not None and (
            name not in locked or locked[name].recipe.id != facts["recipe_id"]
        ):
            raise BadInput(
                f"the recipe of '{name}' has changed since release {chosen.name}, which was made by an earlier version "
                "and does not hold features.toml",
                remedy="put the old definition back into features.toml and materialize",
            )
    return defs.entries(locked)


def _free_name(store: Store, release: str) -> str:
    """Where today's features.toml is kept: a name that no earlier rollback took."""
    names = (
        f"{defs.FILE}.before-rollback-{release}{end}" for end in ("", *(f"-{n}" for n in range(2, 1000)))
    )
    return next(name for name in names if not (store.root / name).exists())


def _unpublished(store: Store, today: dict[str, int]) -> list[str]:
    """The tables of today's state whose newest version the latest release does not hold."""
    held = releases.open(store.root).manifest["tables"]
    active = {recipe.table(name) for name, recipe in store.recipes().items()}
    return [
        name
        for name, version in today.items()
        if ("__" not in name or name in active)
        and name != schema.PREFERENCES
        and held.get(name) != version
        and (name in held or store.tables.count(name))
    ]


def _report(release: str, intent: dict[str, Any], *, dry_run: bool) -> RollbackReport:
    return RollbackReport(
        release=release,
        tables=sorted([*intent["tables"], *intent["clear"]]),
        unpublished=intent["unpublished"],
        kept_as=intent["kept_as"],
        published=None,
        prompts=intent.get("prompts", []),
        dry_run=dry_run,
    )
