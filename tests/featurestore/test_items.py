from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.items import ItemChanges, content_hashes, keep_stored, live, upsert_items
from featurestore.schema import ITEMS
from featurestore.tables import Tables


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path / "tables")


def catalogue(**columns: list[object]) -> pa.Table:
    return pa.table(columns)


def stored(tables: Tables, column: str) -> dict[str, object]:
    rows = live(tables)
    return dict(zip(rows["item_id"].to_pylist(), rows[column].to_pylist(), strict=True))


def test_a_new_catalogue_is_added_and_the_same_one_again_changes_nothing(tables: Tables) -> None:
    rows = catalogue(item_id=["a", "b"], title=["A", "B"], price=[1.5, None], tags=[["x", "y"], None])
    assert upsert_items(tables, rows) == ItemChanges(added=2)
    version = tables.version(ITEMS)
    assert upsert_items(tables, rows) == ItemChanges(unchanged=2)
    assert tables.version(ITEMS) == version


def test_only_edited_rows_are_written_and_they_keep_the_day_they_were_added(tables: Tables) -> None:
    upsert_items(tables, catalogue(item_id=["a", "b", "c"], title=["A", "B", "C"]))
    before = tables.read(ITEMS).sort_by("item_id").to_pylist()
    assert upsert_items(tables, catalogue(item_id=["a", "b", "c"], title=["A", "B2", "C"])) == ItemChanges(
        changed=1, unchanged=2
    )
    after = tables.read(ITEMS).sort_by("item_id").to_pylist()
    assert after[0] == before[0]
    assert after[1]["title"] == "B2"
    assert after[1]["_added_at"] == before[1]["_added_at"]
    assert after[1]["_updated_at"] > before[1]["_updated_at"]


def test_a_value_that_becomes_null_is_a_change(tables: Tables) -> None:
    upsert_items(tables, catalogue(item_id=["a"], title=["A"], note=["n"]))
    gone = pa.table({"item_id": ["a"], "title": ["A"], "note": pa.array([None], pa.string())})
    assert upsert_items(tables, gone).changed == 1
    assert stored(tables, "note") == {"a": None}


def test_a_new_column_changes_only_items_that_have_a_value_in_it(tables: Tables) -> None:
    upsert_items(tables, catalogue(item_id=["a", "b"], title=["A", "B"]))
    found = upsert_items(tables, catalogue(item_id=["a", "b"], title=["A", "B"], price=[2.0, None]))
    assert found == ItemChanges(changed=1, unchanged=1)
    assert stored(tables, "price") == {"a": 2.0, "b": None}


def test_columns_the_source_lacks_keep_what_is_stored(tables: Tables) -> None:
    upsert_items(tables, catalogue(item_id=["a", "b"], title=["A", "B"], price=[1.0, 2.0]))
    assert upsert_items(tables, catalogue(item_id=["b", "c"], title=["B2", "C"])) == ItemChanges(
        added=1, changed=1
    )
    assert stored(tables, "price") == {"a": 1.0, "b": 2.0, "c": None}


def test_missing_items_stay_unless_their_removal_is_asked_for(tables: Tables) -> None:
    upsert_items(tables, catalogue(item_id=["a", "b"], title=["A", "B"]))
    one = catalogue(item_id=["a"], title=["A"])
    assert upsert_items(tables, one).removed == 0
    assert upsert_items(tables, one, remove_missing=True) == ItemChanges(unchanged=1, removed=1)
    assert set(stored(tables, "title")) == {"a"}
    assert tables.count(ITEMS) == 2, "a tombstone, not an erasure"
    version = tables.version(ITEMS)
    assert upsert_items(tables, one, remove_missing=True).removed == 0
    assert tables.version(ITEMS) == version


def test_a_tombstoned_item_that_returns_is_revived_with_what_it_had(tables: Tables) -> None:
    upsert_items(tables, catalogue(item_id=["a", "b"], title=["A", "B"], price=[1.0, 2.0]))
    upsert_items(tables, catalogue(item_id=["a"], title=["A"]), remove_missing=True)
    assert upsert_items(tables, catalogue(item_id=["b"], title=["B"])) == ItemChanges(revived=1)
    assert stored(tables, "price") == {"a": 1.0, "b": 2.0}


def test_stored_values_stand_in_for_values_that_failed(tables: Tables) -> None:
    upsert_items(tables, catalogue(item_id=["a", "b"], title=["A", "B"], price=[1.0, 2.0]))
    incoming = pa.table({"item_id": ["b", "c", "a"], "price": pa.array([None, None, None], pa.float64())})
    kept = keep_stored(tables, incoming, {"price": np.array([True, True, False])})
    assert kept["price"].to_pylist() == [2.0, None, None]


def test_the_hash_tells_rows_apart_whose_values_only_join_to_the_same_text() -> None:
    rows = pa.table({"p": ["ab", "a", None, "", "ab"], "q": ["c", "bc", "abc", None, None]})
    assert len(set(content_hashes(rows).to_pylist())) == 5
    lists = pa.table({"p": [["a", "b"], ["a,b"], ["ab"], [], None]})
    assert len(set(content_hashes(lists).to_pylist())) == 5


def test_the_hash_does_not_depend_on_the_order_of_columns() -> None:
    rows = pa.table({"p": ["x"], "q": [1.5], "r": [["l"]]})
    assert content_hashes(rows).equals(content_hashes(rows.select(["r", "q", "p"])))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["x", "y", None]), min_size=1), max_size=5
    )
)
def test_after_any_series_of_ingests_the_catalogue_is_the_last_word_on_each_item(
    tmp_path_factory: pytest.TempPathFactory, series: list[dict[str, str | None]]
) -> None:
    tables = Tables(tmp_path_factory.mktemp("t"))
    expected: dict[str, str | None] = {}
    for step in series:
        found = upsert_items(
            tables, pa.table({"item_id": list(step), "title": pa.array(list(step.values()), pa.string())})
        )
        assert found.added == len(set(step) - set(expected))
        assert found.changed == sum(
            item in expected and expected[item] != title for item, title in step.items()
        )
        expected |= step
        assert stored(tables, "title") == expected
