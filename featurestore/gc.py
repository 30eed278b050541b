"""`gc`: take away what nothing needs, and say how much that was.

What is needed: every table's newest version and those that releases pin, the derived files and artifacts that a release
or the lock names, whatever runs hold. The rest is listed first, kind by kind; a dry run ends there, so that it says
exactly what a real one frees. Then it goes, in an order in which a kill never leaves a manifest that names a missing
file: the manifest first, then its tags, then what only it named. Running it again goes on where it was killed.

Releases go only where that is asked for (`keep`), and tables of recipes that are no longer active likewise
(`old_recipes`): they may have cost money.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore import failpoints, journal, preferences, schema, versions
from featurestore import release as releases
from featurestore.errors import BadInput
from featurestore.release import Release

if TYPE_CHECKING:
    from featurestore.store import Store

FRESH_SECONDS = 86_400.0  # for which a file of somebody who holds no lock is taken to be in the making
INTERRUPTED = "interrupted writes"
SPOOL = "spool"  # the folder of describers' answers that are in no table yet, a file a table


@dataclass(frozen=True)
class Waste:
    """Something that nothing needs. remove: takes it away, or what a kill left of it."""

    kind: str
    bytes: int
    remove: Callable[[], None]
    count: int = 1


@dataclass(frozen=True)
class Freed:
    kind: str
    count: int
    bytes: int


@dataclass(frozen=True)
class GcReport:
    """What was freed, or with `dry_run` would be, by kind.

    releases: those that went. kept: those that were old enough to go, and what needs them.
    """

    freed: list[Freed]
    releases: list[str]
    kept: dict[str, str]
    dry_run: bool

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.freed)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"bytes": self.bytes}


def collect(
    store: Store,
    *,
    keep: int | None = None,
    old_recipes: bool = False,
    dry_run: bool = False,
    needed: Callable[[], dict[str, str]] = dict,
    others: Callable[[list[Release]], Sequence[Waste]] = lambda _: (),
    grace: float = versions.GRACE_SECONDS,
    wait: float | None = None,
) -> GcReport:
    """Free what nothing needs.

    keep: releases older than the newest so many go too, but for tagged ones and those that `needed` gives, each with
    what needs it. old_recipes: tables of recipes that neither the lock nor a release uses go too. others: what the
    floors above have to add, given the releases that stay. grace: seconds for which a table's version that was the
    newest stays, for readers in the middle of a query.

    Raises BadInput for a bad `keep`, Conflict for a store that is being written.
    """
    if keep is not None and keep < 1:
        raise BadInput(f"keep is {keep}; the latest release always stays", remedy="keep 1 or more")
    if dry_run:
        return _report(*_plan(store, keep, old_recipes, needed(), others, grace), dry_run=True)
    with store.lock("gc", wait):
        waste, going, kept = _plan(store, keep, old_recipes, needed(), others, grace)
        for each in waste:
            each.remove()
        report = _report(waste, going, kept, dry_run=False)
        if waste:
            freed = {each.kind: {"count": each.count, "bytes": each.bytes} for each in report.freed}
            journal.record(store.root, "gc", bytes=report.bytes, freed=freed, releases=going)
    return report


def discard(path: Path) -> None:
    """Take a file or folder away; a folder is renamed first, so that one that is half gone is never taken for whole."""
    if path.is_dir() and not path.is_symlink():
        aside = path if path.name.endswith(".part") else path.with_name(f".{path.name}.part")
        with failpoints.commit(f"remove {path.name}"):
            if aside != path:
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
    else:
        with failpoints.commit(f"remove {path.name}"):
            path.unlink(missing_ok=True)


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder. One that a writer takes away meanwhile does not count."""
    total = 0
    for file in _below(path):
        with suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def fresh(path: Path) -> bool:
    """Whether `path` or something under it was written within the last day; what is gone by now was just in use."""
    try:
        newest = max(file.stat().st_mtime for file in (path, *_below(path)))
    except FileNotFoundError:
        return True
    return newest > time.time() - FRESH_SECONDS


def _below(path: Path) -> Iterator[Path]:
    """A file itself, or all files in a folder. Unlike rglob it bears with folders that go away meanwhile."""
    if path.is_file():
        yield path
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)


def _report(waste: list[Waste], going: list[str], kept: dict[str, str], *, dry_run: bool) -> GcReport:
    kinds = dict.fromkeys(each.kind for each in waste)
    freed = [
        Freed(
            kind,
            sum(each.count for each in waste if each.kind == kind),
            sum(each.bytes for each in waste if each.kind == kind),
        )
        for kind in kinds
    ]
    return GcReport(freed, going, kept, dry_run)


def _plan(
    store: Store,
    keep: int | None,
    old_recipes: bool,
    needed: dict[str, str],
    others: Callable[[list[Release]], Sequence[Waste]],
    grace: float,
) -> tuple[list[Waste], list[str], dict[str, str]]:
    """What goes, in the order in which it has to; the releases among it; older ones that stay, with the reason."""
    known = releases.every(store.root)
    old = known[:-keep] if keep is not None else []
    kept = {r.name: f"tag {r.tag}" for r in old if r.tag} | {
        r.name: needed[r.name] for r in old if r.name in needed
    }
    going = [release for release in old if release.name not in kept]
    stay = [release for release in known if release not in going]
    waste = [*_releases(store, going), *_tags(store, stay), *_interrupted(store.root)]
    waste += _derived(store.root, stay)
    dropped = _old_recipes(store, stay) if old_recipes else []
    waste += [_whole("tables of old recipes", store.tables.path(name)) for name in dropped]
    waste += [_whole("answers of old recipes", path) for path in _old_answers(store, stay) if old_recipes]
    waste += _versions(store, stay, set(dropped), grace)
    waste += _artifacts(store, stay)
    waste += others(stay)
    waste += [_whole("caches", path) for path in sorted((store.root / "cache").glob("[!.]*"))]
    return waste, [release.name for release in going], kept


