from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from featurestore import files
from featurestore.errors import BadInput, DualviewError, NotFound
from featurestore.query import Query, ask
from featurestore.release import Release
from featurestore.search import similar
from featurestore.store import Store
from ingest.encode import query
from ingest.encode.query import ReleaseEncoder, query_encoder
from ingest.materialize import fit_transform, materialize
from tests.ingest import tiny_models
from tests.ingest.catalogue import fill

CLIP = (
    '\n[features.clip]\nkind = "embed_image"\ninputs = ["image"]\nencoder = "open_clip"\nmodel = "{model}"\n'
)


def embed_query(
    store: Store,
    release: Release,
    *,
    text: str | None = None,
    image: str | Path | bytes | None = None,
    feature: str | None = None,
    device: str = "auto",
) -> tuple[np.ndarray, str]:
    """The vector of a query of one part, and the feature that it asks."""
    query = Query(text=text, image=image, features={feature: 1.0} if feature else None)
    (asked,) = ask(release, query, ReleaseEncoder(store, release, device))
    return asked.vector, asked.feature


@pytest.fixture
def release(store: Store) -> Release:
    """A release with text (TF-IDF), image (colours) and clip (open_clip, of pictures)."""
    toml = store.root / "features.toml"
    files.write_text(toml, toml.read_text() + CLIP.format(model=tiny_models.open_clip()))
    fill(store)
    materialize(store, device="cpu")
    return store.publish()


@pytest.fixture(autouse=True)
def nothing_loaded() -> None:
    query._loaded.clear()


def png(colour: str) -> bytes:
    out = io.BytesIO()
    tiny_models.picture(colour).save(out, "PNG")
    return out.getvalue()


def test_a_text_asks_the_text_feature_and_finds_its_words(store: Store, release: Release) -> None:
    vector, feature = embed_query(store, release, text="a green mug")
    assert feature == "text"
    assert similar(release, vector=vector, feature=feature, k=1)["item_id"].to_pylist() == ["c"]


def test_a_picture_asks_the_image_feature_by_path_or_bytes(
    store: Store, release: Release, tmp_path: Path
) -> None:
    (tmp_path / "query.png").write_bytes(png("#3030c0"))
    by_path, feature = embed_query(store, release, image=tmp_path / "query.png")
    by_bytes, _ = embed_query(store, release, image=png("#3030c0"))
    assert feature == "image"
    np.testing.assert_array_equal(by_path, by_bytes)
    assert similar(release, vector=by_path, feature=feature, k=1)["item_id"].to_pylist() == ["b"]


def test_a_text_can_ask_pictures_through_a_model_that_reads_both(store: Store, release: Release) -> None:
    vector, feature = embed_query(store, release, text="a mug", feature="clip", device="cpu")
    assert (feature, vector.shape) == ("clip", (32,))
    assert len(similar(release, vector=vector, feature=feature, k=9)) == 4


def test_a_text_goes_to_a_picture_model_where_there_is_no_text_feature(store: Store) -> None:
    files.write_text(store.root / "features.toml", CLIP.format(model=tiny_models.open_clip()))
    fill(store)
    materialize(store, device="cpu")
    assert embed_query(store, store.publish(), text="a mug", device="cpu")[1] == "clip"


def test_a_query_that_does_not_fit_the_feature_is_answered_with_those_that_do(
    store: Store, release: Release
) -> None:
    with pytest.raises(BadInput, match="reads no texts") as caught:
        embed_query(store, release, text="a mug", feature="image")
    assert caught.value.remedy == "ask by one of: text, clip"
    with pytest.raises(BadInput, match="sees no pictures") as caught:
        embed_query(store, release, image=png("red"), feature="text")
    assert caught.value.remedy == "ask by one of: image, clip"
    with pytest.raises(NotFound, match="no feature 'txet'"):
        embed_query(store, release, text="a mug", feature="txet")


def test_a_query_without_a_vector_is_refused(store: Store, release: Release) -> None:
    with pytest.raises(BadInput, match="shares no word"):
        embed_query(store, release, text="chandelier")
    for empty in ("", "   "):
        with pytest.raises(BadInput, match="empty"):
            embed_query(store, release, text=empty)
    with pytest.raises(DualviewError, match="cannot be read"):
        embed_query(store, release, image="/no/such/file.png")
    with pytest.raises(DualviewError):
        embed_query(store, release, image=b"no picture")


def test_a_query_that_is_no_picture_is_refused_by_its_path(
    store: Store, release: Release, tmp_path: Path
) -> None:
    path = tmp_path / "notes.png"
    path.write_text("no picture")
    with pytest.raises(BadInput, match=f"{path}: no picture in") as caught:
        embed_query(store, release, image=path)
    assert "such as JPEG" in (caught.value.remedy or "")
    with pytest.raises(BadInput, match="cannot be read") as caught:
        embed_query(store, release, image=tmp_path / "away.png")
    assert caught.value.remedy == "check the path"


def test_a_release_is_asked_by_the_recipe_that_it_was_made_with(store: Store, release: Release) -> None:
    before, _ = embed_query(store, release, text="red shoe")
    fill(store, [{"item_id": "g", "title": "red lamp"}, {"item_id": "h", "title": "glass lamp"}])
    fit_transform(store, "text", refit=True)
    materialize(store, "text")
    query._loaded.clear()
    after, _ = embed_query(store, release, text="red shoe")
    np.testing.assert_array_equal(before, after)


def test_an_encoder_is_loaded_once_and_few_are_kept(
    store: Store, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_query(store, release, text="red shoe")
    monkeypatch.setattr("ingest.encode.tfidf.TfidfSvd.load", lambda *_: pytest.fail("loaded again"))
    embed_query(store, release, text="mug")
    monkeypatch.setattr(query, "KEPT", 1)
    embed_query(store, release, image=png("red"))
    assert len(query._loaded) == 1


def test_prompts_of_queries_are_used(store: Store) -> None:
    model = tiny_models.sentence("sentence-prompts", prompts=True)
    files.write_text(
        store.root / "features.toml",
        f'[features.text]\nkind = "embed_text"\ninputs = ["title"]\nencoder = "sentence"\nmodel = "{model}"\n',
    )
    fill(store)
    materialize(store, device="cpu")
    recipe = store.recipe("text")
    assert recipe is not None
    encoder = query_encoder(store, recipe, device="cpu", hint=str(model))
    ids, values = store.matrix("text")
    assert encoder.text is not None
    assert np.abs(encoder.text("red shoe") - values[ids.tolist().index("a")]).max() > 1e-3


def test_vectors_that_were_brought_cannot_be_asked_with_a_text(store: Store) -> None:
    from featurestore.recipe import Recipe

    recipe = Recipe(kind="imported", inputs=("column:title",), encoder="imported", dim=3)
    with pytest.raises(BadInput, match="no encoder"):
        query_encoder(store, recipe)
