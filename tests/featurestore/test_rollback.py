"""A rollback gives back what a release was made of, loses nothing that was published, and survives a kill."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore import definitions as defs
from featurestore import failpoints, files, interactions, pending
from featurestore.errors import BadInput, Conflict, NotFound
from featurestore.forget import forget
from featurestore.recipe import Recipe
from featurestore.store import Store
from tests.featurestore import shop


def edit(store: Store, number: int, title: str) -> None:
    shop.upsert(store, pa.table({"item_id": [f"i{number:03d}"], "title": [title]}))


def state(store: Store, release: str | None = None) -> dict[str, pa.Table]:
    """Rows of every table, as a release has them or as they are."""
    names = store.tables.names() if release is None else store.release(release).manifest["tables"]
    order = {"items": "item_id", "interactions": "event_id"}
    rows = {n: store.sql(f'SELECT * FROM "{n}" ORDER BY {order.get(n, "item_id")}', release) for n in names}
    return {name: table for name, table in rows.items() if len(table)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0001: items and a feature. 0002: a title edited, a log, an item out, another recipe, another features.toml."""
    made = Store.create(tmp_path_factory.mktemp("rollback") / "store", shop.TOML)
    shop.upsert(made, shop.catalogue())
    shop.materialize(made, "vector")
    made.publish(allow_stale=True)
    edit(made, 1, "Another")
    with made.lock("test"):
        interactions.upsert_interactions(made.tables, shop.log())
    text = (
        made.definitions_text()
        + '\n[features.more]\nkind = "imported"\ninputs = ["title"]\nencoder = "imported"\n'
    )
    files.write_text(made.root / defs.FILE, text)
    shop.materialize(made, "vector")
    made.lock_recipe("more", Recipe(kind="imported", inputs=("column:title",), encoder="imported", dim=2))
    made.publish(allow_stale=True)
    return made.root


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Store:
    return Store.open(shutil.copytree(made, tmp_path / "store"))


def test_tables_definitions_and_recipes_are_what_they_were(store: Store) -> None:
    then, now = state(store, "0001"), store.definitions_text()
    report = store.rollback("0001")
    assert report.published == "0003"
    assert "interactions" in report.tables
    assert "items" in report.tables
    assert state(store) == then
    assert store.tables.count("interactions") == 0
    assert "more" not in store.definitions.features
    assert list(store.locked()) == ["vector"]
    assert report.kept_as == "features.toml.before-rollback-0001"
    assert (store.root / report.kept_as).read_text() == now


def test_what_is_served_is_the_old_content_in_the_old_files(store: Store) -> None:
    store.rollback("1")
    old, new = store.release("0001"), store.release("latest")
    assert new.name == "0003"
    assert [entry["sha256"] for _, entry in new.files()] == [entry["sha256"] for _, entry in old.files()]
    assert {path for path, _ in new.files()} == {path for path, _ in old.files()}


def test_the_state_before_can_be_rolled_forward_to(store: Store) -> None:
    then = state(store, "0002")
    text = store.definitions_text()
    store.rollback("0001")
    store.rollback("0002")
    assert state(store) == then
    assert store.definitions_text() == text
    assert sorted(store.locked()) == ["more", "vector"]
    assert store.diff("0002", "latest").same


def test_releases_are_left_as_they_are(store: Store) -> None:
    before = {name: state(store, name) for name in ("0001", "0002")}
    store.rollback("0001")
    assert {name: state(store, name) for name in before} == before


def test_changes_that_no_release_holds_are_refused_unless_given_up(store: Store) -> None:
    edit(store, 7, "not published")
    with pytest.raises(Conflict, match="items") as refused:
        store.rollback("0001")
    assert "--discard" in (refused.value.remedy or "")
    assert "not published" in store.tables.read("items")["title"].to_pylist()
    assert store.rollback("0001", discard=True).unpublished == ["items"]


def test_a_dry_run_writes_nothing(store: Store) -> None:
    edit(store, 7, "not published")
    before = {p: p.stat().st_mtime_ns for p in store.root.rglob("*")}
    report = store.rollback("0001", dry_run=True)
    assert {p: p.stat().st_mtime_ns for p in store.root.rglob("*")} == before
    assert report.unpublished == ["items"]
    assert report.published is None


def test_going_back_to_the_latest_changes_nothing(store: Store) -> None:
    report = store.rollback("latest")
    assert (report.tables, report.published) == ([], "0002")


def test_an_unknown_release_is_refused(store: Store) -> None:
    with pytest.raises(NotFound, match="no release '0007'"):
        store.rollback("0007")


def test_a_release_of_an_earlier_version_is_rolled_back_to_while_its_recipes_are_todays(store: Store) -> None:
    path = store.root / "releases" / "0001" / "manifest.json"
    manifest = files.read_json(path)
    files.write_json(path, {k: v for k, v in manifest.items() if k not in ("definitions", "lock")})
    then, text = state(store, "0001"), store.definitions_text()
    assert store.rollback("0001").kept_as is None
    assert store.definitions_text() == text
    assert state(store)["items"].equals(then["items"])
    store.lock_recipe("vector", Recipe(kind="imported", inputs=("column:title",), encoder="imported", dim=3))
    with pytest.raises(BadInput, match="recipe of 'vector' has changed"):
        store.rollback("0001", discard=True)


def test_a_release_of_which_all_was_forgotten_is_refused_and_nothing_is_begun(store: Store) -> None:
    forget(store, items=shop.ids())
    shop.upsert(store, pa.table({"item_id": ["new"], "title": ["New"]}))
    store.publish(allow_stale=True)
    with pytest.raises(BadInput, match="0001 holds no items any more"):
        store.rollback("0001")
    with store.lock("ingest"):
        assert store.tables.read("items")["item_id"].to_pylist() == ["new"]


def test_a_rollback_whose_content_cannot_be_published_holds_up_no_other_verb(store: Store) -> None:
    intent = {
        "release": "0001",
        "tables": {},
        "clear": {"items": store.tables.version("items")},
        "definitions": store.definitions_text(),
        "kept_as": None,
        "lock": defs.entries(store.locked()),
        "recall": 0.99,
    }
    pending.begin(store.root, "rollback", intent)
    shop.upsert(store, pa.table({"item_id": ["new"], "title": ["New"]}))
    assert pending.read(store.root) is None
    assert store.tables.read("items")["item_id"].to_pylist() == ["new"]


MOMENTS = (
    "after table items",
    "after journal publish",
)


def killed_at(store: Store, moment: str) -> None:
    script = f"from featurestore.store import Store; Store.open({str(store.root)!r}).rollback('0001')"
    environment = os.environ | {failpoints.VARIABLE: moment, "OMP_NUM_THREADS": "1"}
    assert (
        subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode
        == failpoints.KILLED
    )
    assert pending.read(store.root) is not None


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_rollback_that_was_killed_is_completed_by_running_it_again(store: Store, moment: str) -> None:
    then = state(store, "0001")
    killed_at(store, moment)
    report = store.rollback("0001")
    assert pending.read(store.root) is None
    assert report.published == "0003"
    assert "interactions" in report.tables
    assert store.release("latest").name == "0003"
    assert state(store) == then
    assert store.diff("0001", "latest").same


def test_the_next_verb_that_writes_completes_a_killed_rollback_first(store: Store) -> None:
    then = state(store, "0001")
    killed_at(store, "after rename to pending.json")
    with store.lock("ingest"):
        assert pending.read(store.root) is None
        assert state(store) == then
        assert "more" not in store.definitions.features
