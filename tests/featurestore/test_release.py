"""Releases: they serve what the tables held, share what is the same, and are whole or not there."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from featurestore import features, files, publish, release, remedies, schema
from featurestore.errors import BadInput, Conflict, DualviewError, NotFound, Stale
from featurestore.release import Cell
from featurestore.store import Store
from tests.featurestore import shop


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was published once. Tests work on copies of it."""
    root = tmp_path_factory.mktemp("shop") / "store"
    shop.build(root).publish()
    return root


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Store:
    shutil.copytree(built, tmp_path / "store")
    return Store.open(tmp_path / "store")


def derived(store: Store) -> set[str]:
    return {path.name for path in (store.root / "derived").iterdir()}


def retitle(store: Store, item: str, title: str) -> None:
    shop.upsert(store, pa.table({"item_id": [item], "title": [title]}))
    for feature in ("vector", "told.short", "tokens"):
        shop.materialize(store, feature)


# ---- what it serves


def test_ids_are_the_live_items_sorted_and_rows_are_their_places(store: Store) -> None:
    served = store.release()
    assert served.ids.tolist() == shop.ids()
    assert [served.row_of(i) for i in shop.ids()] == list(range(shop.N_ITEMS))
    assert (served.n_items, served.n_events, served.name) == (shop.N_ITEMS, 60, "0001")


def test_a_matrix_holds_the_tables_vectors_under_their_ids(store: Store) -> None:
    served = store.release().matrix("vector")
    ids, values = store.matrix("vector")
    assert (served.ids == ids).all()
    assert (served.values == values).all()
    assert served.values[3].tolist() == shop.value_of("vector", "Thing 3")
    assert isinstance(served.values, np.memmap)
    assert served.values.dtype == np.float32


def test_items_without_a_vector_are_left_out_and_rows_say_where_the_others_stand(store: Store) -> None:
    served = store.release()
    pictures = served.matrix("picture")
    assert len(pictures) == 54
    assert (served.ids[pictures.rows] == pictures.ids).all()
    assert "i010" not in pictures.ids
    assert pictures.place_of(11) == 9
    assert pictures.place_of(10) == pictures.place_of(0) == -1
    assert pictures.values[9].tolist() == shop.value_of("picture", "Thing 11")
    assert served.cell("picture", 10) is Cell.NO_INPUT
    assert served.cell("picture", 11) is Cell.OK


def test_lists_of_vectors_come_as_values_and_offsets(store: Store) -> None:
    tokens = store.release().matrix("tokens")
    assert tokens.offsets is not None
    for place in range(shop.N_ITEMS):
        own = tokens.values[tokens.offsets[place] : tokens.offsets[place + 1]]
        assert own.tolist() == shop.value_of("tokens", f"Thing {place}")


def test_the_stores_matrix_of_lists_of_vectors_is_refused(store: Store) -> None:
    for named in (None, "latest"):
        with pytest.raises(BadInput, match="tokens"):
            store.matrix("tokens", release=named)


def test_texts_are_a_column_of_the_catalogue(store: Store) -> None:
    served = store.release()
    assert served.catalogue["item_id"].to_pylist() == shop.ids()
    assert served.catalogue["title"][5].as_py() == "Thing 5"
    assert served.catalogue["tags"][4].as_py() == ["even", "t4"]
    assert served.catalogue["feature_told_short"][5].as_py() == "told of Thing 5"
    assert not {"_deleted", "_content_hash"} & set(served.catalogue.column_names)
    with pytest.raises(BadInput, match="holds texts") as caught:
        served.matrix("told.short")
    assert "feature_told_short" in str(caught.value)


def test_events_come_in_each_users_order_and_ties_as_ingested(store: Store) -> None:
    events = store.release().events()
    stored = store.tables.read(schema.INTERACTIONS)
    expected = sorted(stored.to_pylist(), key=lambda e: (e["user_id"], e["timestamp"], e["_seq"]))
    assert events.column_names == ["user_id", "item_id", "timestamp", "position", "event", "value"]
    assert events.to_pylist() == [{k: e[k] for k in events.column_names} for e in expected]


def test_features_that_are_not_published_are_not_served(store: Store) -> None:
    served = store.release()
    assert served.features == ["vector", "picture", "told.short", "tokens"]
    assert served.searchable == ["vector", "picture"]
    with pytest.raises(NotFound, match="no feature 'private'"):
        served.matrix("private")
    with pytest.raises(NotFound) as caught:
        served.matrix("vectr")
    assert "did you mean 'vector'" in str(caught.value)


