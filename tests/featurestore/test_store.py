from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featurestore import features, files, schema, status
from featurestore.errors import BadInput, Conflict, DiskError, ErrorExample, ErrorGroup, NotFound
from featurestore.recipe import Recipe
from featurestore.schema import Status, ValueKind
from featurestore.store import Store
from tests.featurestore import shop

TEXT = Recipe(kind="embed_text", inputs=("column:title",), encoder="tfidf_svd", dim=2)
IMAGE = Recipe(kind="embed_image", inputs=("image",), encoder="color_texture", dim=2)
DEFINED = '[features.text]\nkind = "embed_text"\ninputs = ["text"]\nencoder = "tfidf_svd"\n'


def put_items(store: Store, names: str, *, title: str = "Title", deleted: bool = False) -> None:
    whole = schema.items_schema([])
    if not store.tables.exists(schema.ITEMS):
        store.tables.create(schema.ITEMS, whole)
    rows = [
        dict.fromkeys(whole.names) | {schema.ITEM_ID: n, schema.TITLE: title, schema.DELETED: deleted}
        for n in names
    ]
    store.tables.upsert(schema.ITEMS, pa.Table.from_pylist(rows, schema=whole), schema.ITEM_ID)


def put_vectors(
    store: Store, feature: str, names: str, *, status: Status = Status.OK, code: str | None = None
) -> None:
    recipe = store.recipe(feature)
    assert recipe is not None
    hashes = {r["item_id"]: r["input_hash"] for r in store.plan(feature).to_pylist()}
    ok = status is Status.OK
    rows = {
        "item_id": pa.array(list(names)),
        "value": pa.array([[ord(n), 1.0] if ok else None for n in names], pa.list_(pa.float32(), 2)),
        "input_hash": pa.array([hashes[n] for n in names]),
        "status": pa.array([str(status)] * len(names)),
        "error_code": pa.array([code] * len(names), pa.string()),
        "error_message": pa.array([f"{code} of {n}" if code else None for n in names], pa.string()),
        "transient": pa.array([False] * len(names)),
        "attempts": pa.array([0] * len(names), pa.int32()),
    }
    features.commit(store.tables, feature, recipe, pa.table(rows))


@pytest.fixture
def filled(store: Store) -> Store:
    """Items a, b, c; a and b have a text vector, c's failed; nothing has a picture."""
    put_items(store, "abc")
    store.lock_recipe("text", TEXT, {"items": 3})
    put_vectors(store, "text", "ab")
    put_vectors(store, "text", "c", status=Status.ERROR, code="too_long")
    return store


def counted(store: Store, feature: str) -> dict[str, int]:
    found = next(f for f in store.status().features if f.name == feature)
    names = ("current", "no_input", "missing", "stale", "failed", "blocked")
    return {name: getattr(found, name) for name in names if getattr(found, name)}


def notes(store: Store, feature: str) -> tuple[str, ...]:
    return next(f for f in store.status().features if f.name == feature).notes


# ---- making and opening


def test_a_store_that_was_made_can_be_opened(tmp_path: Path) -> None:
    made = Store.create(tmp_path / "deep" / "store", DEFINED)
    opened = Store.open(str(tmp_path / "deep" / "store"))
    assert opened.root == made.root
    assert list(opened.definitions.features) == ["text"]
    assert opened.status().features[0].recipe is None


def test_a_store_is_made_in_an_empty_folder_but_in_no_other(tmp_path: Path, store: Store) -> None:
    (tmp_path / "empty").mkdir()
    Store.create(tmp_path / "empty", DEFINED)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for taken, said in [("full", "not empty"), ("file", "not empty"), ("store", "a store already")]:
        with pytest.raises(Conflict, match=said) as refused:
            Store.create(tmp_path / taken, DEFINED)
        assert refused.value.remedy
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_a_bad_declaration_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="'encoder' is missing"):
        Store.create(tmp_path / "store", DEFINED.replace("encoder", "encodr"))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "url", ["s3://bucket/store", "gs://bucket/store", "file:///tmp/store", "http://host/store"]
)
def test_what_is_no_local_folder_is_refused_with_the_reason(url: str) -> None:
    for call in (Store.open, lambda root: Store.create(root, DEFINED)):
        with pytest.raises(BadInput, match="is not a local folder") as refused:
            call(url)
        assert "local disk" in (refused.value.remedy or "")


