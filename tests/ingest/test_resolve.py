from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from featurestore import files
from featurestore.errors import BadInput, Conflict
from featurestore.store import Store
from ingest import fitting, resolve
from ingest.document import documents
from ingest.encode.tfidf import TfidfSvd
from ingest.load import ingest
from ingest.materialize import materialize
from tests.ingest.catalogue import ROWS, edited, fill


def redefine(store: Store, text: str) -> None:
    files.write_text(store.root / "features.toml", text)


def feature(name: str = "text", **keys: object) -> str:
    lines = {"kind": "embed_text", "inputs": ["text"], "encoder": "tfidf_svd"} | keys
    return (
        f"[features.{name}]\n"
        + "\n".join(f"{k} = {v!r}".replace("True", "true") for k, v in lines.items())
        + "\n"
    )


# ---- documents


def test_a_document_is_the_title_and_then_named_values() -> None:
    table = pa.table(
        {
            "title": ["Toy Story", None, " Alien ", None],
            "genres": pa.array([["Animation", None, "Comedy"], ["Drama"], [], None], pa.list_(pa.string())),
            "year": [1995, None, None, None],
        }
    )
    columns = ["title", "genres", "year"]
    assert documents(table, columns) == [
        "Toy Story\ngenres: Animation, Comedy\nyear: 1995",
        "Drama",
        "Alien",
        "",
    ]
    assert documents(table, columns, labels=False)[0] == "Toy Story\nAnimation, Comedy\n1995"


# ---- recipes


def test_text_means_title_and_all_text_columns_and_is_pinned(store: Store) -> None:
    fill(store)
    materialize(store, "text")
    first = store.recipe("text")
    assert first is not None
    assert first.inputs == ("column:title", "column:brand", "column:tags")
    ingest(store, pa.table({"item_id": ["a"], "title": ["red shoe"], "colour": ["red"]}))
    materialize(store)
    assert store.recipe("text") == first


def test_a_changed_definition_makes_a_new_recipe_and_a_new_table(store: Store) -> None:
    fill(store)
    materialize(store, "text")
    old = store.recipe("text")
    redefine(store, feature(dim=2))
    assert [f.computed for f in materialize(store).features] == [6]
    new = store.recipe("text")
    assert old is not None
    assert new is not None
    assert new.table("text") != old.table("text")
    assert store.tables.exists(old.table("text"))


def test_new_and_edited_items_never_refit(store: Store) -> None:
    fill(store)
    materialize(store, "text")
    recipe = store.recipe("text")
    fill(store, [*edited("a", title="red running shoe"), {"item_id": "g", "title": "wide mug"}])
    materialize(store, "text")
    assert store.recipe("text") == recipe


def test_a_refit_makes_a_new_recipe_and_leaves_the_old_table(store: Store) -> None:
    fill(store)
    materialize(store, "text")
    old = store.recipe("text")
    assert old is not None
    fill(store, [*ROWS, {"item_id": "g", "title": "lamp of glass"}])
    with pytest.raises(Conflict, match="is fitted already"):
        fitting.fit_transform(store, "text")
    new = fitting.fit_transform(store, "text", refit=True)
    assert new.artifacts != old.artifacts
    assert store.recipe("text") == new
    assert store.tables.exists(old.table("text"))
    report = materialize(store, "text").features[0]
    assert (report.ok, report.error) == (6, 0)


def test_a_fit_is_possible_before_the_first_materialize(store: Store) -> None:
    with pytest.raises(BadInput, match="no items"):
        fitting.fit_transform(store, "text")
    fill(store)
    assert fitting.fit_transform(store, "text") == store.recipe("text")


def test_an_encoder_that_learns_nothing_cannot_be_fitted(store: Store) -> None:
    fill(store)
    with pytest.raises(BadInput, match="nothing to fit"):
        fitting.fit_transform(store, "image", refit=True)


def test_a_new_version_of_our_code_makes_a_new_recipe(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store)
    materialize(store, "text")
    monkeypatch.setattr(TfidfSvd, "code_version", 2)
    assert materialize(store, "text").features[0].computed == 6
    recipe = store.recipe("text")
    assert recipe is not None
    assert recipe.code_version == 2


