"""Fused features as a person walks them: declared, fitted, computed, published, searched and trained on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dualview import cli
from dualview.demo.catalogue import CatalogueSettings
from dualview.demo.taste import TasteSettings
from dualview.demo.truth import make_shop
from dualview.store import Store
from dualview.training import fit
from tests.ingest.fusing import declare
from tests.untouched import untouched

TOML = """
[features.text]
kind = "embed_text"
inputs = ["text"]
encoder = "tfidf_svd"
dim = 16

[features.image]
kind = "embed_image"
inputs = ["image"]
encoder = "color_texture"

[features.fine]
kind = "embed_tokens"
inputs = ["text"]
encoder = "tfidf_svd"
dim = 8
chunk_words = 4

[features.fused]
kind = "fuse"
encoder = "dmesr"
inputs = ["text", "image", "fine"]
width = 8
epochs = 2
batch = 32

[features.fused_fine]
kind = "fuse"
encoder = "dmesr"
inputs = ["text", "image", "fine"]
output = "fine"
same_fit = "fused"
"""
SMALL = {"epochs": 1, "length": 10, "width": 16, "layers": 1, "heads": 1}
Call = Callable[..., Any]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`dualview ARGS --json` in this process: the exit code and the document."""

    def run(*args: object) -> tuple[int, Any]:
        monkeypatch.setattr(sys, "argv", ["dualview", *map(str, args), "--json"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), json.loads(capsys.readouterr().out)

    return run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop whose features are computed but for the fused ones, published, with a run of a dual tower."""
    folder = tmp_path_factory.mktemp("fuse")
    make_shop(folder / "shop", CatalogueSettings(items=60, seed=3, px=32), TasteSettings(users=40))
    declared = TOML.split("[features.fused]")[0]
    store = Store.create(folder / "store", declared)
    store.ingest(folder / "shop" / "items.csv", folder / "shop" / "events.csv")
    store.materialize()
    store.publish()
    fit(store, items="id+text+image+fine", tower="dmesr", **SMALL)
    declare(store, TOML)
    return store.root


def test_the_whole_journey_of_a_fused_feature(root: Path, call: Call) -> None:
    code, said = call("materialize", root)
    assert code == 1
    assert said["error"]["remedy"] == f"dualview fit {root} fused"

    with untouched(root):
        code, plan = call("fit", root, "fused", "--dry-run")
    assert (code, plan["items"], plan["run"], plan["recipe"]) == (0, 60, None, None)
    assert set(plan["present"]) == {"text", "image", "fine"}
    code, made = call("fit", root, "fused")
    assert code == 0
    assert (made["learnt"], made["held_out"], made["events"]) == (54, 6, None)
    assert {"before", "after"} <= {row["when"] for row in made["report"]}
    facts = Store.open(root).locked()["fused"].fitted or {}
    assert facts["report"] == made["report"]
    assert {"at", "items", "items_sha256", "seed"} <= set(facts)

    code, done = call("materialize", root)
    assert code == 0
    assert {f["feature"]: f["ok"] for f in done["features"]}["fused"] == 60
    assert call("status", root)[0] == 0
    drift = call("status", root, "--drift")[1]["drift"]
    assert drift["fused"] == {"items_then": 60, "items_now": 60, "changed_since": 0, "unknown_words": None}
    code, _ = call("publish", root, "--tag", "items-alone")
    assert code == 0
    item = str(Store.open(root).release().ids[0])
    code, near = call("similar", root, item, "-f", "fused", "-k", 3)
    assert code == 0
    assert len(near) == 3
    run = fit(Store.open(root), items="id+fused", **SMALL)
    assert run.config.features == ("fused",)

    # the weights of a run, which say what it saw
    code, said = call("fit", root, "fused")
    assert (code, said["error"]["code"]) == (1, "conflict")
    code, made = call("fit", root, "fused", "--refit", "--run", "sasrec-dmesr-id-text-image-fine-001")
    assert code == 0
    events = made["events"]
    assert events["run"] == "sasrec-dmesr-id-text-image-fine-001"
    assert events["split"] == "leave-one-out"
    assert call("materialize", root)[0] == call("publish", root)[0] == 0
    locked = Store.open(root).locked()
    assert (locked["fused_fine"].fitted or {})["events"] == events
    _, differs = call("diff", root, "items-alone")
    changes = {f["feature"]: f["recipe_changes"] for f in differs["features"]}["fused"]
    assert changes["option run"] == [None, events["run"]]
    assert changes["option split_hash"] == [None, events["split_hash"]]
    assert "artifact fusion" in changes
    _, traced = call("trace", root, "feature:fused")
    recipe = next(node for node in traced["below"] if node["kind"] == "recipe")
    assert recipe["fitted"]["events"] == events
    code, said = call(
        "train", root, "--items", "id+fused_fine", "--set", "k_core=[2, 2]", "--set", "epochs=1"
    )
    assert code == 1
    assert "was fitted on the training events of split" in said["error"]["message"]
    assert fit(Store.open(root), items="id+fused_fine", **SMALL).config.features == ("fused_fine",)

    # what is kept and forgotten
    assert call("gc", root)[0] == 0
    user = Store.open(root).sql("select user_id from interactions limit 1").to_pylist()[0]["user_id"]
    _, forgotten = call("forget", root, "--user", user, "--yes")
    assert forgotten["fitted"] == ["fused"]
    _, again = call("forget", root, "--item", item, "--yes")
    assert set(again["fitted"]) >= {"text", "fine", "fused"}
    assert "fused_fine" not in again["fitted"]
    assert call("materialize", root)[1]["errors"] == 0


def test_a_fit_that_cannot_be_meant_is_refused(root: Path, call: Call, tmp_path: Path) -> None:
    run = "sasrec-dmesr-id-text-image-fine-001"

    def refused(*args: object) -> str:
        code, said = call("fit", root, *args)
        assert code == 1
        return str(said["error"]["message"]) + " / " + str(said["error"]["remedy"])

    assert "uses the fit of 'fused'" in refused("fused_fine")
    assert "make features of kind fuse alone" in refused("text", "--run", run)
    assert "there is no run" in refused("fused", "--refit", "--run", "sasrec-id-999")
    fresh = Store.create(tmp_path / "fresh", TOML)
    assert "no items to fit on" in call("fit", fresh.root, "fused")[1]["error"]["message"]
    store = Store.open(root)
    with store.lock("test"):
        fit(store, items="id+text+image+fine", tower="init", **SMALL)  # the same features, and no two views
        plain = "sasrec-init-id-text-image-fine-001"
        for more in ((), ("--dry-run",)):
            assert "which fuses no views" in refused("fused", "--refit", "--run", plain, *more)
        declare(store, TOML.replace("width = 8", "width = 4"))
        assert "has views of width 8; feature 'fused' asks for 4" in refused("fused", "--run", run)
        declare(store, TOML.replace('"image", "fine"', '"fine"'))
        assert f"run {run} learnt from text, image, fine" in refused("fused", "--run", run)
        declare(store, TOML.replace("dim = 16", "dim = 12"))
        assert "'text', which is to be computed first" in refused("fused")
        store.materialize(["text"])
        recipe = store.recipe("text")
        assert recipe is not None
        said = refused("fused", "--run", run)
        assert f"run {run} learnt from 'text' of recipe" in said
        assert f"reads 'text' of recipe {recipe.short}" in said