def test_a_store_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(BadInput, match="cannot be made"):
        Store.create(tmp_path / "file" / "store", DEFINED)
    assert (tmp_path / "file").read_text() == "kept"


def test_what_is_no_store_is_refused_with_the_way_to_make_one(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NotFound, match="is not a store") as refused:
            Store.open(path)
        assert refused.value.remedy == f"make one: dualview init {path}"


def test_a_store_of_a_newer_format_is_refused(store: Store) -> None:
    manifest = store.root / "store.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": schema.FORMAT + 1}))
    with pytest.raises(
        BadInput, match=f"has format {schema.FORMAT + 1}, this version reads format {schema.FORMAT}"
    ):
        Store.open(store.root)


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}", '"x"'])
def test_a_damaged_manifest_is_refused_with_its_path(store: Store, text: str) -> None:
    (store.root / "store.json").write_text(text)
    with pytest.raises(BadInput, match=r"store\.json cannot be read"):
        Store.open(store.root)


# ---- status


def test_status_counts_live_items_and_their_cells(filled: Store) -> None:
    status = filled.status()
    assert (status.items, status.items_without_image, status.events, status.release) == (3, 3, 0, None)
    assert counted(filled, "text") == {"current": 2, "failed": 1}
    assert counted(filled, "image") == {"missing": 3}
    assert not status.current
    put_items(filled, "a", deleted=True)
    assert filled.status().items == 2
    assert counted(filled, "text") == {"current": 1, "failed": 1}
    put_items(filled, "b", title="edited")
    put_items(filled, "d")
    assert counted(filled, "text") == {"missing": 1, "stale": 1, "failed": 1}


def test_a_store_is_current_when_nothing_is_left_to_compute(filled: Store) -> None:
    filled.lock_recipe("image", IMAGE)
    put_vectors(filled, "image", "abc", status=Status.NO_INPUT)
    assert counted(filled, "image") == {"no_input": 3}
    assert filled.status().current, "an error that stays is an error, not something stale"


