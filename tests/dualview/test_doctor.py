"""`doctor` finds what is wrong and says how to mend it; where nothing is, it says so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from dualview import Store
from dualview.doctor import Finding, examine
from featurestore import failpoints
from featurestore.errors import NotFound
from featurestore.lock import WriterLock

FEATURES = """
[features.text]
kind = "embed_text"
inputs = ["text"]
encoder = "tfidf_svd"
dim = 4
"""
MODEL = (
    '\n[features.meaning]\nkind = "embed_text"\ninputs = ["text"]\nencoder = "sentence"\nmodel = "{model}"\n'
)


@pytest.fixture
def shop(tmp_path: Path) -> Store:
    """A store with two pictured items, materialized and published."""
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (40, 40), colour).save(tmp_path / name)
    store = Store.create(tmp_path / "shop", FEATURES)
    titles = ["red mug", "blue cup", "green bowl"]
    items = pa.table({"item_id": ["a", "b", "c"], "title": titles, "image": ["a.png", "b.png", None]})
    store.ingest(items, images_root=tmp_path)
    store.materialize()
    store.publish()
    return store


def about(found: list[Finding], what: str) -> list[Finding]:
    return [finding for finding in found if finding.about == what]


def test_a_healthy_store_on_this_machine_has_no_problem(shop: Store) -> None:
    found = examine(shop.root, deep=True)
    assert [f for f in found if f.level == "problem"] == []
    assert about(found, "tables")[0].says.endswith("no key stands twice")
    assert about(found, "releases")[0].says == "1 releases, every byte read"
    assert about(found, "pictures")[0].says == "2 of 2 files looked at, all as they were"
    assert "torch" in about(found, "versions")[0].says


def test_looking_writes_nothing(shop: Store) -> None:
    def state() -> dict[str, tuple[int, int]]:
        paths = [path for path in shop.root.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}

    before = state()
    examine(shop.root, deep=True)
    assert state() == before


def test_without_a_store_only_the_machine_is_looked_at() -> None:
    assert {f.about for f in examine()} >= {"versions", "threads", "disk"}
    with pytest.raises(NotFound, match="is not a store"):
        examine("/nowhere")


def test_a_file_of_a_release_that_changed_in_its_bytes_is_found_by_a_deep_look_alone(shop: Store) -> None:
    path = next(shop.root.glob("derived/*/values.npy"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert about(examine(shop.root), "releases")[0].level == "ok"
    found = about(examine(shop.root, deep=True), "releases")[0]
    assert found.level == "problem"
    assert str(path) in found.says
    assert found.remedy == f"dualview publish {shop.root} --rebuild 0001"
    assert shop.publish().name == "0001"  # nothing changed, and sizes are as they were
    shop.rebuild("0001")
    assert about(examine(shop.root, deep=True), "releases")[0].level == "ok"


def test_what_was_interrupted_and_is_pending_is_told_until_it_is_finished(shop: Store) -> None:
    shop.ingest(pa.table({"item_id": ["a"], "title": ["green mug"]}))
    script = (
        f"from featurestore.store import Store; Store.open({str(shop.root)!r}).rollback('0001', discard=True)"
    )
    environment = os.environ | {failpoints.VARIABLE: "after rename to pending.json"}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert killed.returncode == failpoints.KILLED
    says = "'rollback' was interrupted, or runs now; the next verb that writes finishes it"
    assert shop.status().pending == says
    assert says in [finding.says for finding in about(examine(shop.root), "lock")]
    shop.gc()
    assert shop.status().pending is None
    assert len(about(examine(shop.root), "lock")) == 1
    assert shop.release().name == "0002"


def test_a_damaged_manifest_is_a_problem_with_a_remedy_that_mends_it(shop: Store) -> None:
    folder = shop.root / "releases" / "0001"
    (folder / "manifest.json").write_text("{")
    (found,) = about(examine(shop.root), "releases")
    assert found.level == "problem"
    assert "what to do" not in found.says
    assert found.remedy == "restore its manifest.json from a copy, or take its folder away"
    shutil.rmtree(folder)
    assert shop.publish().name == "0001"
    assert about(examine(shop.root, deep=True), "releases")[0].level == "ok"


def test_a_damaged_table_and_a_lost_artifact_are_problems(shop: Store) -> None:
    shutil.rmtree(shop.root / "artifacts")
    shutil.rmtree(shop.tables.path(shop.feature_table("text")) / "data")
    found = examine(shop.root, deep=True)
    assert about(found, "artifacts")[0].level == "problem"
    assert "fit" in str(about(found, "artifacts")[0].remedy)
    assert any(f.level == "problem" for f in about(found, "tables"))


def test_pictures_that_are_gone_or_changed_are_told_apart(shop: Store, tmp_path: Path) -> None:
    (tmp_path / "a.png").unlink()
    Image.new("RGB", (50, 50), "green").save(tmp_path / "b.png")
    says = [f.says for f in about(examine(shop.root), "pictures")]
    assert any(s.startswith("1 of 2 files are gone") for s in says)
    assert any(s.startswith("1 of 2 files changed") for s in says)


def test_the_writer_is_named_while_it_writes_and_after_it_died(shop: Store) -> None:
    assert about(examine(shop.root), "lock")[0].says == "nobody is writing"
    begun, end = threading.Event(), threading.Event()

    def write() -> None:
        with WriterLock(shop.root).hold("materialize"):
            begun.set()
            end.wait()

    thread = threading.Thread(target=write)
    thread.start()
    begun.wait()
    try:
        assert "is writing" in about(examine(shop.root), "lock")[0].says
    finally:
        end.set()
        thread.join()
    died = "import os, sys; from featurestore.lock import WriterLock\n"
    died += "with WriterLock(sys.argv[1]).hold('ingest'): os._exit(9)"
    subprocess.run([sys.executable, "-c", died, str(shop.root)], check=False)
    assert "'ingest'" in about(examine(shop.root), "lock")[0].says
    assert "ended without finishing" in about(examine(shop.root), "lock")[0].says


def test_a_model_that_cannot_be_had_is_a_problem_with_the_way_to_bring_it(
    shop: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (shop.root / "features.toml").write_text(FEATURES + MODEL.format(model=tmp_path / "gone"))
    found = about(examine(shop.root), "model of meaning")[0]
    assert found.level == "problem"
    assert "is not there" in found.says
    (tmp_path / "gone").mkdir()
    assert about(examine(shop.root), "model of meaning")[0].level == "ok"


def test_the_command_prints_one_json_document_and_ends_with_2_on_a_problem(shop: Store) -> None:
    def doctor() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dualview", "doctor", str(shop.root), "--json"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    healthy = doctor()
    assert (healthy.returncode, json.loads(healthy.stdout)["problems"]) == (0, 0)
    next(shop.root.glob("derived/*/catalogue.arrow")).unlink()
    sick = doctor()
    assert sick.returncode == 2
    assert json.loads(sick.stdout)["problems"] == 1
