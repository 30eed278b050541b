"""Several vectors an item: how texts are cut, and what becomes of such a feature in a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore import files, schema
from featurestore.errors import BadInput
from featurestore.store import Store
from ingest import estimate, fitting
from ingest.encode import base, tokens
from ingest.encode.tokens import TokenOptions, chunks
from ingest.load import ingest
from ingest.materialize import materialize
from ingest.pipeline import encode_tokens
from tests.ingest.catalogue import ROWS, SCHEMA, Seen, SeenMaker, edited, fill
from tests.untouched import untouched

FINE = '[features.fine]\nkind = "embed_tokens"\ninputs = ["title", "brand", "tags"]\nencoder = "seen"\n'
WORDS = '[features.words]\nkind = "embed_tokens"\ninputs = ["text"]\nencoder = "tfidf_svd"\ndim = 4\n'

# what a text is cut into, by VERSION: when this differs, raise tokens.VERSION and add the new pieces here
TEXT = (
    "Made by Dr. who? Yes! It is 3.5 m long, e.g. for a wall, or for a very long corridor\nSecond line here"
)
GOLDEN = {
    1: [
        "Made by Dr. who? Yes!",
        "It is 3.5 m long,",
        "e.g. for a wall, or",
        "for a very long corridor",
        "Second line here",
    ]
}


@pytest.fixture
def seen(store: Store, monkeypatch: pytest.MonkeyPatch) -> SeenMaker:
    """The store's only feature gives tokens to an encoder that remembers what it was given."""
    maker = SeenMaker()
    monkeypatch.setitem(base._makers, ("embed_text", "seen"), maker)
    declare(store, FINE)
    return maker


def declare(store: Store, text: str) -> None:
    files.write_text(store.root / "features.toml", text)


def cut(column: Sequence[Any], kind: pa.DataType | None = None, **options: Any) -> list[list[str]]:
    table = pa.table({"tags": pa.array(column, kind or pa.string())})
    return tokens.tokens(table, ["tags"], resolved(**options)).tokens


def resolved(**options: Any) -> dict[str, Any]:
    return TokenOptions(**options).model_dump(mode="json") | {"labels": False}


def of_items(store: Store, feature: str = "fine") -> dict[str, list[Any] | None]:
    """The vectors of each item."""
    rows = store.tables.read(store.feature_table(feature)).to_pylist()
    return {row[schema.ITEM_ID]: row[schema.VALUE] for row in rows}


def length(text: str) -> list[float]:
    """The vector that the remembering encoder makes of a text."""
    return [len(text), 1.0, 1.0]


# ---- cutting


def test_pieces_are_those_of_their_version() -> None:
    assert chunks(TEXT, 6) == GOLDEN[tokens.VERSION]


def test_a_text_is_cut_where_sentences_end() -> None:
    text = "One two. Three four five. Six seven"
    assert chunks(text, 7) == [text]
    assert chunks(text, 5) == ["One two. Three four five.", "Six seven"]
    assert chunks(text, 4) == ["One two.", "Three four five.", "Six seven"]
    assert chunks(text, 0) == [text]
    assert chunks('He said "No." Then he left', 4) == ['He said "No."', "Then he left"]


def test_a_sentence_that_is_too_long_is_cut_in_even_pieces() -> None:
    words = [f"W{n}" for n in range(11)]
    assert [len(piece.split()) for piece in chunks(" ".join(words), 10)] == [6, 5]
    assert chunks("Two words. " + " ".join(words), 10)[0] == "Two words."


def test_chinese_and_japanese_characters_are_words() -> None:
    text = "这是一个很好的产品。我们非常喜欢它。"
    assert chunks(text, 10) == ["这是一个很好的产品。", "我们非常喜欢它。"]


@given(
    st.text(st.sampled_from("aB3 .!?,\n\t'é漢あ。）#"), max_size=80).map(str.strip).filter(bool),
    st.integers(1, 9),
)
def test_pieces_hold_all_words_in_order_and_never_too_many(text: str, most: int) -> None:
    found = chunks(text, most)
    words = [tokens._WORD.findall(piece) for piece in found]
    assert all(1 <= len(each) <= most for each in words)
    assert [word for each in words for word in each] == tokens._WORD.findall(text)


def test_separators_cut_first_and_a_list_is_one_text_unless_its_entries_are_asked_for() -> None:
    assert cut(["red # blue # ", None, " # "], split=" # ") == [["red", "blue #"], [], ["#"]]
    assert cut(["a#b##c"], split=["#", "##"]) == [["a", "b", "c"]]
    lists = pa.list_(pa.string())
    assert cut([["red", None, " ", "blue"], [], None], lists) == [["red, blue"], [], []]
    assert cut([["red", None, " ", "blue"], [], [" "]], lists, entries=True) == [["red", "blue"], [], []]
    assert cut([["red|blue", "green"]], lists, entries=True, split="|") == [["red", "blue", "green"]]
    assert cut([1995, None], pa.int64()) == [["1995"], []]