def test_status_of_unchanged_tables_scans_nothing(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = filled.status()

    def scan(store: Store, reasons: object) -> None:
        raise AssertionError("scanned")

    with monkeypatch.context() as patched:
        patched.setattr(status, "_scan", scan)
        assert Store.open(filled.root).status() == first
        put_items(filled, "e")
        with pytest.raises(AssertionError, match="scanned"):
            filled.status()
    assert filled.status().items == 4


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"key": 1'])
def test_a_damaged_cache_is_made_anew(filled: Store, text: str) -> None:
    expected = filled.status()
    cache = filled.root / "cache" / "status.json"
    cache.write_text(text)
    assert filled.status() == expected
    assert json.loads(cache.read_text())["status"]["items"] == 3


LIGHT = """
import sys
from featurestore.store import Store
store = Store.open(sys.argv[1])
if sys.argv[2] == "scan":
    (store.root / "cache" / "status.json").unlink()
print(store.status().items)
print(*sorted({"torch", "lancedb", "duckdb", "faiss", "lance"} & set(sys.modules)))
"""


def test_status_loads_neither_torch_nor_lancedb_and_duckdb_only_to_scan(filled: Store) -> None:
    filled.status()

    def loaded(mode: str) -> list[str]:
        found = subprocess.run(
            [sys.executable, "-c", LIGHT, str(filled.root), mode], capture_output=True, text=True, check=True
        )
        items, modules = found.stdout.splitlines()
        assert items == "3"
        return modules.split()

    assert loaded("cache") == ["lance"]
    assert loaded("scan") == ["duckdb", "lance"]


def test_an_edited_declaration_shows_as_missing_and_says_why(filled: Store) -> None:
    assert notes(filled, "text") == ()
    path = filled.root / "features.toml"
    path.write_text(path.read_text().replace('"tfidf_svd"', '"tfidf_svd"\ndim = 64'))
    assert counted(filled, "text") == {"missing": 3}
    assert "features.toml changed" in notes(filled, "text")[0]
    assert filled.recipe("text") == TEXT, "the old recipe stays active until materialize makes the new one"
    assert filled.outdated("text") == notes(filled, "text")[0]


def test_a_feature_that_is_not_published_any_more_stays_current(filled: Store) -> None:
    path = filled.root / "features.toml"
    path.write_text(path.read_text().replace('"tfidf_svd"', '"tfidf_svd"\npublish = false'))
    assert counted(filled, "text") == {"current": 2, "failed": 1}
    assert filled.outdated("text") is None


def test_a_new_recipe_of_what_a_feature_reads_makes_it_wait(tmp_path: Path) -> None:
    toml = (
        DEFINED + '[features.joint]\nkind = "embed_text"\ninputs = ["feature:text"]\nencoder = "tfidf_svd"\n'
    )
    store = Store.create(tmp_path / "store", toml)
    put_items(store, "ab")
    text = Recipe(kind="describe", inputs=("column:title",), encoder="x", value=ValueKind.TEXT)
    store.lock_recipe("text", text)
    store.lock_recipe("joint", Recipe(kind="e", inputs=(f"feature:text@{text.id}",), encoder="x", dim=2))
    assert counted(store, "joint") == {"blocked": 2}
    assert store.outdated("joint") is None
    store.lock_recipe("text", text.model_copy(update={"code_version": 2}))
    assert store.outdated("joint") == "'text', which it reads, has a new recipe"
    assert counted(store, "joint") == {"blocked": 2}, "its cells are new, but first come those of text"


def test_status_says_when_a_fit_saw_far_fewer_items_than_there_are(filled: Store) -> None:
    filled.lock_recipe("text", TEXT, {"items": 2})
    assert notes(filled, "text") == (
        f"fitted on 2 items, there are 3 now; to fit again: dualview fit {filled.root} text --refit",
    )
    filled.lock_recipe("text", TEXT, {"items": 3})
    assert notes(filled, "text") == ()


def test_a_declaration_that_is_gone_is_said_so(filled: Store) -> None:
    (filled.root / "features.toml").unlink()
    with pytest.raises(NotFound, match=r"features\.toml is gone"):
        filled.status()


# ---- reading


def test_a_matrix_holds_the_vectors_of_live_items_in_order_of_id(filled: Store) -> None:
    put_items(filled, "Z")
    put_vectors(filled, "text", "Z")
    ids, values = filled.matrix("text")
    assert ids.tolist() == ["Z", "a", "b"]
    assert values[:, 0].tolist() == [ord("Z"), ord("a"), ord("b")]
    put_items(filled, "a", deleted=True)
    assert filled.matrix("text")[0].tolist() == ["Z", "b"]


def test_a_matrix_that_cannot_be_had_says_what_to_do(filled: Store) -> None:
    with pytest.raises(NotFound, match="'image' was never computed") as refused:
        filled.matrix("image")
    assert "materialize" in (refused.value.remedy or "")
    with pytest.raises(NotFound, match="no feature 'txt'") as refused:
        filled.matrix("txt")
    assert refused.value.remedy == "did you mean 'text'?"
    filled.lock_recipe("image", IMAGE)
    with pytest.raises(NotFound, match="never computed"):
        filled.matrix("image")
    filled.lock_recipe("text", Recipe(kind="d", inputs=("image",), encoder="x", value=ValueKind.TEXT))
    with pytest.raises(BadInput, match="holds text"):
        filled.matrix("text")


def test_errors_are_those_of_live_items_grouped_by_code(filled: Store) -> None:
    example = ErrorExample("c", None, "too_long of c", attempts=1)
    again = (
        f"dualview materialize {filled.root} --feature text --failed, or mend the items and ingest them again"
    )
    group = ErrorGroup("text", "too_long", 1, [example], retryable=False, remedy=again)
    assert filled.errors() == [group]
    put_items(filled, "def")
    put_vectors(filled, "text", "def", status=Status.ERROR, code="too_long")
    assert [(g.count, len(g.examples)) for g in filled.errors(examples=2)] == [(4, 2)]
    put_items(filled, "cdef", deleted=True)
    assert filled.errors() == []


def test_sql_sees_the_items(filled: Store) -> None:
    assert filled.sql("SELECT count(*) AS n FROM items").to_pylist() == [{"n": 3}]


def test_a_published_matrix_is_that_of_the_release_and_not_of_today(filled: Store) -> None:
    filled.lock_recipe("image", IMAGE)
    put_vectors(filled, "image", "abc", status=Status.NO_INPUT)
    release = filled.publish()
    assert filled.status().release == release.name
    put_items(filled, "d")
    put_vectors(filled, "text", "d")
    assert filled.matrix("text")[0].tolist() == ["a", "b", "d"]
    assert list(filled.matrix("text", release="latest")[0]) == ["a", "b"]
    assert [r.name for r in filled.releases()] == [release.name]


# ---- what can go wrong on a disk


LITTLE_ROOM = """
import resource, sys
import pyarrow as pa
from featurestore.errors import DiskError
from featurestore.store import Store
from featurestore import schema
store = Store.open(sys.argv[1])
whole = schema.items_schema([])
row = dict.fromkeys(whole.names) | {"item_id": "a", "title": "x" * 3_000_000}
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    with store.lock("ingest"):
        store.tables.upsert("items", pa.Table.from_pylist([row], schema=whole), "item_id")
except DiskError as error:
    print(error)
"""


def test_a_write_that_the_disk_refuses_is_a_clear_error_and_loses_nothing(filled: Store) -> None:
    before = filled.status()
    version = filled.tables.version(schema.ITEMS)
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_ROOM, str(filled.root)], capture_output=True, text=True, check=True
    )
    assert "the disk is full: this batch of table 'items' was not written" in done.stdout
    assert "free some space and run the same command again" in done.stdout
    assert filled.tables.version(schema.ITEMS) == version
    assert filled.status() == before
    with filled.lock("ingest"):
        put_items(filled, "d")
    assert filled.status().items == 4


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """`folder` mounted read-only where we are root, which no permission stops; else without the right to write."""
    if os.getuid() == 0:
        mount = ["mount", "--bind", str(folder), str(folder)]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("root, and yet mounting is refused")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
            yield
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    folders = [folder, *(p for p in folder.rglob("*") if p.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in folders:
            path.chmod(0o755)


def test_a_store_that_may_only_be_read_still_answers(filled: Store) -> None:
    with read_only(filled.root):
        store = Store.open(filled.root)
        assert store.status().items == 3
        assert store.matrix("text")[0].tolist() == ["a", "b"]
        assert len(store.errors()) == 1

        def write() -> None:
            with store.lock("ingest"):
                pass

        with pytest.raises(DiskError, match="cannot be written"):
            write()
        with pytest.raises(DiskError, match="cannot be written"):
            put_items(store, "z")
    assert not (filled.root / "cache").exists()
    assert filled.status().items == 3


def test_a_full_disk_does_not_stop_the_lock_that_freeing_space_needs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise DiskError("the disk is full")

    monkeypatch.setattr("featurestore.files.write_json", full)
    with store.lock("gc"):
        assert not (store.root / "writer.json").exists()


def test_a_release_stays_open_until_its_manifest_changes(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", shop.TOML)
    shop.upsert(store, shop.catalogue(4))
    shop.materialize(store, "vector")
    store.publish(allow_stale=True)
    first = store.release()
    assert store.release() is store.release("1") is first
    store.publish(tag="again", allow_stale=True)
    assert store.release().name == "0002"
    assert store.release("0001") is first
    path = store.root / "releases" / "0001" / "manifest.json"
    files.write_json(path, files.read_json(path) | {"created": "later"})
    assert store.release("0001").created == "later"
