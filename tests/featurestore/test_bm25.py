"""Search by words, against the formula written out, and the words of a text."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import bm25, files
from featurestore import release as releases
from featurestore.bm25 import K1, B, TextIndex
from featurestore.errors import NotFound
from featurestore.words import words
from tests.featurestore import shop

LETTERS = st.text(alphabet="abcde", min_size=1, max_size=2)
TEXTS = st.lists(st.lists(LETTERS, max_size=8).map(" ".join), min_size=1, max_size=25)


def opened(folder: Path, texts: list[str | None]) -> TextIndex:
    bm25.build(pa.table({"title": pa.array(texts, pa.string())}), ["title"], folder)
    return TextIndex.open(folder)


def lucene(texts: list[str], query: str) -> np.ndarray:
    """Every text's score, as Kamphuis et al. (2020) write Lucene's variant."""
    documents = [Counter(text.split()) for text in texts]
    mean = sum(map(Counter.total, documents)) / len(documents)
    scores = np.zeros(len(documents))
    for word in query.split():
        df = sum(word in document for document in documents)
        idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
        for row, document in enumerate(documents):
            tf = document[word]
            if tf:
                scores[row] += idf * tf / (tf + K1 * (1 - B + B * document.total() / mean))
    return scores


@settings(max_examples=60)
@given(texts=TEXTS, query=st.lists(LETTERS, max_size=4).map(" ".join))
def test_scores_are_those_of_the_formula(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], query: str
) -> None:
    if not any(texts):
        return
    index = opened(tmp_path_factory.mktemp("index"), list(texts))
    np.testing.assert_allclose(index.scores(query), lucene(texts, query), rtol=1e-5, atol=1e-7)


@settings(max_examples=60)
@given(data=st.data(), texts=TEXTS, query=LETTERS, k=st.integers(1, 30))
def test_an_answer_is_the_best_of_the_allowed_rows_that_have_a_word(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, texts: list[str], query: str, k: int
) -> None:
    if not any(texts):
        return
    index = opened(tmp_path_factory.mktemp("index"), list(texts))
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))))
    left_out = data.draw(st.sets(st.integers(0, len(texts) - 1), max_size=3))
    every = index.scores(query)
    expected = sorted(
        (row for row in range(len(texts)) if every[row] > 0 and allowed[row] and row not in left_out),
        key=lambda row: (-every[row], row),
    )[:k]
    scores, rows = index.search(query, k, allowed, list(left_out))
    assert rows.tolist() == expected
    assert scores.tolist() == every[expected].tolist()


def test_the_index_is_plain_files_that_are_mapped_and_no_pickle(tmp_path: Path) -> None:
    index = opened(tmp_path, ["red mug", "blue mug", None])
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json", ".npy", ".npy", ".npy"]
    for path in tmp_path.glob("*.npy"):
        np.load(path, allow_pickle=False)
    assert isinstance(index.index.scores["data"], np.memmap)


def test_the_same_texts_give_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        opened(tmp_path / name, ["red mug", "blue mug", "crème brûlée"])
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_an_unknown_word_is_told_with_a_near_one(tmp_path: Path) -> None:
    index = opened(tmp_path, ["red umbrella", "blue mug"])
    assert index.unknown("Umbrela red umbrela") == ["umbrela"]
    assert index.near("umbrela") == "umbrella"
    assert index.near("xylophone") is None
    assert len(index.search("umbrela", 5)[1]) == 0


# ---- words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red MUG, 2nd-hand", ["red", "mug", "2nd", "hand"]),
        ("Crème Brûlée", ["creme", "brulee"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("ＷＩＤＥ ﬁne", ["wide", "fine"]),
        ("İstanbul", ["istanbul"]),
        ("home_decor children's", ["home", "decor", "children", "s"]),
        ("हिन्दी किताब", ["हिन्दी", "किताब"]),
        ("한국어 머그", ["한국어", "머그"]),
        ("赤い杯 mug", ["赤", "赤い", "い", "い杯", "杯", "mug"]),
        ("ภาษาไทย", ["ภาษาไทย"]),
        ("🙂 -- !", []),
        ("", []),
    ],
)
def test_words_of_a_text(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(text=st.text())
def test_case_and_any_character_are_taken(text: str) -> None:
    found = words(text)
    assert all(found)
    assert words(text.upper().lower()) == words(text.upper())


def test_chinese_and_japanese_are_found_by_a_part_of_a_run(tmp_path: Path) -> None:
    index = opened(tmp_path, ["赤いマグカップ", "青い傘", "red mug"])
    assert index.search("マグ", 5)[1].tolist() == [0]
    assert index.search("い", 5)[1].tolist() == [1, 0]


# ---- in a release


def test_a_release_finds_its_items_by_title_and_texts(tmp_path: Path) -> None:
    served = shop.build(tmp_path / "store", computed=()).publish(allow_stale=True)
    facts = served.manifest["text"]
    assert facts["columns"] == ["title", "tags"]
    assert facts["items"] == shop.N_ITEMS
    scores, rows = served.words.search("thing 42", 1)
    assert served.ids[rows].tolist() == ["i042"]
    assert len(served.words.search("odd", 60)[1]) == 30
    assert scores[0] > 0


def test_the_files_of_the_index_are_files_of_the_release(tmp_path: Path) -> None:
    served = shop.build(tmp_path / "store", computed=()).publish(allow_stale=True)
    texts = [path for path, _ in served.files() if path.name == "data.csc.index.npy"]
    assert len(texts) == 1
    texts[0].unlink()
    assert served.verify() == texts
    with pytest.raises(NotFound, match="is gone"):
        _ = served.words


def test_an_edited_price_keeps_the_text_index_and_an_edited_title_makes_a_new_one(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store", computed=())
    key = f"{releases.TEXT}data.csc.index.npy"
    first = store.publish(allow_stale=True).manifest["files"][key]
    shop.upsert(store, pa.table({"item_id": ["i003"], "price": [999.0]}))
    assert store.publish(allow_stale=True).manifest["files"][key] == first
    shop.upsert(store, pa.table({"item_id": ["i003"], "title": ["Umbrella"]}))
    assert store.publish(allow_stale=True).manifest["files"][key] != first


def without_text_index(root: Path, name: str) -> None:
    """Make a release as it was before there were text indexes."""
    path = root / "releases" / name / releases.MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["text"]
    manifest["files"] = {n: e for n, e in manifest["files"].items() if not n.startswith(releases.TEXT)}
    manifest["inputs"] = "made by an earlier version"
    files.write_json(path, manifest)


def test_a_release_of_before_says_that_publishing_again_helps_and_it_does(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store", computed=())
    without_text_index(store.root, store.publish(allow_stale=True).name)
    with pytest.raises(NotFound, match="publish again") as caught:
        _ = store.release().words
    assert "before items could be found by words" in caught.value.message
    assert store.publish(allow_stale=True).name == "0002"
    assert len(store.release().words) == shop.N_ITEMS


def test_a_catalogue_without_a_word_is_published_and_says_so(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store", computed=())
    none = pa.array([None] * shop.N_ITEMS, pa.string())
    tags = pa.array([None] * shop.N_ITEMS, pa.list_(pa.string()))
    shop.upsert(store, pa.table({"item_id": shop.ids(), "title": none, "tags": tags}))
    served = store.publish(allow_stale=True)
    with pytest.raises(NotFound, match="no item of release 0001 has a word"):
        _ = served.words