def test_vectors_reach_their_places_whatever_the_batches(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = store.release()
    shutil.rmtree(store.root / "derived")
    monkeypatch.setattr(publish, "READ_ROWS", 7)
    again = store.publish()
    for feature in ("vector", "picture", "tokens"):
        assert np.array_equal(again.matrix(feature).values, shop_values(whole, feature))


def shop_values(served: release.Release, feature: str) -> Any:
    values = [shop.value_of(feature, f"Thing {int(i[1:])}") for i in served.ids]
    if feature == "picture":
        values = [v for number, v in enumerate(values) if number % 10]
    return np.concatenate([np.atleast_2d(np.asarray(v, np.float32)) for v in values])


def test_the_manifest_pins_every_table_that_belongs_to_it_and_tags_it(store: Store) -> None:
    manifest = store.release().manifest
    assert set(manifest["tables"]) == set(store.tables.names())
    for table, version in manifest["tables"].items():
        assert store.tables.dataset(table).tags.list()["release-0001"]["version"] == version


def test_unknown_items_are_answered_with_a_near_id(store: Store) -> None:
    served = store.release()
    for asked, near in (("I007", "i007"), (" i007", "i007"), ("i07", "i0"), ("i0590", "i059")):
        with pytest.raises(NotFound) as caught:
            served.row_of(asked)
        assert f"did you mean '{near}" in str(caught.value)
    with pytest.raises(NotFound) as caught:
        served.row_of("something else entirely")
    assert "did you mean" not in str(caught.value)


# ---- what releases share


def test_publishing_what_has_not_changed_gives_the_same_release_and_writes_nothing(store: Store) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()}
    assert store.publish().name == "0001"
    after = {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()}
    changed = {path.name for path, _ in set(after.items()) - set(before.items())}
    assert changed <= {"status.json", "writer.lock"}


def test_a_new_tag_makes_a_release_that_shares_every_file(store: Store) -> None:
    before = derived(store)
    second = store.publish(tag="spring")
    assert second.name == "0002"
    assert derived(store) == before
    assert store.publish(tag="spring").name == "0002"
    assert store.release("spring").name == "0002"


def test_an_edit_makes_new_files_only_of_what_depends_on_it(store: Store) -> None:
    first = store.release()
    retitle(store, "i004", "Another thing")
    second = store.publish()
    assert second.name == "0002"

    def entry(served: release.Release, feature: str, name: str) -> str:
        return str(served.facts(feature)["files"][name]["derived"])

    for name in ("values", "rows", "cells", "index"):
        assert entry(first, "picture", name) == entry(second, "picture", name)
    assert entry(first, "vector", "values") != entry(second, "vector", "values")
    assert entry(first, "vector", "rows") == entry(second, "vector", "rows")
    assert first.manifest["files"]["ids"] == second.manifest["files"]["ids"]
    assert first.manifest["files"]["events"] == second.manifest["files"]["events"]
    assert second.matrix("vector").values[4].tolist() == shop.value_of("vector", "Another thing")
    assert first.matrix("vector").values[4].tolist() == shop.value_of("vector", "Thing 4")
    assert store.release("0001").catalogue["title"][4].as_py() == "Thing 4"


def test_an_item_that_left_the_catalogue_is_in_the_earlier_release_only(store: Store) -> None:
    keep = shop.catalogue().filter(pc.not_equal(shop.catalogue()["item_id"], "i003"))
    shop.upsert(store, keep, remove_missing=True)
    first, second = store.release(), store.publish()
    assert "i003" in first.ids
    assert "i003" not in second.ids
    assert second.n_items == shop.N_ITEMS - 1
    assert (second.matrix("vector").values == np.delete(first.matrix("vector").values, 3, axis=0)).all()
    assert (second.ids[second.matrix("picture").rows] == second.matrix("picture").ids).all()
    assert second.n_events == first.n_events


def test_derived_files_that_were_deleted_are_rebuilt_the_same(store: Store) -> None:
    first = store.release()
    paths = [path for path, _ in first.files()]
    contents = [path.read_bytes() for path in paths]
    shutil.rmtree(store.root / "derived")
    assert len(first.verify()) == len(paths)
    assert store.publish().name == "0001"
    assert first.verify() == []
    assert [path.read_bytes() for path in paths] == contents


