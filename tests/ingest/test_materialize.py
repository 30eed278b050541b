from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from featurestore import features, files, schema
from featurestore.errors import BadInput, Conflict, ModelUnavailable
from featurestore.recipe import Recipe
from featurestore.schema import Status, ValueKind
from featurestore.store import Store
from ingest.encode import base
from ingest.encode.models import Models
from ingest.load import ingest
from ingest.materialize import FeatureReport, materialize
from tests.ingest import tiny_models
from tests.ingest.catalogue import ROWS, SeenMaker, edited, fill, scribble

SEEN = '[features.text]\nkind = "embed_text"\ninputs = ["text"]\nencoder = "seen"\n'


def cells(store: Store, feature: str) -> dict[str, dict[str, object]]:
    rows = store.tables.read(store.feature_table(feature)).to_pylist()
    return {row[schema.ITEM_ID]: row for row in rows}


def by_name(reports: Sequence[FeatureReport]) -> dict[str, FeatureReport]:
    return {report.feature: report for report in reports}


@pytest.fixture
def seen(store: Store, monkeypatch: pytest.MonkeyPatch) -> SeenMaker:
    """The store's only feature is made by an encoder that remembers what it was given."""
    maker = SeenMaker()
    monkeypatch.setitem(base._makers, ("embed_text", "seen"), maker)
    files.write_text(store.root / "features.toml", SEEN)
    return maker


# ---- what is computed


def test_every_cell_is_computed_once_and_then_nothing(store: Store) -> None:
    fill(store)
    found = by_name(materialize(store).features)
    assert (found["text"].ok, found["text"].no_input, found["text"].error) == (5, 1, 0)
    assert (found["image"].ok, found["image"].no_input, found["image"].error) == (4, 2, 0)
    assert store.status().current
    again = materialize(store)
    assert again.computed == 0
    assert again.to_dict()["features"][0]["computed"] == 0


def test_vectors_are_the_encoders_own(store: Store) -> None:
    fill(store)
    materialize(store)
    recipe = store.recipe("image")
    assert recipe is not None
    ids, values = store.matrix("image")
    assert ids.tolist() == ["a", "b", "c", "d"]
    tools = base.Tools(Models(store.root), store.artifacts)
    encoder = base.maker("embed_image", "color_texture").load(recipe, tools)
    red = encoder.encode([encoder.prepare(tiny_models.picture("#c03030"))])[0]
    np.testing.assert_allclose(values[0], red, atol=1e-6)
    np.testing.assert_array_equal(values[0], values[3])


def test_an_edit_recomputes_that_item_and_what_depends_on_it_only(store: Store, seen: SeenMaker) -> None:
    fill(store)
    materialize(store)
    seen.encoder.texts.clear()
    fill(store, edited("b", title="navy shoe"))
    assert materialize(store).computed == 1
    assert seen.encoder.texts == ["navy shoe\nbrand: Runwell\ntags: sport"]


def test_a_replaced_picture_is_computed_anew_and_a_new_item_added(store: Store) -> None:
    fill(store)
    materialize(store)
    before = cells(store, "image")
    ingest(
        store, pa.table({"item_id": ["g"], "image": ["b.png"]}), images_root=store.root.parent / "pictures"
    )
    scribble(store.root.parent / "pictures", "c.png")
    ingest(
        store, pa.table({"item_id": ["c"], "image": ["c.png"]}), images_root=store.root.parent / "pictures"
    )
    report = by_name(materialize(store).features)["image"]
    assert report.ok == 2
    after = cells(store, "image")
    assert after["c"][schema.VALUE] != before["c"][schema.VALUE]
    assert after["g"][schema.VALUE] == after["b"][schema.VALUE] == before["b"][schema.VALUE]


def test_equal_inputs_are_encoded_once(store: Store, seen: SeenMaker) -> None:
    fill(store)
    report = materialize(store).features[0]
    assert report.ok == 5
    assert sorted(seen.encoder.texts) == sorted(set(seen.encoder.texts))
    rows = cells(store, "text")
    assert rows["a"][schema.VALUE] == rows["e"][schema.VALUE]