def test_drift_counts_changed_items_and_the_words_they_bring(store: Store) -> None:
    fill(store)
    assert fitting.drift(store, "text") is None
    materialize(store)
    assert fitting.drift(store, "image") is None
    before = fitting.drift(store, "text")
    assert before is not None
    assert (before.items_then, before.items_now, before.unknown_words) == (6, 6, 0.0)
    locked = store.locked()["text"]
    assert locked.fitted is not None
    store.lock_recipe("text", locked.recipe, locked.fitted | {"at": "2020-01-01T00:00:00+00:00"})
    fill(store, [*ROWS, {"item_id": "g", "title": "lampshade of velvet"}])
    after = fitting.drift(store, "text")
    assert after is not None
    assert (after.items_then, after.items_now, after.changed_since) == (6, 7, 7)
    assert 0.1 < after.unknown_words < 0.4


def test_a_catalogue_without_a_word_is_fitted_when_words_come(store: Store) -> None:
    ingest(store, pa.table({"item_id": ["a", "b"], "price": [1.0, 2.0]}))
    report = materialize(store, "text").features[0]
    assert (report.no_input, report.ok) == (2, 0)
    assert "nothing was learnt" in report.notes[0]
    assert materialize(store, "text").computed == 0
    ingest(store, pa.table({"item_id": ["a"], "title": ["red shoe"]}))
    report = materialize(store, "text").features[0]
    assert (report.no_input, report.ok) == (1, 1)


def test_a_feature_may_read_single_columns_of_any_type(store: Store) -> None:
    ingest(
        store,
        pa.table({"item_id": ["a", "b"], "title": ["x y", "z"], "year": [1995, 1999], "new": [True, None]}),
    )
    redefine(store, feature(inputs=["year", "new"], labels=True))
    materialize(store)
    recipe = store.recipe("text")
    assert recipe is not None
    assert recipe.inputs == ("column:year", "column:new")
    assert list(resolve.texts(store, recipe, rows=9)) == ["year: 1995\nnew: true", "1999"]


def test_a_fit_looks_at_no_more_texts_than_it_is_given_and_spreads_them(store: Store) -> None:
    fill(store, [{"item_id": f"i{n:02d}", "title": f"word{n}"} for n in range(40)])
    materialize(store, "text")
    recipe = store.recipe("text")
    assert recipe is not None
    found = list(resolve.texts(store, recipe, rows=4))
    assert found == ["word0", "word10", "word20", "word30"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"kind": "embed_txt"}, "did you mean 'embed_text'"),
        ({"encoder": "tfidf"}, "did you mean 'tfidf_svd'"),
        ({"encoder": "color_texture"}, "kind = embed_image"),
        ({"dims": 3}, "did you mean 'dim'"),
        ({"dim": 0}, "greater than or equal to 1"),
        ({"model": "some/model"}, "remove model"),
        ({"inputs": ["titel"]}, "did you mean 'title'"),
        ({"inputs": ["_content_hash"]}, "which the items do not have"),
        ({"inputs": ["image"]}, "reads no pictures"),
        ({"kind": "embed_image", "encoder": "color_texture"}, "reads the picture"),
    ],
)
def test_a_definition_that_cannot_be_meant_is_refused_with_a_hint(
    keys: dict[str, object], said: str, store: Store
) -> None:
    fill(store)
    redefine(store, feature(**keys))
    with pytest.raises(BadInput) as caught:
        materialize(store)
    assert said in str(caught.value)
    assert store.locked() == {}


def test_vectors_cannot_be_read_as_text(store: Store) -> None:
    fill(store)
    redefine(store, feature() + feature("further", inputs=["feature:text"]))
    with pytest.raises(BadInput, match="holds vectors, not texts"):
        materialize(store)


def test_a_model_folder_that_was_retrained_makes_a_new_recipe(store: Store, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    from tests.ingest import tiny_models

    model = tmp_path / "model"
    shutil.copytree(tiny_models.sentence(), model)
    fill(store)
    redefine(store, feature(encoder="sentence", model=str(model)))
    assert materialize(store, device="cpu").computed == 6
    assert materialize(store, device="cpu").computed == 0
    weights = load_file(model / "model.safetensors")
    name = next(n for n in weights if "word_embeddings" in n)
    save_file(weights | {name: weights[name] * 2}, model / "model.safetensors", {"format": "pt"})
    assert materialize(store, device="cpu").computed == 6
    shutil.rmtree(model)
    assert materialize(store, device="cpu").computed == 0
