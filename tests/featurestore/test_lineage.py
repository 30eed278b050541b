from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from featurestore import lineage, release
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