def test_a_removed_item_is_not_computed(store: Store, seen: SeenMaker) -> None:
    fill(store)
    ingest(store, pa.table({"item_id": ["a"], "title": ["red shoe"]}), remove_missing=True)
    materialize(store)
    assert len(seen.encoder.texts) == 1


def test_limit_leaves_the_rest_for_the_next_call(store: Store, seen: SeenMaker) -> None:
    fill(store)
    first = materialize(store, limit=4).features[0]
    assert (first.computed, first.skipped) == (4, 2)
    second = materialize(store).features[0]
    assert (second.computed, second.skipped) == (2, 0)


def test_only_the_features_asked_for_and_what_they_read_are_computed(store: Store) -> None:
    fill(store)
    assert [f.feature for f in materialize(store, ["image"]).features] == ["image"]
    assert store.recipe("text") is None


def test_a_store_without_items_and_imported_features_are_left_alone(store: Store) -> None:
    assert materialize(store).computed == 0
    files.write_text(
        store.root / "features.toml",
        '[features.mine]\nkind = "imported"\ninputs = ["title"]\nencoder = "imported"\n',
    )
    fill(store)
    assert materialize(store).features == [FeatureReport("mine", None)]


def test_a_text_feature_is_read_from_its_table_and_blocks_where_it_has_an_error(
    store: Store, seen: SeenMaker
) -> None:
    told = '[features.told]\nkind = "imported"\ninputs = ["title"]\nencoder = "imported"\n'
    reads = SEEN.replace('["text"]', '["title", "told"]')
    files.write_text(store.root / "features.toml", told + reads)
    fill(store)
    recipe = Recipe(kind="imported", inputs=("column:title",), encoder="imported", value=ValueKind.TEXT)
    store.lock_recipe("told", recipe)
    plan = store.plan("told")
    rows = plan.select([schema.ITEM_ID, schema.INPUT_HASH, schema.ATTEMPTS]).to_pydict()
    done = {"a": "a shoe for sport", "b": None, "c": "a cup", "d": "another", "e": None, "f": None}
    error = [name == "e" for name in rows[schema.ITEM_ID]]
    features.commit(
        store.tables,
        "told",
        recipe,
        pa.table(
            rows
            | {
                schema.VALUE: pa.array([done[name] for name in rows[schema.ITEM_ID]], pa.string()),
                schema.STATUS: [
                    "error" if e else "ok" if done[n] else "no_input"
                    for n, e in zip(rows[schema.ITEM_ID], error, strict=True)
                ],
                schema.ERROR_CODE: pa.array(["x" if e else None for e in error], pa.string()),
                schema.ERROR_MESSAGE: pa.nulls(6, pa.string()),
                schema.TRANSIENT: error,
                schema.ATTEMPTS: pa.array(rows[schema.ATTEMPTS], pa.int32()),
            }
        ),
    )
    report = by_name(materialize(store).features)["text"]
    assert (report.ok, report.no_input, report.skipped) == (4, 1, 1)
    assert "red shoe\ntold: a shoe for sport" in seen.encoder.texts
    assert "blue shoe" in seen.encoder.texts


# ---- errors of single cells


def test_a_text_without_a_known_word_is_that_cells_error(store: Store) -> None:
    fill(store)
    materialize(store, "text")
    fill(store, edited("c", title="velvet", brand=None))
    report = materialize(store, "text").features[0]
    assert (report.ok, report.error) == (0, 1)
    assert cells(store, "text")["c"][schema.ERROR_CODE] == "out_of_vocabulary"
    assert materialize(store, "text").computed == 0
    assert materialize(store, "text", failed=True).errors == 1


def test_bad_vectors_are_errors_of_their_cells(store: Store, seen: SeenMaker) -> None:
    def answer(texts: Sequence[str]) -> np.ndarray:
        found = seen.encoder.plain(texts)
        for place, text in enumerate(texts):
            if "green" in text:
                found[place, 1] = np.nan
            if "blue" in text:
                found[place] = 0
            if "tall" in text:
                found[place, 0] = np.inf
        return found

    seen.encoder.answer = answer
    fill(store)
    report = materialize(store).features[0]
    assert (report.ok, report.error) == (2, 3)
    rows = cells(store, "text")
    codes = {name: row[schema.ERROR_CODE] for name, row in rows.items() if row[schema.STATUS] == Status.ERROR}
    assert codes == {"b": "zero_vector", "c": "nan_output", "d": "nan_output"}
    assert all(rows[name][schema.VALUE] is None for name in codes)


