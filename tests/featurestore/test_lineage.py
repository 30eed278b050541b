from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from featurestore import lineage, release
from featurestore.errors import NotFound
from featurestore.lineage import Node
from featurestore.recipe import Recipe
from featurestore.store import Store
from tests.featurestore import shop


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = shop.build(tmp_path_factory.mktemp("lineage") / "store")
    store.publish(tag="first")
    return store


def test_provenance_names_release_recipes_and_table_versions(filled: Store) -> None:
    made = filled.release()
    found = lineage.provenance(made)
    assert found == json.loads(json.dumps(found)), "plain JSON"
    assert found["release"]["name"] == "0001"
    assert found["release"]["tag"] == "first"
    vector = found["features"]["vector"]
    recipe = shop.RECIPES["vector"]
    assert vector["recipe_id"] == recipe.id
    assert vector["recipe"] == recipe.canonical()
    assert vector["version"] == filled.tables.version(recipe.table("vector"))
    assert list(found["features"]) == made.features
    assert found["store"]["id"]


def test_provenance_of_a_copied_release_knows_no_store(filled: Store, tmp_path: Path) -> None:
    for part in ("releases", "derived"):
        shutil.copytree(filled.root / part, tmp_path / part)
    found = lineage.provenance(release.open(tmp_path))
    assert found["store"] is None
    assert found["features"] == lineage.provenance(filled.release())["features"]


# ---- traces

ABOVE = """
[features.deeper]
kind = "imported"
inputs = ["feature:told.short"]
encoder = "imported"
"""


def found(node: Node, kind: str, name: str) -> Node:
    return next(each for each in node.walk() if (each.kind, each.name) == (kind, name))


def test_an_item_is_traced_from_its_picture_to_its_releases(filled: Store) -> None:
    traced = lineage.item(filled, "i001")
    assert traced.facts["title"] == "Thing 1"
    assert found(traced, "picture", "1.jpg").facts == {"sha256": f"{1:064d}"}, "the table knows no such file"
    cell = found(traced, "feature", "vector")
    assert cell.facts["state"] == "current"
    assert cell.facts["input hash"]
    assert cell.below[0].name == shop.RECIPES["vector"].short
    held = found(traced, "release", "0001").facts["features"]
    assert held["vector"] == f"{shop.RECIPES['vector'].short} ok"
    assert traced.to_dict() == json.loads(json.dumps(traced.to_dict())), "plain JSON"


def test_what_a_feature_reads_stands_below_it(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store")
    (store.root / "features.toml").write_text(shop.TOML + ABOVE)
    told = shop.RECIPES["told.short"]
    recipe = Recipe(kind="imported", inputs=(f"feature:told.short@{told.id}",), encoder="imported", dim=2)
    store.lock_recipe("deeper", recipe)
    traced = lineage.item(store, "i001")
    deeper = next(node for node in traced.below if node.name == "deeper")
    assert deeper.facts["state"] == "missing"
    assert found(deeper, "feature", "told.short").facts["value"] == "told of Thing 1"
    assert all(node.name != "told.short" for node in traced.below), "it stands below what reads it"
    assert found(lineage.feature(store, "told.short"), "read by", "deeper").facts == {"recipe": recipe.short}
    assert found(lineage.feature(store, "deeper"), "reads", "told.short").below[0].name == told.short


def test_an_item_without_a_value_says_why(tmp_path: Path) -> None:
    store = shop.build(tmp_path / "store", computed=())
    shop.materialize(store, "vector", broken=("i001",))
    traced = lineage.item(store, "i001")
    assert found(traced, "feature", "vector").facts["error code"] == "broken"
    assert found(traced, "feature", "vector").facts["state"] == "failed"
    assert found(traced, "feature", "picture").facts == {"state": "missing", "because": "never resolved"}


def test_a_feature_is_traced_to_its_tables_and_releases(filled: Store) -> None:
    traced = lineage.feature(filled, "vector")
    assert traced.facts["cells"]["current"] == shop.N_ITEMS
    table = found(traced, "table", shop.RECIPES["vector"].table("vector"))
    assert table.facts["active"]
    assert table.facts["cells"] == shop.N_ITEMS
    assert found(traced, "release", "0001").facts["coverage"]["ok"] == shop.N_ITEMS


@pytest.mark.parametrize(
    ("trace", "name", "hint"),
    [
        (lineage.item, "I001", "did you mean 'i001'?"),
        (lineage.feature, "vectr", "did you mean 'vector'?"),
        (lineage.release, "frist", "did you mean 'first'?"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(
    filled: Store, trace: object, name: str, hint: str
) -> None:
    with pytest.raises(NotFound) as wrong:
        trace(filled, name)  # type: ignore[operator]
    assert wrong.value.remedy == hint


def test_an_id_is_no_piece_of_a_query(filled: Store) -> None:
    with pytest.raises(NotFound):
        lineage.item(filled, "x' OR 'a'='a")