def test_one_tag_stays_with_one_release_when_its_files_are_lost(store: Store) -> None:
    retitle(store, "i004", "Another thing")
    tagged = store.publish(tag="spring", allow_stale=True)
    tagged.paths("vector")["values"].unlink()
    plan = store.plan_publish(tag="spring", allow_stale=True)
    assert (plan.release, plan.unchanged, plan.damaged) == (tagged.name, False, True)
    again = store.publish(tag="spring", allow_stale=True)
    assert again.manifest == tagged.manifest
    assert again.verify() == []
    assert [r.tag for r in store.releases()] == ["spring", None]


def test_files_of_an_older_release_are_made_again_from_its_own_tables(store: Store) -> None:
    first = store.release()
    retitle(store, "i004", "Another thing")
    shop.materialize(store, "vector")
    second = store.publish(allow_stale=True)
    values, ids = first.paths("vector")["values"], first.paths("vector")["cells"]
    content = values.read_bytes()
    values.write_bytes(content[:-1] + b"x")  # of the same size
    ids.unlink()
    told = store.rebuild("0001", dry_run=True)
    assert len(told.files) == 2
    assert not ids.exists()
    assert store.rebuild("0001").files == told.files
    assert store.release("0001").manifest == first.manifest
    assert values.read_bytes() == content
    assert first.verify() == second.verify() == []
    assert store.rebuild("0001").files == []
    assert store.history()[-1]["rebuilt"] == told.files


def test_a_release_whose_tables_are_gone_is_not_made_again(store: Store) -> None:
    first = store.release()
    path = first.paths("vector")["values"]
    path.write_bytes(b"cut")
    shutil.rmtree(store.tables.path(store.feature_table("vector")))
    with pytest.raises(Conflict, match="cannot be made again: version"):
        store.rebuild("0001")
    assert path.read_bytes() == b"cut"


# ---- what is refused


def test_features_that_are_not_current_are_refused_with_counts(store: Store) -> None:
    shop.upsert(store, pa.table({"item_id": ["i001", "new"], "title": ["Edited", "New"]}))
    with pytest.raises(Stale) as caught:
        store.publish()
    assert caught.value.exit_code == 2
    assert "vector: 1 missing, 1 stale" in str(caught.value)
    assert "picture: 1 missing" in str(caught.value)
    assert "private" not in str(caught.value)
    assert "import-vectors" in str(caught.value), "what was imported is not computed"
    assert release.names(store.root) == ["0001"]


def test_allow_stale_publishes_what_is_there_and_says_how_much(store: Store) -> None:
    shop.upsert(store, pa.table({"item_id": ["i001", "new"], "title": ["Edited", "New"]}))
    served = store.publish(allow_stale=True)
    coverage = served.facts("vector")["coverage"]
    assert coverage == {"ok": 60, "no_input": 0, "error": 0, "missing": 1, "stale": 1, "blocked": 0}
    assert served.coverage_rows()[0][2:] == [60, 0, 0, 2]
    assert served.cell("vector", served.row_of("new")) is Cell.ABSENT
    assert served.matrix("vector").values[1].tolist() == shop.value_of("vector", "Thing 1")


def test_a_cell_that_failed_for_good_does_not_hold_a_release_up(store: Store) -> None:
    shop.upsert(store, pa.table({"item_id": ["i001"], "title": ["Edited"]}))
    shop.materialize(store, "vector", broken=("i001",))
    for feature in ("told.short", "tokens"):
        shop.materialize(store, feature)
    served = store.publish()
    assert served.facts("vector")["coverage"]["error"] == 1
    assert served.cell("vector", 1) is Cell.ERROR
    assert "i001" not in served.matrix("vector").ids