def test_vectors_of_another_size_are_errors_and_a_lost_row_is_a_bug(store: Store, seen: SeenMaker) -> None:
    fill(store)
    seen.encoder.answer = lambda texts: np.ones((len(texts), 5), np.float32)
    assert materialize(store).features[0].error == 5
    assert {row[schema.ERROR_CODE] for row in cells(store, "text").values()} == {"wrong_size", None}
    seen.encoder.answer = lambda texts: np.ones((len(texts) - 1, 3), np.float32)
    with pytest.raises(RuntimeError, match="vectors for"):
        materialize(store, failed=True)


def test_a_bad_picture_is_that_cells_error_and_the_rest_goes_on(store: Store) -> None:
    fill(store)
    folder = store.root.parent / "pictures"
    (folder / "a.png").unlink()
    scribble(folder, "b.png")
    report = materialize(store, "image").features[0]
    assert (report.ok, report.no_input, report.error) == (1, 2, 3)
    rows = cells(store, "image")
    assert {n: rows[n][schema.ERROR_CODE] for n in "abcd"} == {
        "a": "image_gone",
        "b": "image_changed",
        "c": None,
        "d": "image_gone",
    }


def test_a_picture_that_is_gone_is_tried_three_times_and_found_when_it_is_back(store: Store) -> None:
    fill(store)
    folder = store.root.parent / "pictures"
    kept = (folder / "c.png").read_bytes()
    (folder / "c.png").unlink()
    tried = [materialize(store, "image").features[0].error for _ in range(5)]
    assert tried == [1, 1, 1, 0, 0]
    (folder / "c.png").write_bytes(kept)
    assert materialize(store, "image", failed=True).features[0].ok == 1


# ---- faults of the program, interruptions, other writers


def test_a_bug_is_raised_and_not_filed_as_data(store: Store, seen: SeenMaker) -> None:
    def broken(texts: Sequence[str]) -> np.ndarray:
        raise TypeError("a bug")

    seen.encoder.answer = broken
    fill(store)
    with pytest.raises(TypeError, match="a bug"):
        materialize(store)
    assert not store.tables.exists(store.feature_table("text"))


@pytest.mark.parametrize("commit_rows", [1, 4, 4096])
def test_an_interruption_keeps_what_was_committed_and_the_next_call_does_the_rest(
    commit_rows: int, store: Store, seen: SeenMaker
) -> None:
    rows = [{"item_id": f"i{n:02d}", "title": f"title {'x' * n}"} for n in range(12)]
    fill(store, rows)

    def interrupted(texts: Sequence[str]) -> np.ndarray:
        if len(seen.encoder.texts) > 8:
            raise KeyboardInterrupt
        return seen.encoder.plain(texts)

    seen.encoder.answer = interrupted
    with pytest.raises(KeyboardInterrupt):
        materialize(store, commit_rows=commit_rows)
    table = store.feature_table("text")
    kept = store.tables.count(table) if store.tables.exists(table) else 0
    assert kept == (0 if commit_rows == 4096 else 8)
    seen.encoder.answer = seen.encoder.plain
    assert materialize(store).computed == 12 - kept
    assert len(store.matrix("text")[0]) == 12


