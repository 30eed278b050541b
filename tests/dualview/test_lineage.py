"""From a run back to the files it came from, and from an item on to the runs that learnt it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualview.demo.catalogue import CatalogueSettings
from dualview.demo.taste import TasteSettings
from dualview.demo.truth import make_shop
from dualview.evaluation import evaluate
from dualview.store import Store
from dualview.training import fit, promote
from featurestore.errors import BadInput, NotFound
from featurestore.lineage import Node


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    make_shop(folder, CatalogueSettings(items=60, seed=3, px=64), TasteSettings(users=60))
    return folder


@pytest.fixture(scope="module")
def store(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store.create(tmp_path_factory.mktemp("stores") / "store")
    made.ingest(shop / "items.csv", shop / "events.csv")
    made.materialize()
    made.publish()
    run = fit(made, items="id+text", epochs=1, length=10, width=8)
    evaluate(made, run.name)
    promote(made, run.name)
    return made


def found(node: Node, kind: str) -> Node:
    return next(each for each in node.walk() if each.kind == kind)


def test_an_item_leads_from_its_file_to_the_figures_of_a_run(store: Store, shop: Path) -> None:
    item = store.sql("select item_id, image from catalogue where image is not null limit 1").to_pylist()[0]
    traced = store.trace(f"item:{item['item_id']}")
    assert str(shop / "items.csv") in found(traced, "ingest").facts["from"]
    picture = found(traced, "picture")
    assert (picture.name, picture.facts["now"]) == (item["image"], "as it was ingested")
    run = found(traced, "run")
    events = store.sql(f"select count(*) as n from interactions where item_id = '{item['item_id']}'")
    assert 0 <= run.facts["training events of it"] <= events["n"][0].as_py()
    assert run.facts["promoted"]
    assert set(run.facts["test"]) >= {"NDCG@10", "HR@10"}


def test_a_picture_that_was_replaced_or_removed_is_said_to_be(store: Store, shop: Path) -> None:
    item = store.sql("select item_id, image from catalogue where image is not null limit 1").to_pylist()[0]
    file = shop / item["image"]
    kept = file.read_bytes()
    try:
        file.write_bytes(b"another")
        assert found(store.trace(f"item:{item['item_id']}"), "picture").facts["now"] == "another picture"
        file.unlink()
        assert "No such file" in found(store.trace(f"item:{item['item_id']}"), "picture").facts["now"]
    finally:
        file.write_bytes(kept)


def test_a_run_leads_back_to_recipes_and_table_versions(store: Store) -> None:
    traced = store.trace("run:latest")
    assert traced.facts["seed"] == 0
    assert found(traced, "options").facts == {"items": "id+text", "width": 8, "length": 10, "epochs": 1}
    assert found(traced, "split").facts["hash"]
    recipe = store.recipe("text")
    assert recipe is not None
    feature = found(traced, "feature")
    assert (feature.name, feature.facts["recipe"]) == ("text", recipe.short)
    assert feature.facts["version"] == store.tables.version(recipe.table("text"))
    assert found(traced, "made on").facts["torch"]


def test_a_run_says_where_it_was_served(store: Store) -> None:
    from recommender.retrieve import Retriever

    user = store.sql("select user_id from interactions limit 1")["user_id"][0].as_py()
    Retriever.open(store).recommend(user, k=3)
    assert found(store.trace("run:latest"), "served on").name == "0001"


def test_features_and_releases_name_the_runs_that_learnt_from_them(store: Store) -> None:
    run = found(store.trace("run:latest"), "run").name
    assert found(store.trace("feature:text"), "run").name == run
    assert all(node.kind != "run" for node in store.trace("feature:image").walk()), "no run read it"
    assert found(store.trace("release:latest"), "run").name == run


def test_a_wrong_target_is_answered_with_what_there_is(store: Store) -> None:
    with pytest.raises(BadInput, match="names nothing"):
        store.trace("something")
    with pytest.raises(BadInput) as wrong:
        store.trace("itm:1")
    assert wrong.value.remedy == "did you mean 'item'?"
    with pytest.raises(NotFound) as unknown:
        store.trace("run:sasrec-id-text-002")
    assert unknown.value.remedy == "did you mean 'sasrec-id-text-001'?"
