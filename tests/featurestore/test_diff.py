"""What a diff says, against changes that are known."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import features, interactions, schema
from featurestore.diff import TODAY, ItemChange, recipe_changes
from featurestore.errors import NotFound
from featurestore.recipe import ModelRef, Recipe
from featurestore.store import Store
from tests.featurestore import shop


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Release 0001, then an item more, one less, two edited, events more and a rating corrected: release 0002."""
    made = shop.build(tmp_path_factory.mktemp("diff") / "store", computed=("vector", "tokens"))
    made.publish(allow_stale=True)
    log = shop.log().append_column("number", pa.array(range(60)))
    with made.lock("test"):
        rated = log.slice(0, 1).drop_columns(["number", "value"]).append_column("value", pa.array([4.0]))
        interactions.upsert_interactions(made.tables, rated)
        later = shop.log(seed=9).set_column(3, "timestamp", pa.array(range(1000, 1060), pa.int64()))
        interactions.upsert_interactions(made.tables, later.slice(0, 7))
    whole = shop.catalogue(shop.N_ITEMS).filter(pa.compute.not_equal(shop.catalogue()["item_id"], "i003"))
    shop.upsert(made, whole, remove_missing=True)
    edits = pa.table(
        {
            "item_id": ["i001", "i002", "new"],
            "title": ["Other", "Thing 2", "Newcomer"],
            "price": [99.0, 98.0, 1.0],
            "tags": pa.array([["odd", "t1"], [], ["x"]], pa.list_(pa.string())),
        }
    )
    shop.upsert(made, edits)
    shop.materialize(made, "vector")
    shop.materialize(made, "picture")
    made.publish(allow_stale=True)
    return made


def test_items_are_told_apart_by_content(store: Store) -> None:
    found = store.diff("0001", "0002").items
    assert (found.before, found.after) == (60, 60)
    assert (found.added, found.removed, found.changed) == (1, 1, 2)
    assert found.columns == {"title": 1, "price": 2, "tags": 1}
    assert (found.added_examples, found.removed_examples) == (["new"], ["i003"])
    assert found.changed_examples == [
        ItemChange("i001", ["title", "price"]),
        ItemChange("i002", ["price", "tags"]),
    ]


def test_events_are_told_apart_by_key_and_value(store: Store) -> None:
    found = store.diff("0001").events
    assert (found.added, found.removed, found.changed) == (7, 0, 1)
    assert (found.before, found.after) == (60, 67)


def test_features_say_what_was_recomputed(store: Store) -> None:
    found = {each.feature: each for each in store.diff("0001", "latest").features}
    vector = found["vector"]
    assert (vector.change, vector.values_added, vector.values_removed, vector.recomputed) == (
        "same recipe",
        1,
        1,
        1,
    )
    assert found["tokens"].values_removed == 1  # of the item that left
    assert found["tokens"].recomputed == 0
    assert found["picture"].change == "added"
    assert found["picture"].values_added == 53


def test_the_other_way_round_added_is_removed(store: Store) -> None:
    there, back = store.diff("0001", "0002"), store.diff("0002", "0001")
    assert (back.items.added, back.items.removed) == (there.items.removed, there.items.added)
    assert (back.events.added, back.events.removed) == (there.events.removed, there.events.added)
    assert [f.change for f in back.features if f.feature == "picture"] == ["dropped"]


def test_a_release_is_the_same_as_itself_and_as_today_if_nothing_was_written(store: Store) -> None:
    assert store.diff("0002", "0002").same
    assert store.diff("0002", TODAY).same
    assert not store.diff("0001", "0002").same


def test_today_is_what_is_not_published(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store", computed=("vector",))
    store.publish(allow_stale=True)
    shop.upsert(store, pa.table({"item_id": ["i005"], "title": ["Edited"]}))
    found = store.diff("latest", TODAY)
    assert (found.after, found.items.changed, found.items.columns) == (TODAY, 1, {"title": 1})
    with pytest.raises(NotFound, match="no release '0009'"):
        store.diff("0009", TODAY)


def test_a_new_recipe_says_what_differs_in_it(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store", computed=("vector",))
    store.publish(allow_stale=True)
    recipe = shop.RECIPES["vector"].model_copy(update={"options": {"stems": True}, "code_version": 2})
    store.lock_recipe("vector", recipe)
    rows = store.plan("vector").slice(0, 4)
    cells = rows.select([schema.ITEM_ID, schema.INPUT_HASH, schema.TRANSIENT, schema.ATTEMPTS])
    for name, value in ((schema.STATUS, "no_input"), (schema.ERROR_CODE, None), (schema.ERROR_MESSAGE, None)):
        cells = cells.append_column(name, pa.array([value] * 4, pa.string()))
    cells = cells.append_column(schema.VALUE, pa.array([None] * 4, pa.list_(pa.float32(), shop.DIM)))
    with store.lock("test"):
        features.commit(store.tables, "vector", recipe, cells)
    store.publish(allow_stale=True)
    found = store.diff("0001").features[0]
    assert (found.change, found.recipe_before, found.recipe_after) == (
        "new recipe",
        shop.RECIPES["vector"].short,
        recipe.short,
    )
    assert found.recipe_changes == {"code_version": [1, 2], "option stems": [None, True]}
    assert found.values_removed == shop.N_ITEMS


def test_every_part_of_a_recipe_has_a_name() -> None:
    model = ModelRef(id="m", revision="a")
    was = Recipe(
        kind="k", inputs=("column:title",), encoder="e", model=model, dim=3, artifacts={"words": "1"}
    )
    now = Recipe(
        kind="k", inputs=("image",), encoder="e", model=model.model_copy(update={"revision": "b"}), dim=4
    )
    assert recipe_changes(was, now) == {
        "inputs": [["column:title"], ["image"]],
        "dim": [3, 4],
        "model revision": ["a", "b"],
        "artifact words": ["1", None],
    }


@settings(max_examples=8)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xyz")),
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xyz")),
)
def test_counts_are_those_of_sets(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, str], other: dict[str, str]
) -> None:
    store = Store.create(tmp_path_factory.mktemp("sets") / "store", shop.TOML)
    names = []
    for content in (one, other):
        rows = {"item_id": ["always", *content], "title": ["there", *content.values()]}
        shop.upsert(store, pa.table(rows), remove_missing=True)
        names.append(store.publish(allow_stale=True).name)
    found = store.diff(*names).items
    assert found.added == len(other.keys() - one.keys())
    assert found.removed == len(one.keys() - other.keys())
    assert found.changed == sum(other[key] != one[key] for key in one.keys() & other.keys())