def test_a_slow_encoder_commits_by_the_clock(
    store: Store, seen: SeenMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.cells.COMMIT_SECONDS", -1.0)
    fill(store, [{"item_id": f"i{n}", "title": f"title {n}"} for n in range(8)])
    seen.encoder.batch_size = 2
    materialize(store)
    versions = store.tables.version(store.feature_table("text"))
    assert versions >= 5  # made, then one commit a batch


def test_another_writer_is_named(store: Store) -> None:
    fill(store)
    code = f"""
import time
from featurestore.store import Store
with Store.open({str(store.root)!r}).lock("elsewhere"):
    print("held", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(Conflict, match="elsewhere"):
            materialize(store)
    finally:
        other.kill()
        other.wait()


def test_numbers_below_one_are_refused(store: Store) -> None:
    for wrong in ({"limit": 0}, {"batch_size": 0}, {"commit_rows": 0}):
        with pytest.raises(BadInput, match="1 or more"):
            materialize(store, **wrong)  # type: ignore[arg-type]


# ---- models


def test_a_model_that_cannot_be_had_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    fill(store)
    files.write_text(store.root / "features.toml", SEEN.replace('"seen"', '"sentence"\nmodel = "./nowhere"'))
    with pytest.raises(ModelUnavailable, match="nowhere is not there"):
        materialize(store)
    assert store.locked() == {}


def test_pretrained_models_fill_a_store_and_their_folder_may_move(store: Store, tmp_path: Path) -> None:
    import shutil

    moved = tmp_path / "moved"
    moved.mkdir()
    for name, source in (("sentence", tiny_models.sentence()), ("timm", tiny_models.timm())):
        shutil.copytree(source, store.root / "models" / name)
    text = SEEN.replace('"seen"', '"sentence"\nmodel = "models/sentence"')
    image = '[features.image]\nkind = "embed_image"\ninputs = ["image"]\nencoder = "timm"\nmodel = "models/timm"\n'
    files.write_text(store.root / "features.toml", text + image)
    fill(store)
    report = materialize(store, device="cpu", batch_size=2)
    assert [f.ok for f in report.features] == [5, 4]
    assert store.matrix("image")[1].shape == (4, 512)
    shutil.move(store.root / "models" / "sentence", moved / "sentence")
    fill(store, edited("b", title="tall boot"))
    with pytest.raises(ModelUnavailable, match="is gone"):
        materialize(store, "text", device="cpu")
    recipe = store.recipe("text")
    files.write_text(
        store.root / "features.toml", text.replace("models/sentence", str(moved / "sentence")) + image
    )
    assert by_name(materialize(store, device="cpu").features)["text"].computed == 1
    assert store.recipe("text") == recipe


def test_a_call_with_nothing_to_do_is_light_and_needs_neither_model_nor_network(
    store: Store, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(tiny_models.sentence(), tmp_path / "model")
    files.write_text(
        store.root / "features.toml",
        SEEN.replace('"seen"', f'"sentence"\nmodel = "{tmp_path / "model"}"')
        + SEEN.replace("features.text", "features.words").replace("seen", "tfidf_svd")
        + '[features.image]\nkind = "embed_image"\ninputs = ["image"]\nencoder = "color_texture"\n',
    )
    fill(store)
    assert materialize(store, device="cpu").computed == 18
    code = f"""
import json, socket, sys
def refuse(*_): raise AssertionError("the network was used")
socket.socket.connect = refuse
from featurestore.store import Store
from ingest.materialize import materialize
computed = materialize(Store.open({str(store.root)!r})).computed
heavy = ("torch", "lancedb", "sklearn", "scipy", "sentence_transformers", "transformers", "open_clip", "timm", "faiss")
print(json.dumps([computed, [name for name in heavy if name in sys.modules]]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0, []]


# ---- reports


def test_progress_counts_every_cell_and_the_journal_keeps_the_report(store: Store) -> None:
    class Watch:
        def __init__(self) -> None:
            self.seen: dict[str, list[int]] = {}
            self.ended = 0

        def start(self, label: str, total: int | None = None) -> None:
            self.seen[label] = [total or 0, 0]

        def advance(self, n: int = 1) -> None:
            list(self.seen.values())[-1][1] += n

        def done(self) -> None:
            self.ended += 1

    fill(store)
    watch = Watch()
    materialize(store, progress=watch)
    assert watch.seen == {"text": [6, 6], "image": [6, 6]}
    assert watch.ended
    told = [entry for entry in store.history() if entry["verb"] == "materialize"]
    assert [(entry["feature"], entry["ok"]) for entry in told] == [("text", 5), ("image", 4)]
    materialize(store)
    assert len(store.history()) == len(told) + sum(
        entry["verb"] != "materialize" for entry in store.history()
    )


def test_a_notice_of_a_small_catalogue_reaches_the_report(store: Store) -> None:
    fill(store, ROWS[:2])
    assert "dimensions, not 128" in materialize(store, "text").features[0].notes[0]
