"""What gc takes away, what it never does, and that a dry run says exactly what a real one frees."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from featurestore import failpoints, gc, versions
from featurestore import release as releases
from featurestore.errors import BadInput
from featurestore.gc import GcReport
from featurestore.recipe import Recipe
from featurestore.release import Release
from featurestore.store import Store
from tests.featurestore import shop


def collect(store: Store, **options: object) -> GcReport:
    return gc.collect(store, grace=0.0, **options)  # type: ignore[arg-type]


def edit(store: Store, number: int, title: str) -> None:
    """Give one item another title, as a small ingest does."""
    shop.upsert(store, pa.table({"item_id": [f"i{number:03d}"], "title": [title]}))


def published(store: Store, count: int) -> list[Release]:
    made = []
    for number in range(count):
        edit(store, number, f"Another thing {number}")
        shop.materialize(store, "vector")
        made.append(store.publish(allow_stale=True))
    return made


def bytes_of(store: Store) -> int:
    """All of the store but its journal, which tells of the gc itself, and what Lance notes of its newest version."""
    left_out = ("journal.jsonl", "latest_version_hint.json")
    tags = list(store.root.rglob("_refs/tags/*.json"))
    files = [p for p in store.root.rglob("*") if p.is_file() and p.name not in left_out and p not in tags]
    return sum(path.stat().st_size for path in files)


def kinds(report: GcReport) -> dict[str, int]:
    return {each.kind: each.count for each in report.freed}


def listed(store: Store) -> dict[str, float]:
    return {str(p.relative_to(store.root)): p.stat().st_mtime_ns for p in store.root.rglob("*")}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return shop.build(tmp_path / "store", computed=("vector",))


def test_a_dry_run_says_exactly_what_a_real_one_frees_and_writes_nothing(store: Store) -> None:
    published(store, 3)
    (store.root / "derived" / ".half.part").mkdir()
    (store.root / "derived" / ".half.part" / "values.npy").write_bytes(b"x" * 1000)
    store.artifacts.put({"words.json": b"nobody names this"})
    store.status()
    before, content = bytes_of(store), listed(store)
    said = collect(store, keep=1, dry_run=True)
    assert listed(store) == content
    did = collect(store, keep=1)
    assert did.freed == said.freed
    assert did.bytes == before - bytes_of(store)
    assert kinds(did)["releases"] == 2
    assert {"interrupted writes", "artifacts", "caches", "derived files", "table versions"} <= set(kinds(did))
    assert collect(store, keep=1).freed == []


def test_without_options_every_release_stays_and_is_whole(store: Store) -> None:
    made = published(store, 3)
    edit(store, 9, "not published")
    expected = {
        r.name: (r.matrix("vector").values.copy(), store.sql("SELECT * FROM items ORDER BY item_id", r.name))
        for r in made
    }
    newest = store.tables.read("items").num_rows
    assert kinds(collect(store))["table versions"] > 0
    for name, (values, rows) in expected.items():
        release = store.release(name)
        assert release.verify() == []
        assert np.array_equal(release.matrix("vector").values, values)
        assert store.sql("SELECT * FROM items ORDER BY item_id", name).equals(rows)
    assert store.tables.read("items").num_rows == newest


def test_keep_spares_tagged_releases_and_those_that_something_needs(store: Store) -> None:
    edit(store, 1, "first")
    shop.materialize(store, "vector")
    tagged = store.publish(tag="paper", allow_stale=True)
    made = published(store, 4)
    report = collect(store, keep=2, needed=lambda: {made[0].name: "run sasrec-id-001"})
    assert [r.name for r in store.releases()] == [made[3].name, made[2].name, made[0].name, tagged.name]
    assert report.kept == {tagged.name: "tag paper", made[0].name: "run sasrec-id-001"}
    assert report.releases == [made[1].name]
    assert all(release.verify() == [] for release in store.releases())
    assert store.sql("SELECT count(*) n FROM items", tagged.name)["n"].to_pylist() == [shop.N_ITEMS]
    with pytest.raises(BadInput, match="latest release always stays"):
        collect(store, keep=0)


def test_a_reader_that_opened_a_release_is_not_disturbed(store: Store) -> None:
    first, *_ = published(store, 3)
    opened = store.release(first.name)
    values = opened.matrix("vector").values  # memory-mapped
    expected = values.copy()
    collect(store)
    assert np.array_equal(values, expected)
    assert opened.events().num_rows == opened.n_events
    assert len(opened.catalogue) == opened.n_items


def test_tables_of_old_recipes_go_only_where_that_is_asked(store: Store) -> None:
    old = store.feature_table("vector")
    store.lock_recipe("vector", Recipe(kind="imported", inputs=("column:title",), encoder="imported", dim=3))
    collect(store)
    assert store.tables.exists(old)
    assert kinds(collect(store, old_recipes=True))["tables of old recipes"] == 1
    assert not store.tables.exists(old)


def test_a_release_that_is_made_while_older_ones_go_is_found(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = published(store, 1)
    edit(store, 2, "Another thing")
    looked: list[Path] = []
    exists = Path.exists

    def late(path: Path) -> bool:
        """Looks when the file that was listed has gone, and a newer one has come."""
        if path.name == "manifest.json" and not looked:
            looked.append(path)
            store.publish(allow_stale=True)
            collect(store, keep=1)
        return exists(path)

    monkeypatch.setattr(Path, "exists", late)
    assert releases.names(store.root) == ["0002"]
    assert looked[0].parent.name == made.name


def test_answers_that_were_paid_for_go_only_with_old_recipes_and_never_of_an_active_one(store: Store) -> None:
    spool = store.root / "spool"
    spool.mkdir()
    active, old, new = (
        spool / f"{n}.jsonl" for n in (store.feature_table("vector"), "told__old", "told__new")
    )
    for path in (active, old, new):
        path.write_text('{"input_hash": "ab", "answer": {"text": "A thing"}}\n')
    for path in (active, old):
        os.utime(path, (time.time() - 2 * gc.FRESH_SECONDS,) * 2)
    collect(store)
    assert old.exists()
    assert kinds(collect(store, old_recipes=True))["answers of old recipes"] == 1
    assert sorted(spool.iterdir()) == sorted([active, new])


def test_a_table_that_a_release_pins_is_no_old_recipe(store: Store) -> None:
    old = store.feature_table("vector")
    release = store.publish(allow_stale=True)
    store.lock_recipe("vector", Recipe(kind="imported", inputs=("column:title",), encoder="imported", dim=3))
    collect(store, old_recipes=True)
    assert store.tables.count(old, release.manifest["tables"][old]) == shop.N_ITEMS


def test_artifacts_that_the_lock_or_a_release_names_stay(store: Store) -> None:
    named, released, lost = (store.artifacts.put({"a.json": text}) for text in (b"1", b"2", b"3"))
    recipe = shop.RECIPES["vector"]
    store.lock_recipe("private", recipe.model_copy(update={"artifacts": {"weights": released}}))
    store.publish(allow_stale=True)
    store.lock_recipe("private", recipe.model_copy(update={"artifacts": {"weights": named}}))
    collect(store)
    assert store.artifacts.has(named)
    assert store.artifacts.has(released)
    assert not store.artifacts.has(lost)


def test_tags_of_a_killed_publish_go_and_do_not_disturb_the_next(store: Store) -> None:
    published(store, 1)
    version = store.tables.version("interactions")
    store.tables.tag("items", "release-0002", store.tables.version("items") - 1)
    store.tables.tag("interactions", "release-0009", version)
    store.tables.tag("items", "mine", 1)
    assert kinds(collect(store))["tags without a release"] == 2
    assert versions.tags(store.tables, "interactions") == {"release-0001": version}
    assert store.tables.count("items", 1) == 0
    assert versions.tags(store.tables, "items")["mine"] == 1


def test_a_publish_after_a_killed_one_pins_its_own_versions(store: Store) -> None:
    published(store, 1)
    store.tables.tag("items", "release-0002", 2)  # as a publish that was killed leaves it
    (store.root / "releases" / "0002").mkdir()
    edit(store, 5, "later")
    release = store.publish(allow_stale=True)
    assert release.name == "0002"
    assert versions.tags(store.tables, "items")["release-0002"] == release.manifest["tables"]["items"]
    collect(store)
    assert release.verify() == []


def test_what_others_may_be_writing_has_a_day(store: Store) -> None:
    part = store.root / "runs" / "sasrec-id-001" / "checkpoint" / ".last.safetensors.1-a.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half a checkpoint")
    collect(store)
    assert part.exists()
    yesterday = time.time() - gc.FRESH_SECONDS - 60
    os.utime(part, (yesterday, yesterday))
    assert kinds(collect(store)) == {"interrupted writes": 1}
    assert not part.exists()


def test_a_version_that_was_the_newest_a_moment_ago_stays(store: Store) -> None:
    edit(store, 1, "now")
    before = store.tables.version("items") - 1
    gc.collect(store)
    assert store.tables.count("items", before) == shop.N_ITEMS
    assert kinds(collect(store))["table versions"] > 0


@pytest.mark.parametrize("moment", ["before untag*", "after remove ?[0-9a-f]*", "before clean*"])
def test_a_kill_leaves_whole_releases_and_is_completed_by_running_it_again(store: Store, moment: str) -> None:
    published(store, 2)
    script = f"from featurestore import gc, store; gc.collect(store.Store.open({str(store.root)!r}), keep=1, grace=0)"
    environment = os.environ | {failpoints.VARIABLE: moment, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert killed.returncode == failpoints.KILLED
    assert all(release.verify() == [] for release in store.releases())
    collect(store, keep=1)
    assert [r.name for r in store.releases()] == ["0002"]
    assert store.releases()[0].verify() == []
    assert collect(store, keep=1).freed == []


def test_many_small_updates_leave_few_versions_and_fragments(store: Store) -> None:
    for number in range(versions.GATE + 15):
        edit(store, number % shop.N_ITEMS, f"edit {number}")
        if number == 20:
            pinned = store.publish(allow_stale=True)
    dataset = store.tables.dataset("items")
    assert len(dataset.versions()) <= versions.GATE + 1
    assert len(dataset.get_fragments()) <= 40
    assert store.tables.count("items", pinned.manifest["tables"]["items"]) == shop.N_ITEMS
    titles = store.tables.read("items", ["item_id", "title"]).to_pylist()
    assert {"item_id": "i000", "title": "edit 0"} in titles


def test_a_file_that_is_gone_by_the_time_it_is_looked_at_counts_as_one_in_use(tmp_path: Path) -> None:
    assert gc.fresh(tmp_path / ".gone.part")
    assert gc.size(tmp_path / ".gone.part") == 0