def test_beyond_the_most_the_last_tokens_of_the_longest_input_go() -> None:
    table = pa.table({"title": ["t"], "one": ["a. B. C. D"], "two": ["e. F. G"], "feature:three": ["h"]})
    names = ["title", "one", "two", "feature:three"]

    def kept(most: int) -> str:
        found = tokens.tokens(table, names, resolved(chunk_words=1, max_tokens=most))
        assert found.dropped == max(0, 9 - most)
        return "".join(found.tokens[0]).replace(".", "")

    assert [kept(most) for most in (20, 9, 8, 7, 6, 5, 4, 3, 1)] == [
        *("taBCDeFGh", "taBCDeFGh", "taBCeFGh", "taBCeFh", "taBeFh", "taBeh", "taeh", "tae", "t")
    ]
    labels = tokens.tokens(table, names, resolved(chunk_words=2) | {"labels": True}).tokens[0]
    assert labels == ["t", "one: a. B.", "one: C. D", "two: e. F.", "two: G", "three: h"]


def test_options_that_cannot_be_meant_are_refused(store: Store, seen: SeenMaker) -> None:
    fill(store)
    for line, said in [
        ("chunk_word = 3", "did you mean 'chunk_words'"),
        ("chunk_words = -1", "chunk_words = -1"),
        ("max_tokens = 0", "max_tokens = 0"),
        ('split = ""', "split = ''"),
        ("split = [1]", "split"),
        ('index = "exact"', "have no index"),
        ('model = "x"', "takes no model"),
    ]:
        declare(store, FINE + line + "\n")
        with pytest.raises(BadInput) as caught:
            materialize(store)
        assert said in str(caught.value)
    for wrong, said in [('"seen"', "did you mean 'seen'"), ('"color_texture"', "kind = embed_image")]:
        declare(store, FINE.replace('"seen"', wrong.replace("seen", "sean")))
        with pytest.raises(BadInput) as caught:
            materialize(store)
        assert said in str(caught.value)
    declare(store, FINE.replace('"title"', '"image"'))
    with pytest.raises(BadInput, match="embed_tokens reads no pictures"):
        materialize(store)


# ---- encoding


def test_a_text_is_encoded_once_though_items_are_finished_some_at_a_time() -> None:
    encoder = Seen(3)
    items = [[f"own {n}", "shared", f"of {n // 10}"] for n in range(100)]
    found = list(encode_tokens(encoder, items, 3))
    assert len(found) > 3, "not all are held back to the end"
    assert len(encoder.texts) == len(set(encoder.texts)) == 111
    seen = 0
    for encoded in found:
        assert encoded.offsets is not None
        for place, first, last in zip(encoded.places, encoded.offsets[:-1], encoded.offsets[1:], strict=True):
            assert encoded.vectors[first:last].tolist() == [length(text) for text in items[place]]
            seen += 1
    assert seen == 100


def test_a_token_without_a_vector_is_left_out_and_an_item_of_no_other_is_an_error() -> None:
    encoder = Seen(
        2, lambda texts: np.array([[np.nan if t == "nan" else len(t), 0] for t in texts], np.float32)
    )
    encoder.answer = lambda texts: np.array(
        [[np.nan, 0] if t == "nan" else [0, 0] if t == "zero" else [len(t), 1] for t in texts], np.float32
    )
    (found,) = encode_tokens(encoder, [["nan", "ab"], ["zero", "nan"], ["abc", "zero", "a"], ["nan"]], 2)
    assert found.offsets is not None
    by_item = {
        int(place): found.vectors[first:last, 0].tolist()
        for place, first, last in zip(found.places, found.offsets[:-1], found.offsets[1:], strict=True)
    }
    assert by_item == {0: [2], 2: [3, 1]}
    assert {place: error.code for place, error in found.errors.items()} == {1: "zero_vector", 3: "nan_output"}


# ---- in a store


def test_an_item_has_a_vector_for_each_of_its_texts(store: Store, seen: SeenMaker) -> None:
    fill(store)
    (report,) = materialize(store).features
    assert (report.ok, report.no_input, report.error) == (5, 1, 0)
    found = of_items(store)
    assert found["a"] == [length("red shoe"), length("brand: Runwell"), length("tags: sport, red")]
    assert found["d"] == [length("tall mug")]
    assert found["e"] == found["a"]
    assert found["f"] is None
    assert len(seen.encoder.texts) == len(set(seen.encoder.texts)) == 8
    recipe = store.recipe("fine")
    assert recipe is not None
    assert (recipe.kind, str(recipe.value), recipe.dim) == ("embed_tokens", "vectors", 3)
    assert recipe.options["chunk_words"] == 40


