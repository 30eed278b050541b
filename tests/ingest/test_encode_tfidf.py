from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingest.encode.base import maker
from ingest.encode.tfidf import OUT_OF_VOCABULARY, TfidfEncoder, TfidfOptions, TfidfSvd, unknown_words

TEXTS = [
    "red running shoe",
    "red trail shoe for running",
    "blue running shoe",
    "white coffee mug",
    "large coffee mug, white",
    "tea mug",
]
# the same texts by code_version: when this differs, raise TfidfSvd.code_version and add the new numbers here
GOLDEN = {
    1: [
        [0.9928, 0.0000, 0.0000, -0.1199],
        [0.8718, 0.0000, -0.0000, -0.4899],
        [0.7513, -0.0000, 0.0000, 0.6599],
        [0.0000, 0.9772, -0.2123, 0.0000],
        [0.0000, 0.9570, -0.2902, 0.0000],
        [0.0000, 0.5100, 0.8602, 0.0000],
    ],
}


def fit(texts: list[str], folder: Path, **given: object) -> TfidfEncoder:
    options = TfidfOptions.model_validate(given).model_dump(mode="json")
    fitted = TfidfSvd().fit(texts, options)
    if not fitted.files:
        return TfidfEncoder(None, options, fitted.dim)
    for name, data in fitted.files.items():
        (folder / name).write_bytes(data)
    return TfidfEncoder(folder, options, fitted.dim)


def test_output_is_that_of_its_code_version(tmp_path: Path) -> None:
    found = fit(TEXTS, tmp_path, dim=4).encode(TEXTS)
    np.testing.assert_allclose(found, np.array(GOLDEN[TfidfSvd.code_version]), atol=2e-4)


def test_texts_that_share_words_are_near_and_others_are_not(tmp_path: Path) -> None:
    vectors = fit(TEXTS, tmp_path).encode(TEXTS)
    near = vectors @ vectors.T
    assert near[0, 1] > 0.5
    assert near[3, 4] > 0.5
    assert abs(near[0, 3]) < 0.1
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_fitting_twice_gives_the_same_artifact() -> None:
    options = TfidfOptions(dim=4).model_dump(mode="json")
    assert TfidfSvd().fit(TEXTS, options).files == TfidfSvd().fit(TEXTS, options).files


def test_an_artifact_is_json_and_safetensors_only() -> None:
    files = TfidfSvd().fit(TEXTS, TfidfOptions().model_dump(mode="json")).files
    assert {Path(name).suffix for name in files} == {".json", ".safetensors"}


def test_a_later_text_lands_near_its_like_and_case_and_accents_do_not_matter(tmp_path: Path) -> None:
    encoder = fit(TEXTS, tmp_path)
    known = encoder.encode(TEXTS)
    later = encoder.encode(["Crimson running SHOE", "Cóffee mug"])
    assert (known @ later[0]).argmax() in (0, 2)
    assert (known @ later[1]).argmax() in (3, 4)


def test_a_text_without_a_known_word_is_a_row_of_zeros(tmp_path: Path) -> None:
    encoder = fit(TEXTS, tmp_path)
    found = encoder.encode(["lampshade", "mug"])
    assert not found[0].any()
    assert found[1].any()
    assert encoder.zero is OUT_OF_VOCABULARY


@pytest.mark.parametrize("texts", [["one mug"], ["a mug", "a mug"], ["x", "y", "z"]])
def test_a_tiny_catalogue_has_fewer_dimensions_and_says_so(texts: list[str], tmp_path: Path) -> None:
    options = TfidfOptions().model_dump(mode="json")
    fitted = TfidfSvd().fit(texts, options)
    assert fitted.dim <= len(texts)
    assert "dimensions" in fitted.notes[0]
    vectors = fit(texts, tmp_path).encode(texts)
    assert vectors.shape == (len(texts), fitted.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("texts", [[], ["!!!", "..."]])
def test_without_a_word_the_fit_is_empty_and_every_row_is_zero(texts: list[str], tmp_path: Path) -> None:
    encoder = fit(texts, tmp_path)
    assert encoder.dim == 1
    assert not encoder.encode(["mug"]).any()


def test_a_catalogue_too_large_for_an_exact_svd_is_compressed_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in rng.integers(0, 60, 8)) for _ in range(300)]
    exact = fit(texts, tmp_path, dim=20).encode(texts)
    monkeypatch.setattr("ingest.encode.tfidf.EXACT", 0)
    quick = fit(texts, tmp_path, dim=20).encode(texts)
    assert np.abs(exact @ exact.T - quick @ quick.T).mean() < 0.05


def test_letters_bring_inflected_words_together(tmp_path: Path) -> None:
    texts = ["スニーカー", "スニーカーズ", "コーヒー"]
    near = [fit(texts, tmp_path, terms=terms).encode(texts) for terms in ("words", "letters")]
    assert near[0][0] @ near[0][1] < 0.1
    assert near[1][0] @ near[1][1] > 0.4


def test_the_share_of_unknown_words_is_counted_without_the_vectorizer(tmp_path: Path) -> None:
    fit(TEXTS, tmp_path)
    assert unknown_words(["Red lampshade", "mug"], tmp_path) == pytest.approx(1 / 3)
    assert unknown_words(["mug"], None) == 1.0


def test_it_is_registered_as_a_text_encoder() -> None:
    assert isinstance(maker("embed_text", "tfidf_svd"), TfidfSvd)
