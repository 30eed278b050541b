"""A release made again: from the tables that it pins, or over versions of them without what was forgotten."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from featurestore import files, journal, publish
from featurestore import release as releases
from featurestore.derived import Shelf
from featurestore.errors import Conflict, NotFound, Stale
from featurestore.indexes import Wanted
from featurestore.publish import Ready
from featurestore.recipe import Recipe
from featurestore.release import Release
from featurestore.status import FeatureStatus

if TYPE_CHECKING:
    from featurestore.store import Store


@dataclass(frozen=True)
class RebuildReport:
    """files: derived files of the release, relative to the store, that were damaged or gone and were made again."""

    release: str
    files: list[str]
    dry_run: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def rebuild(store: Store, name: str, *, dry_run: bool = False, wait: float | None = None) -> RebuildReport:
    """Make the derived files of a release that are gone or damaged again, from the tables that it pins.

    Every byte of the release is read first. Its manifest changes where a file does not come out the same to the byte,
    as an approximate index may. Raises NotFound for an unknown release, Conflict where its tables cannot be read any
    more or the store is being written.
    """
    if dry_run:
        return _damaged(releases.open(store.root, name), dry_run=True)
    with store.lock("publish", wait), files.disk_errors("the release"):
        release = releases.open(store.root, name)
        report = _damaged(release, dry_run=False)
        if not report.files:
            return report
        _check_tables(store, release)
        shelf = Shelf(store.root / "derived")
        for folder in {path.split("/")[1] for path in report.files}:
            shelf.drop_damaged(folder)
        made = rederive(store, release.manifest, release.manifest["tables"], None)
        manifest = made | {"inputs": release.manifest["inputs"]}  # it is made of what it was made of
        if manifest != release.manifest:
            files.write_json(store.root / "releases" / release.name / releases.MANIFEST, manifest)
        journal.record(store.root, "publish", release=release.name, rebuilt=report.files)
        return report


def _damaged(release: Release, *, dry_run: bool) -> RebuildReport:
    paths = [path.relative_to(release.root).as_posix() for path in release.verify()]
    return RebuildReport(release.name, sorted(set(paths)), dry_run)


def _check_tables(store: Store, release: Release) -> None:
    for table, version in release.manifest["tables"].items():
        try:
            store.tables.dataset(table, version)
        except (NotFound, ValueError, OSError) as error:
            raise Conflict(
                f"release {release.name} cannot be made again: version {version} of table '{table}' is gone",
                remedy="copy derived/ from a copy of the store, or take the release's folder away",
            ) from error


def rederive(
    store: Store, manifest: dict[str, Any], versions: dict[str, int], latest: Release | None
) -> dict[str, Any]:
    """The manifest of a release over other versions of its tables.

    Its derived files are made, or shared with what is there; the manifest is not written. latest: a release made just
    before, whose log is taken over where it is the same. An approximate index that no longer reaches its recall is
    made exact: that is no reason to remember anybody.
    """
    told = {name: manifest["features"][name] for name in manifest["order"]}
    recipes = {
        name: Recipe.model_validate(facts["recipe"]) if facts["recipe"] else None
        for name, facts in told.items()
    }
    status = {name: _status(name, facts["coverage"]) for name, facts in told.items()}

    def made(wanted: dict[str, Wanted]) -> dict[str, Any]:
        inputs = publish.inputs_of(store, versions, recipes, wanted)
        ready = Ready(manifest["name"], versions, recipes, wanted, status, inputs, latest, unchanged=False)
        return publish.derive(store, ready) | {"inputs": inputs}

    try:
        parts = made({name: _wanted(facts.get("index", {})) for name, facts in told.items()})
    except Stale:
        parts = made({name: Wanted("exact") for name in told})
    for facts in parts["features"].values():  # an item that is gone was perhaps one that was missing
        c = facts["coverage"]
        c["missing"] = min(c["missing"], parts["items"] - c["ok"] - c["no_input"] - c["error"])
    return manifest | parts


def _status(name: str, coverage: dict[str, int]) -> FeatureStatus:
    """As much of a feature's status as publishing reads: what was not current then."""
    return FeatureStatus(
        name,
        recipe=None,
        current=0,
        no_input=0,
        failed=0,
        disk=0,
        missing=coverage["missing"],
        stale=coverage["stale"],
        blocked=coverage["blocked"],
    )


def _wanted(index: dict[str, Any]) -> Wanted:
    return Wanted("ivf", index["target"]) if index.get("kind") == "ivf" else Wanted("exact")