def test_an_edit_computes_that_item_alone_and_an_option_all(store: Store, seen: SeenMaker) -> None:
    fill(store)
    materialize(store)
    fill(store, edited("b", title="navy shoe"))
    seen.encoder.texts.clear()
    assert materialize(store).computed == 1
    assert sorted(seen.encoder.texts) == ["brand: Runwell", "navy shoe", "tags: sport"]
    for line in ("chunk_words = 1", "max_tokens = 2", 'split = "e"', "entries = true"):
        declare(store, FINE + line)
        assert materialize(store).computed == 6
    assert of_items(store)["a"] is not None


def test_the_cutters_version_and_the_encoders_are_in_the_recipe(
    store: Store, seen: SeenMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    materialize(store)
    for place, version in ((tokens, "VERSION"), (SeenMaker, "code_version")):
        monkeypatch.setattr(place, version, 2)
        assert "its code is of version" in str(fitting_reason(store))
        assert materialize(store).computed == 6
        assert materialize(store).computed == 0


def fitting_reason(store: Store) -> str | None:
    from ingest import resolve

    return resolve.outdated(store, store.definitions.get("fine"))


def test_dropped_and_unknown_tokens_are_told(store: Store, seen: SeenMaker) -> None:
    declare(store, FINE + "max_tokens = 2")
    fill(store)
    (report,) = materialize(store).features
    assert report.notes == ("2 tokens beyond max_tokens were dropped",)
    declare(store, WORDS)
    materialize(store)
    late = [{"item_id": "x", "title": "zyx", "brand": "Runwell"}, {"item_id": "y", "title": "zyx"}]
    ingest(store, pa.Table.from_pylist(late, schema=SCHEMA))
    (report,) = materialize(store).features
    assert report.notes == ("1 tokens had no vector and were left out",)
    assert (report.ok, report.error) == (1, 1)
    assert [group.code for group in store.errors() if group.where == "words"] == ["out_of_vocabulary"]


def test_a_list_of_nothing_but_nulls_is_no_input(store: Store, seen: SeenMaker) -> None:
    fill(store)
    fill(store, edited("d", title=None, tags=[None, " "]))
    (report,) = materialize(store, limit=4).features
    assert of_items(store)["d"] is None
    assert (report.ok, report.no_input, report.error) == (3, 1, 0)


def test_what_describes_an_item_is_an_input_too(store: Store, seen: SeenMaker) -> None:
    told = '[features.told]\nkind = "describe"\ninputs = ["title"]\nencoder = "template"\n'
    declare(store, told + FINE.replace('"tags"', '"feature:told"'))
    fill(store)
    materialize(store)
    assert of_items(store)["d"] == [length("tall mug"), length("told: tall mug")]
    declare(store, told + FINE + FINE.replace("fine", "again").replace('"tags"', '"feature:fine"'))
    with pytest.raises(BadInput, match="holds vectors, not texts"):
        materialize(store)


def test_a_fitted_encoder_is_fitted_on_whole_items(store: Store) -> None:
    whole = WORDS.replace("embed_tokens", "embed_text").replace("features.words", "features.whole")
    declare(store, WORDS + whole)
    fill(store)
    materialize(store)
    recipes = store.recipes()
    assert recipes["words"].artifacts == recipes["whole"].artifacts
    assert recipes["words"].dim == 4
    before = recipes["words"].id
    fill(store, edited("b", title="navy shoe"))
    assert fitting.fit_transform(store, "words", refit=True).id != before
    materialize(store)
    drift = fitting.drift(store, "words")
    assert drift is not None
    assert drift.unknown_words == 0


def test_an_estimate_counts_what_is_computed_then(store: Store, seen: SeenMaker) -> None:
    declare(store, FINE + WORDS)
    fill(store)
    with untouched(store.root):
        told = estimate.estimate(store)
    done = materialize(store)
    assert told.cells == done.computed == 12
    assert [f.usage.sample for f in told.features] == [4, 4]
    assert told.features[0].recipe == done.features[0].recipe
    assert estimate.estimate(store).cells == 0


def test_what_was_computed_before_a_fault_stays(
    store: Store, seen: SeenMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items are finished, and committed, before all texts are encoded."""
    rows = [ROWS[3] | {"item_id": f"i{n:02}", "title": f"mug {n:02}"} for n in range(40)]
    fill(store, [*ROWS, *rows])

    def stops(texts: Sequence[str]) -> np.ndarray:
        if len(seen.encoder.texts) > 24:
            raise RuntimeError("the machine is gone")
        return seen.encoder.plain(texts)

    seen.encoder.answer = stops
    with pytest.raises(RuntimeError, match="the machine is gone"):
        materialize(store, commit_rows=8)
    left = store.status().features[0].missing
    assert 0 < left < 46
    seen.encoder.answer = seen.encoder.plain
    assert materialize(store).computed == left
