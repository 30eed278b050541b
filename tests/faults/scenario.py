"""The verbs of a store's life, each as one call on a world, and everything that must be equal afterwards.

A world is a folder: STORE, and beside it the shop's files, which are shared by all copies of the world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from dualview import housekeeping
from featurestore import features, quarantine, schema
from featurestore import release as releases
from featurestore.search import similar
from featurestore.store import Store
from featurestore.tables import key_of
from ingest.load import ingest
from ingest.materialize import MaterializeReport, materialize

COMMIT_ROWS = 8
BATCH = 8  # inputs that an encoder takes at once
IN_FLIGHT = COMMIT_ROWS + 2 * BATCH  # cells that a kill may lose: two items at most share a picture
PASSING = {schema.UPDATED_AT, schema.ADDED_AT, schema.ATTEMPTS}  # columns that tell when, not what


class Counted:
    """Progress that leaves one byte in a file for each cell that was computed; a kill loses none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, label: str, total: int | None = None) -> None: ...

    def advance(self, n: int = 1) -> None:
        with self.path.open("ab", buffering=0) as file:
            file.write(b"." * n)

    def done(self) -> None: ...


def first_ingest(store: Store, shop: Path) -> None:
    ingest(store, shop / "items.csv", shop / "events.csv")


def second_ingest(store: Store, shop: Path) -> None:
    ingest(store, shop / "items.csv", shop / "events.csv", remove_missing=True, replace_interactions=True)


def compute(store: Store, shop: Path) -> MaterializeReport:
    counted = Counted(store.root.parent / "computed")
    return materialize(store, commit_rows=COMMIT_ROWS, batch_size=BATCH, progress=counted)


def publish(store: Store, shop: Path) -> None:
    store.publish()


def learn(store: Store, shop: Path) -> None:
    """Train for two epochs, or go on with the run that was stopped."""
    from dualview.training import fit
    from recommender.runs import list_runs

    stopped = [run.name for run in list_runs(store.root) if not run.metrics().get("finished")]
    options: dict[str, Any] = {"width": 8, "layers": 1, "k_core": (1, 1), "length": 8, "epochs": 2}
    fit(store, resume=stopped[0] if stopped else None, device="cpu", **options)


def roll_back(store: Store, shop: Path) -> None:
    store.rollback("0001", discard=True)


def free(store: Store, shop: Path) -> None:
    housekeeping.gc(store, keep=1, old_recipes=True, grace=0.0)


def forget(store: Store, shop: Path) -> None:
    housekeeping.forget(store, users=["u7"], items=["i10"])


@dataclass(frozen=True)
class Verb:
    """One step of the life. day: of the shop as the step sees it. many: it has hundreds of moments."""

    name: str
    run: Callable[[Store, Path], object]
    day: str
    many: bool = False

    def facts(self, store: Store) -> dict[str, Any]:
        """What must be equal after it: all that `facts` says, and after a gc that nothing is left to free."""
        found = facts(store)
        if self.run is learn:
            found["learnt"] = learnt(store)
        if self.run is free:
            left = housekeeping.gc(store, keep=1, old_recipes=True, grace=0.0, dry_run=True).freed
            found["waste"] = [each.kind for each in left if each.kind != "caches"]
        return found


LIFE = (
    Verb("ingest", first_ingest, "one"),
    Verb("materialize", compute, "one"),
    Verb("publish", publish, "one"),
    Verb("train", learn, "one"),
    Verb("second ingest", second_ingest, "two"),
    Verb("second materialize", compute, "two"),
    Verb("second publish", publish, "two"),
    Verb("rollback", roll_back, "two"),
    Verb("forget", forget, "two", many=True),
    Verb("gc", free, "two"),
)


# ---- what is compared