def _whole(kind: str, path: Path) -> Waste:
    return Waste(kind, size(path), lambda: discard(path))


def _releases(store: Store, going: list[Release]) -> Iterator[Waste]:
    for release in going:
        folder = store.root / "releases" / release.name

        def remove(folder: Path = folder) -> None:
            discard(folder / releases.MANIFEST)  # with it gone, it is no release
            discard(folder)

        yield Waste("releases", size(folder / releases.MANIFEST), remove)


def _tags(store: Store, stay: list[Release]) -> Iterator[Waste]:
    """Our tags that no release that stays has set on that table: of releases that go, of publishes that were killed."""
    set_by = {(f"{versions.RELEASE}{r.name}", table) for r in stay for table in r.manifest["tables"]}
    for table in store.tables.names():
        for tag in versions.tags(store.tables, table):
            if tag.startswith(versions.RELEASE) and (tag, table) not in set_by:

                def remove(table: str = table, tag: str = tag) -> None:
                    with failpoints.commit(f"untag {table}"):
                        store.tables.untag(table, tag)

                yield Waste("tags without a release", 0, remove)


def _interrupted(root: Path) -> Iterator[Waste]:
    """What killed writers left: files and folders written aside, release folders and tables without a first version.

    Whoever writes outside runs/ and cache/ holds the writer's lock, so what lies there is dead; those two have writers
    without, and a day of grace.
    """
    for path in _leftovers(root.iterdir()):
        yield _whole(INTERRUPTED, path)
    for folder in ("releases", "derived", "artifacts", "tables", SPOOL):
        for path in _leftovers(_parts(root / folder)):
            yield _whole(INTERRUPTED, path)
    for folder in ("runs", "cache"):
        for path in _leftovers(_parts(root / folder)):
            if not fresh(path):
                yield _whole(INTERRUPTED, path)
    for path in (root / "releases").glob("*/"):
        if not (path / releases.MANIFEST).exists() and not any(path.iterdir()):
            yield _whole(INTERRUPTED, path)
    for path in (root / "tables").glob("*.lance"):
        if not any((path / "_versions").glob("*.manifest")):
            yield _whole(INTERRUPTED, path)


def _parts(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        yield from (Path(folder, name) for name in (*folders, *names) if name.endswith(".part"))


def _leftovers(paths: Iterable[Path]) -> list[Path]:
    """Those that were written aside, not what lies inside another of them."""
    found = [path for path in paths if path.name.startswith(".") and path.name.endswith(".part")]
    return sorted(path for path in found if not any(above in found for above in path.parents))


def _derived(root: Path, stay: list[Release]) -> Iterator[Waste]:
    named = {entry["derived"] for release in stay for _, entry in release.files()}
    for path in sorted((root / "derived").glob("[!.]*/")):
        if path.name not in named:
            yield _whole("derived files", path)


def _old_recipes(store: Store, stay: list[Release]) -> list[str]:
    """Feature tables that neither the lock nor a release uses."""
    used = _used(store, stay)
    return [name for name in store.tables.names() if "__" in name and name not in used]


def _old_answers(store: Store, stay: list[Release]) -> list[Path]:
    """Spools of such recipes, in which nothing was written for a day."""
    used = _used(store, stay)
    return [
        path
        for path in sorted((store.root / SPOOL).glob("*.jsonl"))
        if path.stem not in used and not fresh(path)
    ]


def _used(store: Store, stay: list[Release]) -> set[str]:
    """Tables of the recipes that the lock or a release uses."""
    used = {recipe.table(name) for name, recipe in store.recipes().items()}
    used |= {recipe.table(schema.PREFERENCES) for recipe in preferences.recipes(store.root).values()}
    return used | {table for release in stay for table in release.manifest["tables"]}


def _versions(store: Store, stay: list[Release], dropped: Collection[str], grace: float) -> Iterator[Waste]:
    for name in store.tables.names():
        if name in dropped:
            continue
        pinned = {r.manifest["tables"][name] for r in stay if name in r.manifest["tables"]}
        pinned |= {
            v for tag, v in versions.tags(store.tables, name).items() if not tag.startswith(versions.RELEASE)
        }
        loose = versions.unneeded(store.tables, name, pinned, grace)
        if loose.files:

            def remove(name: str = name, chosen: tuple[int, ...] = loose.versions) -> None:
                versions.clean(store.tables, name, chosen)

            yield Waste("table versions", loose.bytes, remove, count=len(loose.versions))


def _artifacts(store: Store, stay: list[Release]) -> Iterator[Waste]:
    recipes = [recipe.canonical() for recipe in store.recipes().values()]
    recipes += [recipe.canonical() for recipe in preferences.recipes(store.root).values()]
    for release in stay:
        recipes += [facts["recipe"] for facts in release.manifest["features"].values() if facts["recipe"]]
        recipes += [entry["recipe"] for entry in release.manifest.get("lock", {}).values()]
    named = {sha256 for recipe in recipes for sha256 in recipe["artifacts"].values()}
    for path in sorted((store.root / "artifacts").glob("[!.]*/[!.]*/")):
        if path.name not in named:
            yield _whole("artifacts", path)
