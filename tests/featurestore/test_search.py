"""Similar items, against a sort of all cosines in double precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import derived
from featurestore import index as indexes
from featurestore.errors import BadInput, NotFound
from featurestore.release import Release
from featurestore.search import default_feature, nearest, nearest_rows, similar
from tests.featurestore import shop


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return shop.build(tmp_path_factory.mktemp("shop") / "store").publish()


FILTERS = {
    None: lambda row: True,
    "price < 12": lambda row: row["price"] is not None and row["price"] < 12,
    "'odd' IN tags AND price IS NOT NULL": lambda row: "odd" in row["tags"] and row["price"] is not None,
    "item_id = 'i020'": lambda row: row["item_id"] == "i020",
    "price > 1000": lambda row: False,
    "title LIKE 'Thing%'": lambda row: True,
}


@settings(max_examples=80, deadline=None)
@given(
    number=st.integers(0, shop.N_ITEMS - 1),
    feature=st.sampled_from(["vector", "picture"]),
    where=st.sampled_from(list(FILTERS)),
    k=st.integers(1, 70),
)
def test_similar_gives_the_nearest_items_that_satisfy_the_filter(
    served: Release, number: int, feature: str, where: str | None, k: int
) -> None:
    if feature == "picture" and number % 10 == 0:
        return
    rows = served.catalogue.to_pylist()
    matrix = served.matrix(feature)
    cosines = shop.unit(matrix.values) @ shop.unit(np.asarray(shop.value_of(feature, f"Thing {number}")))
    allowed = [place for place, row in enumerate(matrix.rows) if FILTERS[where](rows[row]) and row != number]
    expected = sorted(allowed, key=lambda place: (-round(float(cosines[place]), 6), matrix.ids[place]))[:k]
    found = similar(served, item=f"i{number:03d}", feature=feature, where=where, k=k)
    assert found["item_id"].to_pylist() == matrix.ids[expected].tolist()
    assert found["score"].to_numpy() == pytest.approx(cosines[expected], abs=1e-6)
    assert found["score"].type == pa.float32()


@pytest.mark.parametrize("feature", ["vector", "picture"])
@pytest.mark.parametrize("where", list(FILTERS))
@pytest.mark.parametrize("many", [1, 2, 7, 12])
def test_items_asked_about_together_are_answered_as_each_alone(
    served: Release, feature: str, where: str | None, many: int
) -> None:
    rows = [row for row in range(1, 2 * many, 2) if row % 10]
    together = nearest_rows(served, feature, rows, where=where, k=9)
    for row, (scores, found) in zip(rows, together, strict=True):
        alone = nearest(served, feature, row=row, where=where, k=9)
        assert np.array_equal(scores, alone[0])
        assert np.array_equal(found, alone[1])


def test_of_items_asked_about_together_each_must_have_a_vector(served: Release) -> None:
    with pytest.raises(NotFound, match="i010"):
        nearest_rows(served, "picture", [3, 10, 4])


def test_an_answer_carries_the_catalogues_columns(served: Release) -> None:
    found = similar(served, item="i003", k=2)
    assert found.column_names == ["item_id", "score", "title", "price", "tags", "image", "feature_told_short"]
    for row in found.to_pylist():
        assert row["title"] == f"Thing {int(row['item_id'][1:])}"


def test_a_vector_finds_the_item_that_it_belongs_to(served: Release) -> None:
    vector = np.asarray(shop.value_of("vector", "Thing 42"))
    found = similar(served, vector=vector * 3, feature="vector", k=1)
    assert found["item_id"].to_pylist() == ["i042"]
    assert found["score"][0].as_py() == pytest.approx(1)


def test_twins_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store", computed=())
    shop.upsert(
        store,
        pa.table({"item_id": shop.ids(), "title": ["Same"] * 40 + [f"Thing {i}" for i in range(40, 60)]}),
    )
    shop.materialize(store, "vector")
    twins = store.publish(allow_stale=True)
    found = similar(twins, item="i020", feature="vector", k=12)
    assert found["item_id"].to_pylist() == shop.ids(12)
    assert set(found["score"].to_pylist()) == {found["score"][0].as_py()}


def test_the_lean_path_gives_rows_of_the_release(served: Release) -> None:
    scores, rows = nearest(served, "picture", row=11, k=5)
    assert scores.dtype == np.float32
    assert rows.dtype == np.int32
    assert (
        served.ids[rows].tolist()
        == similar(served, item="i011", feature="picture", k=5)["item_id"].to_pylist()
    )


def test_a_catalogue_of_many_batches_answers_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derived, "BATCH_ROWS", 7)
    parted = shop.build(tmp_path / "store", computed=("vector",)).publish(allow_stale=True)
    assert parted.catalogue["title"].num_chunks == 9
    found = similar(parted, item="i003", k=20, where="price < 50")
    assert found["title"].to_pylist() == [f"Thing {int(i[1:])}" for i in found["item_id"].to_pylist()]
    assert found.num_rows == 20


def test_an_unknown_item_is_answered_with_a_near_one(served: Release) -> None:
    with pytest.raises(NotFound) as caught:
        similar(served, item="i0033")
    assert "no item 'i0033'" in str(caught.value)
    assert "did you mean 'i0" in str(caught.value)


def test_an_item_without_a_vector_is_answered_with_the_reason(served: Release) -> None:
    with pytest.raises(NotFound) as caught:
        similar(served, item="i010", feature="picture")
    assert "item 'i010' has no vector of 'picture'" in str(caught.value)
    assert "no picture" in str(caught.value)


def test_an_imported_value_that_is_missing_is_answered_with_the_import(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store", computed=())
    shop.materialize(store, "vector", only=10)
    served = store.publish(allow_stale=True)
    missing = sorted(set(served.ids.tolist()) - set(served.matrix("vector").ids.tolist()))[0]
    with pytest.raises(NotFound, match="had not been computed") as caught:
        similar(served, item=missing)
    assert caught.value.remedy == f"dualview import-vectors {store.root} vector FILE, then publish again"


def test_a_failed_item_is_answered_with_where_to_look(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store", computed=())
    shop.materialize(store, "vector", broken=("i004",))
    with pytest.raises(NotFound) as caught:
        similar(store.publish(allow_stale=True), item="i004")
    assert "dualview errors" in str(caught.value)


@pytest.mark.parametrize("k", [0, -1, 10_001])
def test_k_is_bounded(served: Release, k: int) -> None:
    with pytest.raises(BadInput, match="k is"):
        similar(served, item="i003", k=k)


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (np.ones(7), "shape"),
        (np.ones((2, 8)), "shape"),
        (np.full(8, np.nan), "NaN"),
        (np.zeros(8), "all zeros"),
    ],
)
def test_a_vector_that_cannot_be_compared_is_refused(served: Release, vector: np.ndarray, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        similar(served, vector=vector, feature="vector")


def test_exactly_one_query_is_taken(served: Release) -> None:
    with pytest.raises(BadInput, match="one of the two"):
        similar(served)
    with pytest.raises(BadInput, match="one of the two"):
        similar(served, item="i003", vector=np.ones(8))


def test_features_that_items_cannot_be_compared_by_are_refused_with_those_that_can(served: Release) -> None:
    for feature in ("told.short", "tokens"):
        with pytest.raises(BadInput) as caught:
            similar(served, item="i003", feature=feature)
        assert "vector, picture" in str(caught.value)
    with pytest.raises(NotFound, match="no feature 'vectro'"):
        similar(served, item="i003", feature="vectro")


def test_a_wrong_filter_is_refused_with_the_place(served: Release) -> None:
    with pytest.raises(BadInput, match="no column 'pirce'"):
        similar(served, item="i003", where="pirce < 3")


def test_a_filters_mask_is_computed_once(served: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    first = similar(served, item="i003", where="price < 31")
    monkeypatch.setattr("featurestore.filters.compile_filter", lambda *_: pytest.fail("compiled again"))
    assert similar(served, item="i003", where="price < 31").equals(first)
    assert not served.mask("price < 31").flags.writeable


def test_fused_goes_before_text_and_text_before_the_first() -> None:
    def told(*names: str) -> Release:
        facts = {n: {"kind": "vector", "files": {"values": {}}} for n in names}
        return Release("/nowhere", {"name": "0001", "features": facts, "order": list(names)})

    assert default_feature(told("image", "text", "fused")) == "fused"
    assert default_feature(told("image", "text")) == "text"
    assert default_feature(told("image", "other")) == "image"
    with pytest.raises(NotFound, match="no feature that items can be compared by"):
        default_feature(told())


def test_an_attribute_called_score_makes_way(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store", computed=("vector",))
    shop.upsert(store, pa.table({"item_id": shop.ids(), "score": [float(i) for i in range(shop.N_ITEMS)]}))
    found = similar(store.publish(allow_stale=True), item="i003", k=3)
    assert found["score"].to_numpy().max() <= 1
    assert found["catalogue.score"].to_pylist() == [float(i[1:]) for i in found["item_id"].to_pylist()]


def test_a_second_query_opens_nothing_again(served: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    similar(served, item="i003")
    monkeypatch.setattr(indexes, "read", lambda *_: pytest.fail("read again"))
    assert similar(served, item="i004").num_rows == 10
