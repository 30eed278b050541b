"""Queries of several items, features and weights, with words and diversity, against numpy and the definitions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import blend
from featurestore import index as indexes
from featurestore import search as searching
from featurestore.errors import BadInput, NotFound
from featurestore.query import Query, ask
from featurestore.release import Release
from featurestore.rerank import diverse, pool_size, reciprocal_rank
from featurestore.search import facts, search, similar
from featurestore.store import Store
from tests.featurestore import shop

WHERE = ["price < 12", "item_id IN ('i011', 'i013')", "'odd' IN tags", "price > 1000", None]
WEIGHTS = st.floats(0, 3).map(lambda weight: round(weight, 2))
ITEMS = st.integers(0, shop.N_ITEMS - 1).map(lambda number: f"i{number:03d}")


class Words:
    """Stands for the encoders of the floor above: a text becomes the vector of the item so titled."""

    def __init__(self, readable: tuple[str, ...] = ("vector",)) -> None:
        self.readable = readable

    def fitting(self, *, of_text: bool) -> list[str]:
        return list(self.readable) if of_text else []

    def text(self, feature: str, text: str) -> np.ndarray:
        if feature not in self.readable:
            raise BadInput(f"feature '{feature}' reads no texts")
        return 2 * np.asarray(shop.value_of(feature, text), np.float32)

    def image(self, feature: str, image: Any) -> np.ndarray:
        raise BadInput(f"feature '{feature}' sees no pictures")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return shop.build(tmp_path_factory.mktemp("shop") / "store")


@pytest.fixture(scope="module")
def served(store: Store) -> Release:
    return store.publish()


def cosines(served: Release, feature: str, query: np.ndarray) -> np.ndarray:
    """(n_items,) NaN where an item lacks the feature."""
    matrix = served.matrix(feature)
    found = np.full(served.n_items, np.nan)
    found[matrix.rows] = shop.unit(matrix.values) @ shop.unit(query)
    return found


def unit_of(feature: str, item: str) -> np.ndarray:
    return shop.unit(np.asarray(shop.value_of(feature, f"Thing {int(item[1:])}")))


def best(served: Release, scores: np.ndarray, where: str | None, without: set[str], k: int) -> list[str]:
    """Ids of the best by a full sort; NaN is never answered."""
    mask = np.ones(served.n_items, bool) if where is None else served.mask(where)
    rows = [r for r in np.flatnonzero(mask & ~np.isnan(scores)) if served.ids[r] not in without]
    rows.sort(key=lambda row: (-round(float(scores[row]), 6), row))
    return [str(served.ids[row]) for row in rows[:k]]


# ---- weights


@settings(max_examples=60)
@given(item=ITEMS, text=WEIGHTS, picture=WEIGHTS, where=st.sampled_from(WHERE), k=st.integers(1, 70))
def test_a_score_is_the_weighted_sum_of_cosines_and_its_parts_add_up(
    served: Release, item: str, text: float, picture: float, where: str | None, k: int
) -> None:
    if not (text or picture) or (picture and item.endswith("0")):
        return
    query = Query(
        items=(item,), features={"vector": text, "picture": picture}, where=where, k=k, explain=True
    )
    weights = {name: weight for name, weight in (("vector", text), ("picture", picture)) if weight}
    each = {name: w * cosines(served, name, unit_of(name, item)) for name, w in weights.items()}
    total = np.nansum(list(each.values()), axis=0)
    total[np.isnan(list(each.values())).all(axis=0)] = np.nan
    found = search(served, query)
    assert found["item_id"].to_pylist() == best(served, total, where, {item}, k)
    parts = np.array([[v or 0.0 for v in found[f"part.{name}"].to_pylist()] for name in weights])
    assert found["score"].to_numpy() == pytest.approx(parts.sum(axis=0), abs=1e-6)
    assert searching.facts(found)["release"] == "0001"


@settings(max_examples=25)
@given(item=ITEMS, weight=st.floats(0.01, 3), k=st.integers(1, 12), where=st.sampled_from(WHERE))
def test_a_first_look_in_single_precision_changes_nothing(
    served: Release, item: str, weight: float, k: int, where: str | None
) -> None:
    if item.endswith("0"):
        return
    asked = ask(served, Query(items=(item,), features={"vector": 1.0, "picture": weight}, k=k), None)
    allowed = None if where is None else served.mask(where)
    own = np.array([served.row_of(item)])
    whole = blend.top(asked, k, allowed, own)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blend, "FEW", 0)
        looked = blend.top(asked, k, allowed, own)
    assert looked.rows.tolist() == whole.rows.tolist()
    assert looked.scores.tolist() == whole.scores.tolist()


def test_of_approximate_indexes_the_shortlists_are_merged_and_scored_exactly(
    served: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = Query(items=("i003",), features={"vector": 1.0, "picture": 1.0}, k=5)
    whole = search(served, query)
    monkeypatch.setattr(indexes.Flat, "exact", property(lambda _: False))
    monkeypatch.setattr(blend, "LEAST_SHORTLIST", 1)
    monkeypatch.setattr(blend, "SHORTLIST", 12)  # all sixty
    assert search(served, query).equals(whole)
    monkeypatch.setattr(blend, "SHORTLIST", 1)
    known = dict(zip(whole["item_id"].to_pylist(), whole["score"].to_pylist(), strict=True))
    fewer = search(served, query)
    assert len(fewer) == 5
    for row in fewer.to_pylist():
        assert row["score"] == pytest.approx(known.get(row["item_id"], row["score"]))
    assert search(served, replace(query, exact=True)).equals(whole)


def test_an_item_that_lacks_a_feature_gets_nothing_for_it(served: Release) -> None:
    query = Query(items=("i003",), features={"vector": 1.0, "picture": 1.0}, where="item_id = 'i010'")
    found = search(served, replace(query, explain=True))
    assert found["part.picture"].to_pylist() == [None]
    assert found["score"][0].as_py() == pytest.approx(found["part.vector"][0].as_py())


def test_one_item_by_one_feature_is_answered_as_ever_bit_for_bit(served: Release) -> None:
    for item in ("i003", "i041"):
        for feature in ("vector", "picture"):
            for where in ("price < 30", None):
                plain = similar(served, item=item, feature=feature, where=where, k=7)
                asked = search(served, Query(items=(item,), features={feature: 1.0}, where=where, k=7))
                assert asked.equals(plain)
    vector = Words().text("vector", "Thing 5")
    assert search(served, Query(text="Thing 5"), Words()).equals(
        similar(served, vector=vector, feature="vector")
    )


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"vector": -1.0}, "must be 0, or from 1e-06 to 1,000,000"),
        ({"vector": float("nan")}, "must be 0, or from 1e-06 to 1,000,000"),
        ({"vector": float("inf")}, "must be 0, or from 1e-06 to 1,000,000"),
        ({"vector": 1e300}, "must be 0, or from 1e-06 to 1,000,000"),
        ({"vector": 1e-300}, "must be 0, or from 1e-06 to 1,000,000"),
        ({"vector": 0.0, "picture": 0.0}, "no feature has a weight above 0"),
        ({}, "no feature has a weight above 0"),
    ],
)
def test_weights_that_say_nothing_are_refused(weights: dict[str, float], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Query(items=("i003",), features=weights)


# ---- several items, and items to stay away from


@settings(max_examples=40)
@given(
    like=st.lists(ITEMS, min_size=1, max_size=4, unique=True),
    unlike=st.lists(ITEMS, max_size=3, unique=True),
    beta=st.floats(0, 1),
    where=st.sampled_from(WHERE),
)
def test_several_items_ask_by_their_mean_less_that_of_the_unlike(
    served: Release, like: list[str], unlike: list[str], beta: float, where: str | None
) -> None:
    unlike = [item for item in unlike if item not in like]
    query = np.mean([unit_of("vector", item) for item in like], axis=0)
    if unlike:
        query = query - beta * np.mean([unit_of("vector", item) for item in unlike], axis=0)
    if np.linalg.norm(query) < 1e-3:
        return
    asked = Query(tuple(like), tuple(unlike), features={"vector": 1.0}, beta=beta, where=where, k=60)
    found = search(served, asked)
    scores = cosines(served, "vector", query)
    expected = best(served, scores, where, {*like, *unlike}, 60)
    rows = [served.row_of(item) for item in found["item_id"].to_pylist()]
    assert set(found["item_id"].to_pylist()) == set(expected)
    assert found["score"].to_numpy() == pytest.approx(scores[rows], abs=1e-5)
    assert found["score"].to_numpy() == pytest.approx(sorted(scores[rows], reverse=True), abs=1e-5)


def test_an_item_and_a_text_ask_together(served: Release) -> None:
    found = search(served, Query(items=("i003",), text="Thing 8", k=1, explain=True), Words())
    query = (unit_of("vector", "i003") + unit_of("vector", "i008")) / 2
    assert found["item_id"].to_pylist() == best(served, cosines(served, "vector", query), None, {"i003"}, 1)
    assert facts(found)["features"][0]["asked_with"] == ["item 'i003'", "the text"]


def test_each_feature_is_asked_with_what_it_can_read(served: Release) -> None:
    query = Query(
        items=("i010", "i003"), text="Thing 8", features={"vector": 1.0, "picture": 1.0}, explain=True
    )
    by_vector, by_picture = facts(search(served, query, Words()))["features"]
    assert by_vector["could_not_read"] == []
    assert by_picture["asked_with"] == ["item 'i003'"]
    assert by_picture["could_not_read"] == ["item 'i010'", "the text"]


def test_what_no_feature_can_read_is_refused_by_name(served: Release) -> None:
    with pytest.raises(BadInput, match="feature 'picture' reads no texts"):
        search(served, Query(text="Thing 8", features={"vector": 1.0, "picture": 1.0}), Words())
    with pytest.raises(BadInput, match="the text cannot be compared by picture"):
        search(served, Query(items=("i003",), text="Thing 8", features={"picture": 1.0}), Words())
    with pytest.raises(BadInput, match="item 'i020' cannot be compared by picture"):
        search(served, Query(items=("i003",), unlike=("i020",), features={"picture": 1.0}))
    with pytest.raises(NotFound, match="item 'i010' has no vector of 'picture'"):
        search(served, Query(items=("i010",), features={"vector": 1.0, "picture": 1.0}))
    with pytest.raises(BadInput, match="the store's encoders"):
        search(served, Query(text="Thing 8"))


def test_a_query_that_cancels_out_is_refused(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store", computed=())
    shop.upsert(store, pa.table({"item_id": ["i001", "i002"], "title": ["Same", "Same"]}))
    shop.materialize(store, "vector")
    with pytest.raises(BadInput, match="cancels out"):
        search(store.publish(allow_stale=True), Query(items=("i001",), unlike=("i002",), beta=1.0))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({}, "similar to what"),
        ({"unlike": ("i001",)}, "similar to what"),
        ({"items": ("i001",), "unlike": ("i001",)}, "as like and as unlike"),
        ({"text": "  "}, "empty"),
        ({"items": ("i001",), "k": 0}, "k is 0"),
        ({"items": ("i001",), "diversity": 1.5}, "diversity is 1.5"),
        ({"items": ("i001",), "diversity": float("nan")}, "diversity is nan"),
        ({"items": ("i001",), "diversity": 0.5, "k": 1_001}, "at most 1,000"),
        ({"items": ("i001",), "beta": -1.0}, "beta is -1"),
        ({"items": ("i001",), "mode": "hybird"}, "unknown mode"),
        ({"items": ("i001",), "mode": "hybrid"}, "looks for words"),
        ({"items": ("i001",), "text": "mug", "mode": "keyword"}, "takes no items"),
        ({"text": "mug", "mode": "keyword", "features": {"vector": 1.0}}, "takes no features"),
    ],
)
def test_a_query_that_cannot_be_meant_is_refused(query: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Query(**query)


# ---- words


def test_keywords_need_no_vectors(tmp_path: Path) -> None:
    bare = shop.build(tmp_path / "store", computed=()).publish(allow_stale=True)
    found = search(bare, Query(text="Thing 42", mode="keyword", k=1))
    assert found["item_id"].to_pylist() == ["i042"]


def test_keywords_under_a_filter_give_every_item_that_has_one(served: Release) -> None:
    found = search(served, Query(text="thing", mode="keyword", where="item_id IN ('i007', 'i051')"))
    assert found["item_id"].to_pylist() == ["i007", "i051"]


def test_words_that_no_item_has_are_told(served: Release) -> None:
    with pytest.raises(BadInput, match="no item of release 0001 has a word of the query: 'thnig'") as caught:
        search(served, Query(text="thnig", mode="keyword"))
    assert "did you mean 'thing'?" in str(caught.value.remedy)
    with pytest.raises(BadInput, match="there is no word in"):
        search(served, Query(text="?!", mode="keyword"))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (Query(items=("i003",), where="price > 1000"), "no item satisfies the filter"),
        (Query(text="t1", mode="keyword", where="item_id = 'i002'"), "that satisfies the filter has a word"),
        (Query(items=("i003",), features={"picture": 1.0}, where="item_id = 'i010'"), "has a vector"),
    ],
)
def test_an_empty_answer_says_why(served: Release, query: Query, said: str) -> None:
    found = search(served, query)
    assert len(found) == 0
    assert said in facts(found)["notes"][0]


@settings(max_examples=40)
@given(
    number=st.integers(0, shop.N_ITEMS - 1),
    tag=st.integers(0, 4),
    where=st.sampled_from(WHERE),
    k=st.integers(1, 70),
)
def test_hybrid_is_reciprocal_rank_of_both_rankings(
    served: Release, number: int, tag: int, where: str | None, k: int
) -> None:
    text = f"Thing {number} t{tag}"
    window = max(100, 10 * k)
    by_words = search(served, Query(text=text, mode="keyword", where=where, k=window))
    by_vectors = search(served, Query(text=text, where=where, k=window), Words())
    rankings = [[served.row_of(i) for i in t["item_id"].to_pylist()] for t in (by_vectors, by_words)]
    rows, parts = reciprocal_rank(rankings)
    found = search(served, Query(text=text, mode="hybrid", where=where, k=k, explain=True), Words())
    assert found["item_id"].to_pylist() == served.ids[rows[:k]].tolist()
    assert found["score"].to_numpy() == pytest.approx(parts.sum(axis=1)[:k])
    assert pytest.approx(parts[:k]) == np.array([found["vector_rrf"], found["keyword_rrf"]]).T
    for row in found.to_pylist():
        assert row["vector_rrf"] == (1 / (60 + row["vector_rank"]) if row["vector_rank"] else 0)
        assert row["keyword_rrf"] == (1 / (60 + row["keyword_rank"]) if row["keyword_rank"] else 0)
        assert (row["bm25"] is None) == (row["keyword_rank"] is None)


def test_hybrid_without_a_known_word_is_answered_by_vectors_and_says_so(served: Release) -> None:
    class Anything(Words):
        def text(self, feature: str, text: str) -> np.ndarray:
            return super().text(feature, "Thing 5")

    found = search(served, Query(text="unheard", mode="hybrid", k=1), Anything())
    assert found["item_id"].to_pylist() == ["i005"]
    assert "'unheard'" in facts(found)["notes"][0]


# ---- filters


@pytest.mark.parametrize("mode", ["vector", "keyword", "hybrid"])
@pytest.mark.parametrize("diversity", [0.0, 0.5])
def test_as_many_as_asked_come_where_as_many_satisfy_the_filter(
    served: Release, mode: Any, diversity: float
) -> None:
    if mode == "keyword" and diversity:
        return
    where = "item_id IN ('i004', 'i011', 'i033', 'i058')"
    query = Query(text="Thing 8", mode=mode, where=where, k=4, diversity=diversity)
    found = search(served, query, Words())
    assert sorted(found["item_id"].to_pylist()) == ["i004", "i011", "i033", "i058"]


def test_filters_compare_numbers_and_know_the_columns(served: Release) -> None:
    query = Query(items=("i003",), features={"vector": 1.0, "picture": 2.0}, k=60)
    found = search(served, replace(query, where="price >= 9 AND price < 12"))
    assert sorted(found["price"].to_pylist()) == [9, 10, 11]
    with pytest.raises(BadInput) as caught:
        search(served, replace(query, where="pirce < 3"))
    assert "did you mean 'price'?" in str(caught.value)
    with pytest.raises(BadInput, match="price"):
        search(served, replace(query, where="price < 'cheap'"))


# ---- diversity


@settings(max_examples=40)
@given(item=ITEMS, diversity=st.floats(0, 1), k=st.integers(1, 15), weights=st.tuples(WEIGHTS, WEIGHTS))
def test_diverse_answers_are_chosen_from_the_best_of_the_pool(
    served: Release, item: str, diversity: float, k: int, weights: tuple[float, float]
) -> None:
    if item.endswith("0") or not all(weights):
        return
    query = Query(items=(item,), features=dict(zip(("vector", "picture"), weights, strict=True)), k=k)
    pool = search(served, replace(query, k=pool_size(k)))
    rows = np.array([served.row_of(i) for i in pool["item_id"].to_pylist()])
    vectors = np.zeros((served.n_items, 0))
    for feature, weight in zip(("vector", "picture"), weights, strict=True):
        matrix, block = served.matrix(feature), np.zeros((served.n_items, shop.RECIPES[feature].dim or 0))
        block[matrix.rows] = np.sqrt(weight) * shop.unit(matrix.values)
        vectors = np.hstack([vectors, block])
    chosen = diverse(pool["score"].to_numpy(), vectors[rows], k, diversity)
    found = search(served, replace(query, diversity=diversity, explain=True))
    if diversity == 0:
        assert found["item_id"].to_pylist() == pool["item_id"].to_pylist()[:k]
        return
    assert found["item_id"].to_pylist() == served.ids[rows[chosen]].tolist()
    assert found["relevance_rank"].to_pylist() == (chosen + 1).tolist()
    assert facts(found)["diversity"]["pool"] == len(pool)


def test_a_little_diversity_leaves_hybrid_the_best(served: Release) -> None:
    query = Query(text="Thing 8", mode="hybrid", k=8)
    plain = search(served, query, Words())["item_id"].to_pylist()
    assert search(served, replace(query, diversity=1e-9), Words())["item_id"].to_pylist() == plain
    assert search(served, replace(query, diversity=0.7), Words())["item_id"].to_pylist()[0] == plain[0]


# ---- explaining


@pytest.mark.parametrize(
    ("query", "route"),
    [
        (Query(items=("i003",)), "exact"),
        (Query(items=("i003",), where="price < 3"), "gather"),
        (Query(items=("i003",), features={"vector": 1.0, "picture": 1.0}), "exact"),
    ],
)
def test_an_explanation_names_release_recipe_index_and_route(
    served: Release, query: Query, route: str
) -> None:
    told = facts(search(served, replace(query, explain=True)))
    assert told["release"] == served.name
    assert told["items"] == shop.N_ITEMS
    assert told["items_passing_filter"] == (3 if query.where else None)
    first = told["features"][0]
    assert first["recipe"] == served.facts("vector")["recipe_id"]
    assert first["index"]["exact"]
    assert first["route"] == route


def test_a_column_called_like_one_of_an_explanation_makes_way(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store", computed=("vector",))
    shop.upsert(store, pa.table({"item_id": shop.ids(), "bm25": [1.0] * shop.N_ITEMS}))
    served = store.publish(allow_stale=True)
    query = Query(text="Thing 8", mode="hybrid", k=3)
    assert search(served, query, Words())["bm25"].to_pylist() == [1.0] * 3
    found = search(served, replace(query, explain=True), Words())
    assert found["catalogue.bm25"].to_pylist() == [1.0] * 3
    assert found["bm25"][0].as_py() != 1.0


def test_looking_at_every_vector_gives_the_same_where_the_index_is_exact(served: Release) -> None:
    for query in (
        Query(items=("i003",)),
        Query(items=("i003", "i004")),
        Query(text="Thing 8", mode="hybrid"),
    ):
        assert search(served, replace(query, exact=True), Words()).equals(search(served, query, Words()))


@pytest.mark.parametrize("items", [("i001",), ("i001", "i002")])
def test_a_misspelled_feature_is_refused_whatever_its_weight(served: Release, items: tuple[str, ...]) -> None:
    with pytest.raises(NotFound, match="no feature 'pictur'") as caught:
        search(served, Query(items=items, features={"vector": 1.0, "pictur": 0.0}))
    assert caught.value.remedy == "did you mean 'picture'?"
