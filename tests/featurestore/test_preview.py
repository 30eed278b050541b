"""What `publish` would make, told without making it."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.errors import BadInput, Stale
from featurestore.store import Store
from tests.featurestore import shop
from tests.untouched import untouched


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return shop.build(tmp_path / "store", computed=("vector", "picture", "told.short", "tokens", "private"))


def test_the_first_release_is_told_as_it_is_then_made(store: Store) -> None:
    with untouched(store.root):
        told = store.plan_publish()
    made = store.publish()
    assert (told.release, told.unchanged) == (made.name, False) == ("0001", False)
    assert (told.items, told.added, told.removed, told.events) == (
        made.n_items,
        shop.N_ITEMS,
        0,
        made.n_events,
    )
    assert [f.feature for f in told.features] == made.features
    for feature in told.features:
        assert feature.recipe == made.facts(feature.feature)["recipe_id"][:8]
        assert feature.values == made.facts(feature.feature)["coverage"]["ok"]
    assert told.bytes is None, "nobody knows how many vectors a list has"


def test_what_has_not_changed_since_is_the_latest_release(store: Store) -> None:
    store.publish()
    with untouched(store.root):
        told = store.plan_publish()
    assert (told.release, told.unchanged, told.bytes, told.tables_changed) == ("0001", True, 0, [])


def test_a_new_item_is_counted_and_its_features_are_derived_anew(store: Store) -> None:
    store.publish()
    shop.upsert(store, shop.catalogue(shop.N_ITEMS + 1))
    for feature in shop.RECIPES:
        shop.materialize(store, feature)
    told = store.plan_publish()
    assert (told.release, told.added, told.removed) == ("0002", 1, 0)
    vector = next(f for f in told.features if f.feature == "vector")
    assert vector.bytes == 2 * 4 * (shop.N_ITEMS + 1) * shop.DIM
    assert vector.before == vector.recipe


def test_a_refusal_is_the_same_as_that_of_publish(store: Store) -> None:
    shop.upsert(store, shop.catalogue(shop.N_ITEMS + 1))
    with untouched(store.root), pytest.raises(Stale, match="vector: 1 missing"):
        store.plan_publish()
    assert store.plan_publish(allow_stale=True).release == "0001"
    with pytest.raises(BadInput, match="cannot be the tag"):
        store.plan_publish(tag="latest", allow_stale=True)