def facts(store: Store) -> dict[str, Any]:
    """Everything a store says, but for when: equal facts are equal stores."""
    found: dict[str, Any] = {
        name: content(store, name)
        for name in (schema.ITEMS, schema.IMAGES, schema.INTERACTIONS, schema.QUARANTINE)
    }
    locked = store.locked()
    for name, entry in locked.items():
        table = entry.recipe.table(name)
        fitted = {k: v for k, v in (entry.fitted or {}).items() if k != "at"}
        found[f"recipe {name}"] = (entry.definition_hash, entry.recipe.canonical(), fitted)
        found[f"cells {name}"] = content(store, table)
        if store.outdated(name) is None:
            found[f"states {name}"] = features.plan(store.tables, store.recipes(), name).drop(
                [schema.ATTEMPTS]
            )
    found["tables"] = store.tables.names()
    kept = sorted(path.name for path in (store.root / "artifacts").glob("[!.]*/*"))
    assert all(store.artifacts.verify(name) for name in kept)
    found["artifacts"] = kept
    found["releases"] = [_release(releases.open(store.root, name)) for name in releases.names(store.root)]
    status = store.status().to_dict()
    for part in (status, *status["features"]):
        part.pop("disk", None)
    found["status"] = status
    found["errors"] = [(group.where, group.code, group.count) for group in store.errors()]
    return found


def content(store: Store, table: str) -> pa.Table | None:
    """A table's rows ordered by key, without the columns that tell when. Refuses a key that is there twice."""
    if not store.tables.exists(table):
        return None
    rows = quarantine.read(store.tables) if table == schema.QUARANTINE else store.tables.read(table)
    key = key_of(store.tables.schema(table))
    keys = rows[key].to_pylist()
    assert len(set(keys)) == len(keys) == store.tables.count(table), f"{table} holds a key twice"
    return rows.drop([name for name in rows.column_names if name in PASSING]).sort_by(key)


def learnt(store: Store) -> dict[str, Any]:
    """Weights, counters and figures of the newest run, bit for bit; seconds left out."""
    from recommender.checkpoint import BEST, LAST, load
    from recommender.runs import open_run

    run = open_run(store.root, "latest")
    found: dict[str, Any] = {"history": [_timeless(row) for row in run.history()], "metrics": run.metrics()}
    for name in (BEST, LAST):
        tensors, state = load(run.folder / "checkpoint" / name)
        rows = [_timeless(row) for row in state.pop("rows", [])]
        found[name] = ({key: value.numpy().tobytes() for key, value in tensors.items()}, state, rows)
    return found


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.endswith("seconds")}


def _release(release: releases.Release) -> dict[str, Any]:
    assert release.verify() == [], f"release {release.name} is damaged"
    said = release.manifest
    return {
        "name": release.name,
        "items": release.n_items,
        "events": release.n_events,
        "tables": sorted(said["tables"]),
        "files": {name: entry["sha256"] for name, entry in said["files"].items()},
        "features": {
            name: (one["recipe_id"], one["coverage"], {k: e["sha256"] for k, e in one["files"].items()})
            for name, one in said["features"].items()
        },
    }


def differences(found: dict[str, Any], expected: dict[str, Any]) -> Iterable[str]:
    for name in sorted(found.keys() | expected.keys()):
        one, other = found.get(name), expected.get(name)
        same = (
            one.equals(other) if isinstance(one, pa.Table) and isinstance(other, pa.Table) else one == other
        )
        if not same:
            yield f"{name}:\n  found    {_short(one)}\n  expected {_short(other)}"


def _short(value: Any) -> str:
    return str(value.to_pydict() if isinstance(value, pa.Table) else value)[:2000]


def check_opens(root: Path) -> None:
    """A store as a kill left it: it opens, says where it stands, and the releases that it had answer."""
    store = Store.open(root)
    status = store.status()
    assert status.release == (releases.names(root) or [None])[-1]
    store.errors()
    store.history()
    for name in store.tables.names():
        content(store, name)
    for name in releases.names(root):
        release = releases.open(root, name)
        assert release.verify() == []
        for feature in release.searchable:
            some = str(release.matrix(feature).ids[0])
            assert similar(release, item=some, feature=feature, k=3).num_rows == 3