def test_a_feature_that_was_never_computed_is_refused_or_named_as_absent(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store", computed=("vector",))
    with pytest.raises(Stale, match="picture: 60 missing"):
        store.publish()
    served = store.publish(allow_stale=True)
    assert served.features == ["vector"]
    with pytest.raises(NotFound, match="had not been computed") as caught:
        served.matrix("picture")
    assert caught.value.remedy == f"dualview import-vectors {store.root} picture FILE, then publish again"


def test_a_value_that_is_missing_is_computed_or_brought_by_the_verb_of_its_feature(tmp_path: Path) -> None:
    toml = """
    [features.told]
    kind = "imported"
    inputs = ["title"]
    encoder = "imported"
    value = "text"

    [features.words]
    kind = "embed_text"
    inputs = ["text"]
    encoder = "hashing"
    """
    store = Store.create(tmp_path / "store", toml)
    shop.upsert(store, shop.catalogue())
    served = store.publish(allow_stale=True)
    assert (
        remedies.fill_and_publish(served, "told")
        == f"dualview import-texts {store.root} told FILE, then publish again"
    )
    assert (
        remedies.fill_and_publish(served, "words") == f"dualview materialize {store.root}, then publish again"
    )


def test_a_store_without_items_has_nothing_to_publish(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no items"):
        Store.create(tmp_path / "store", shop.TOML).publish()


def test_a_store_without_features_or_events_is_published_with_its_catalogue(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", "")
    shop.upsert(store, shop.catalogue())
    served = store.publish()
    assert served.features == []
    assert served.events().num_rows == served.n_events == 0
    assert served.catalogue.num_rows == shop.N_ITEMS


@pytest.mark.parametrize("tag", ["latest", "0002", "a b", "../x", "", "x" * 65])
def test_a_tag_is_a_plain_name(store: Store, tag: str) -> None:
    with pytest.raises(BadInput, match="cannot be the tag"):
        store.publish(tag=tag)


def test_a_tag_is_given_once(store: Store) -> None:
    store.publish(tag="spring")
    retitle(store, "i004", "Another thing")
    with pytest.raises(Conflict, match="tag 'spring'"):
        store.publish(tag="spring")


def test_releases_are_found_by_name_number_and_tag(store: Store) -> None:
    store.publish(tag="spring")
    assert [r.name for r in store.releases()] == ["0002", "0001"]
    for asked, name in (("latest", "0002"), ("1", "0001"), ("0001", "0001"), ("spring", "0002")):
        assert store.release(asked).name == name
    with pytest.raises(NotFound) as caught:
        store.release("sprng")
    assert "did you mean 'spring'" in str(caught.value)
    with pytest.raises(NotFound):
        store.release("3")


def test_releases_that_are_taken_away_while_they_are_looked_up_are_passed_over(tmp_path: Path) -> None:
    def manifest(number: int) -> Path:
        return tmp_path / "releases" / f"{number:04d}" / "manifest.json"

    def add(number: int) -> None:
        manifest(number).parent.mkdir(parents=True)
        text = json.dumps({"format": 1, "name": f"{number:04d}", "tag": f"tag{number}"})
        manifest(number).with_suffix(".part").write_text(text)
        manifest(number).with_suffix(".part").rename(manifest(number))

    def churn() -> None:
        for number in range(51, 1000):
            add(number)
            shutil.rmtree(manifest(number - 49).parent)

    for number in range(1, 51):
        add(number)
    publisher = threading.Thread(target=churn)
    publisher.start()
    while publisher.is_alive():
        with pytest.raises(NotFound, match="there is no release 'none'"):
            release.open(tmp_path, "none")
        found = [int(each.name) for each in release.every(tmp_path)]
        assert found[0] == 1
        assert found == sorted(found)
        assert release.open(tmp_path).tag is not None
    publisher.join()
    assert [each.name for each in release.every(tmp_path)] == [
        "0001",
        *(f"{n:04d}" for n in range(951, 1000)),
    ]


def test_nothing_published_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing was published"):
        release.open(tmp_path)


def test_a_manifest_of_a_newer_format_is_refused(store: Store) -> None:
    path = store.root / "releases" / "0001" / "manifest.json"
    files.write_json(path, files.read_json(path) | {"format": 99})
    with pytest.raises(BadInput, match="format 99"):
        store.release()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "0001"}'])
def test_a_damaged_manifest_is_named(store: Store, content: str) -> None:
    (store.root / "releases" / "0001" / "manifest.json").write_text(content)
    with pytest.raises(Conflict, match=r"0001/manifest\.json cannot be read"):
        store.release()


def test_derived_files_whose_facts_are_damaged_are_made_again(store: Store) -> None:
    before = store.release()
    for path in (store.root / "derived").glob("*/facts.json"):
        path.write_text("{")
    after = store.publish(tag="again")
    assert after.manifest["files"] == before.manifest["files"]
    assert after.manifest["features"] == before.manifest["features"]
    assert after.verify() == []


def test_another_writer_is_named(store: Store) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store.lock("ingest"):
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    try:
        with pytest.raises(Conflict, match="'ingest'"):
            store.publish(tag="other")
    finally:
        done.set()
        thread.join()


# ---- what it survives


def test_a_publish_that_dies_before_its_manifest_leaves_the_earlier_release_and_takes_its_number_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    retitle(store, "i004", "Another thing")

    def dies(path: Path, value: Any) -> None:
        if path.name == "manifest.json":
            raise KeyboardInterrupt
        write(path, value)

    write = files.write_json
    monkeypatch.setattr(files, "write_json", dies)
    with pytest.raises(KeyboardInterrupt):
        store.publish()
    monkeypatch.undo()
    assert store.release().name == "0001"
    assert store.release().verify() == []
    retitle(store, "i005", "A third thing")
    assert store.publish().name == "0002"
    assert store.release().catalogue["title"][5].as_py() == "A third thing"
    assert (
        store.sql("SELECT title FROM catalogue WHERE item_id = 'i005'", "0002")["title"][0].as_py()
        == "A third thing"
    )


def test_a_full_disk_makes_no_release_and_leaves_no_half_files(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    retitle(store, "i004", "Another thing")
    before = derived(store)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "open_memmap", full)
    with pytest.raises(DualviewError, match="disk is full"):
        store.publish()
    assert release.names(store.root) == ["0001"]
    assert not [name for name in derived(store) - before if name.endswith(".part")]
    assert store.release().verify() == []


def test_a_lost_or_cut_file_is_named_when_it_is_needed(store: Store) -> None:
    served = store.release()
    values = next(
        path for path, entry in served.files() if entry == served.facts("vector")["files"]["values"]
    )
    values.write_bytes(values.read_bytes()[:-4])
    with pytest.raises(Conflict, match=r"values\.npy"):
        store.release().matrix("vector")
    values.unlink()
    with pytest.raises(NotFound, match=r"values\.npy"):
        store.release().matrix("vector")
    assert served.verify(content=False) == [values]


def test_a_changed_index_is_not_given_to_faiss(store: Store) -> None:
    served = store.release()
    path = next(path for path, _ in served.files() if path.name == "index.faiss")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    feature = next(
        f for f in served.searchable if served.facts(f)["files"]["index"]["derived"] == path.parent.name
    )
    with pytest.raises(Conflict, match="not the one that was written"):
        served.index(feature)


WITHOUT_TABLES = """
import json, sys
for name in ("lancedb", "lance", "duckdb", "sqlglot", "pydantic", "torch", "faiss"):
    sys.modules[name] = None
from featurestore import release
served = release.open(sys.argv[1])
matrix = served.matrix("picture")
tokens = served.matrix("tokens")
found = {
    "items": len(served.ids), "row": served.row_of("i011"), "title": served.catalogue["title"][11].as_py(),
    "values": float(matrix.values.sum()), "vectors": int(tokens.offsets[-1]), "events": served.events().num_rows,
}
del sys.modules["faiss"]
from featurestore.search import similar
found["near"] = similar(served, item="i011", feature="picture", k=3)["item_id"].to_pylist()
print(json.dumps(found))
"""


def test_a_copy_of_releases_and_derived_is_enough_without_tables_and_their_libraries(
    store: Store, tmp_path: Path
) -> None:
    from featurestore.search import similar

    for folder in ("releases", "derived"):
        shutil.copytree(store.root / folder, tmp_path / "copy" / folder)
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_TABLES, str(tmp_path / "copy")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    served = store.release()
    assert json.loads(ran.stdout) == {
        "items": 60,
        "row": 11,
        "title": "Thing 11",
        "values": float(served.matrix("picture").values.sum()),
        "vectors": len(served.matrix("tokens").values),
        "events": 60,
        "near": similar(served, item="i011", feature="picture", k=3)["item_id"].to_pylist(),
    }


def test_publishing_reads_each_table_at_the_version_it_pins(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    retitle(store, "i004", "Another thing")
    real = store.tables.dataset
    asked: list[tuple[str, int | None]] = []

    def watched(name: str, version: int | None = None) -> Any:
        asked.append((name, version))
        return real(name, version)

    status = store.status()
    monkeypatch.setattr(store, "status", lambda **_: status)
    monkeypatch.setattr(store.tables, "dataset", watched)
    manifest = store.publish().manifest
    pinned = {(name, version) for name, version in asked if version is not None}
    assert pinned <= set(manifest["tables"].items())
    assert {name for name, _ in pinned} >= {"items", features.Recipe.table(shop.RECIPES["vector"], "vector")}
