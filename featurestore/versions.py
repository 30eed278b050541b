"""Versions of a table: which are pinned, which nobody needs, and what taking those away frees.

Lance's own cleanup by age is never used. A version is named here one by one, and goes only where no release, no tag of
anybody's and no reader in the middle of a query can want it; files that no version names go with them, which is safe
since the caller holds the writer's lock.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

from featurestore import failpoints, files
from featurestore.tables import Tables

KEPT = 20  # of the newest unpinned versions, by `tidy`: readers of today's tables hold one for seconds
GATE = 40  # unpinned versions from which `tidy` does something
GRACE_SECONDS = 60.0  # for which `gc` leaves a version that was the newest
RELEASE = "release-"  # what tags of ours begin with; another's tag pins its version for good
_PARTS = ("data/", "_deletions/", "_transactions/", "_indices/", "_versions/")
_AGES = timedelta(days=36_500)


@dataclass(frozen=True)
class Unneeded:
    """Versions of a table that nothing needs, and the files that only they, or no version at all, name."""

    versions: tuple[int, ...] = ()
    files: int = 0
    bytes: int = 0


def tags(tables: Tables, name: str) -> dict[str, int]:
    """Version of each tag."""
    return {tag: int(facts["version"]) for tag, facts in tables.dataset(name).tags.list().items()}


def unneeded(tables: Tables, name: str, pinned: Collection[int], grace: float = GRACE_SECONDS) -> Unneeded:
    """What can go of a table. pinned: versions that stay.

    So do the newest, and those that were the newest within the last `grace` seconds.
    """
    dataset = tables.dataset(name)
    tracked = dataset.tracked_files().read_all().select(["version", "path", "type"]).to_pylist()
    manifests = {int(row["version"]): row["path"] for row in tracked if row["type"] == "manifest"}
    known = sorted(manifests)
    keep = {known[-1], *pinned}
    recent = time.time() - grace
    for version, following in pairwise(known):
        if (tables.path(name) / manifests[following]).stat().st_mtime > recent:
            keep.add(version)
    needed = {row["path"] for row in tracked if row["version"] in keep}
    found = dataset.all_files().read_all().select(["path", "size_bytes"]).to_pylist()
    loose = [row["size_bytes"] for row in found if _is_content(row["path"]) and row["path"] not in needed]
    return Unneeded(tuple(v for v in known if v not in keep), len(loose), sum(loose))


def clean(tables: Tables, name: str, versions: Collection[int]) -> None:
    """Take versions away, and all files that no version names. Tagged ones stay. Under the writer's lock."""
    dataset = tables.dataset(name)
    chosen: dict[str, Any] = {"versions": sorted(versions)} if versions else {"older_than": _AGES}
    with failpoints.commit(f"clean {name}"), files.disk_errors(f"table '{name}'"):
        dataset.cleanup_old_versions(**chosen, error_if_tagged_old_versions=False, delete_unverified=True)


def tidy(tables: Tables) -> None:
    """Upkeep after a write: where a table has many versions that no tag pins, all but the newest few go.

    Costs a look into each table's folder unless the gate is passed.
    """
    for path in tables.folder.glob("*.lance"):
        name = path.stem
        count = sum(1 for _ in (path / "_versions").glob("*.manifest"))
        pins = sum(1 for _ in (path / "_refs" / "tags").glob("*.json"))
        if count - pins > GATE:
            known = sorted(int(each["version"]) for each in tables.dataset(name).versions())
            keep = {*known[-KEPT:], *tags(tables, name).values()}
            clean(tables, name, [version for version in known if version not in keep])


def _is_content(path: str) -> bool:
    """Whether a file is one that versions name: not a tag, not Lance's hint at the newest version."""
    return path.startswith(_PARTS) and (not path.startswith("_versions/") or path.endswith(".manifest"))
