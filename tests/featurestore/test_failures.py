from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from featurestore import features, quarantine, schema
from featurestore.errors import NotFound
from featurestore.store import Store
from tests.featurestore import shop


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = shop.build(tmp_path / "store", computed=())
    shop.materialize(made, "vector", broken=("i001", "i002"))
    return made


def set_aside(store: Store, source: str, *lines: int) -> None:
    rows = {
        "line": pa.array(lines, pa.int64()),
        "field": ["item_id"] * len(lines),
        "code": ["missing_id"] * len(lines),
        "reason": ["no id"] * len(lines),
        "row": ["{}"] * len(lines),
    }
    with store.lock("test"):
        quarantine.put(store.tables, pa.table(rows), source)


def test_cells_and_rows_set_aside_are_told_alike(store: Store) -> None:
    set_aside(store, "items.csv", 2, 3)
    ingest, cells = store.errors()
    assert (ingest.where, ingest.code, ingest.count) == ("ingest", "missing_id", 2)
    assert "mend items.csv" in (ingest.remedy or "")
    assert (cells.where, cells.code, cells.count) == ("vector", "broken", 2)
    assert [e.attempts for e in cells.examples] == [1, 1]
    assert f"dualview materialize {store.root} --feature vector --failed" in (cells.remedy or "")


def test_they_are_chosen_by_feature_and_by_code(store: Store) -> None:
    set_aside(store, "items.csv", 2)
    assert [g.where for g in store.errors(feature="vector")] == ["vector"]
    assert [g.where for g in store.errors(feature="ingest")] == ["ingest"]
    assert [g.code for g in store.errors(code="broken")] == ["broken"]
    with pytest.raises(NotFound) as wrong:
        store.errors(code="brokn")
    assert wrong.value.remedy == "did you mean 'broken'?"
    with pytest.raises(NotFound) as wrong:
        store.errors(feature="vectr")
    assert wrong.value.remedy == "did you mean 'vector'?"


@pytest.mark.parametrize(("asked", "shown"), [(0, 0), (1, 1), (None, 2)])
def test_so_many_examples_as_asked_for(store: Store, asked: int | None, shown: int) -> None:
    group = store.errors(asked)[0]
    assert (group.count, len(group.examples)) == (2, shown)


def test_trying_again_counts_and_what_is_mended_is_gone(store: Store) -> None:
    shop.materialize(store, "vector", broken=("i001", "i002"))
    assert [e.attempts for e in store.errors()[0].examples] == [2, 2]
    shop.materialize(store, "vector", broken=("i001",))
    assert [e.place for e in store.errors()[0].examples] == ["i001"]


def test_an_error_that_may_pass_is_tried_again_by_itself(store: Store) -> None:
    recipe = shop.RECIPES["vector"]
    plan = store.plan("vector").filter(pa.compute.equal(store.plan("vector")["item_id"], "i001"))
    cell = {
        "item_id": ["i001"],
        "value": pa.nulls(1, schema.value_type(recipe.value, recipe.dim)),
        "input_hash": plan["input_hash"],
        "status": ["error"],
        "error_code": ["image_gone"],
        "error_message": ["away"],
        "transient": [True],
        "attempts": pa.array([0], pa.int32()),
    }
    with store.lock("test"):
        features.commit(store.tables, "vector", recipe, pa.table(cell))
    group = next(g for g in store.errors() if g.code == "image_gone")
    assert group.retryable
    assert group.remedy == f"dualview materialize {store.root} --feature vector"


def test_an_item_that_left_has_no_errors(store: Store) -> None:
    left = [place for place, item in enumerate(shop.catalogue()["item_id"].to_pylist()) if item != "i001"]
    shop.upsert(store, shop.catalogue().take(left), remove_missing=True)
    assert [e.place for e in store.errors()[0].examples] == ["i002"]
