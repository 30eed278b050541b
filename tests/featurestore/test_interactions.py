from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from featurestore.interactions import EventChanges, event_ids, ordinals, read_log, upsert_interactions
from featurestore.schema import INTERACTIONS
from featurestore.tables import Tables


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path / "tables")


def log(rows: list[tuple[str, str, int | None]], value: float | None = None, event: str = "view") -> pa.Table:
    """Events of (user, item, timestamp)."""
    return pa.table(
        {
            "user_id": pa.array([row[0] for row in rows], pa.string()),
            "item_id": pa.array([row[1] for row in rows], pa.string()),
            "event": pa.array([event] * len(rows), pa.string()),
            "timestamp": pa.array([row[2] for row in rows], pa.int64()),
            "position": pa.array([None] * len(rows), pa.int64()),
            "value": pa.array([value] * len(rows), pa.float64()),
        }
    )


def test_the_same_log_again_adds_nothing_and_writes_no_version(tables: Tables) -> None:
    events = log([("u", "a", 1), ("u", "b", 2)])
    assert upsert_interactions(tables, events) == EventChanges(added=2)
    version = tables.version(INTERACTIONS)
    assert upsert_interactions(tables, events) == EventChanges(unchanged=2)
    assert tables.version(INTERACTIONS) == version


def test_true_repeats_within_a_source_survive(tables: Tables) -> None:
    events = log([("u", "a", 1), ("u", "a", 1), ("u", "a", 1)])
    assert upsert_interactions(tables, events).added == 3
    assert upsert_interactions(tables, events).unchanged == 3
    assert tables.count(INTERACTIONS) == 3


def test_a_grown_log_adds_only_its_new_events_behind_the_old(tables: Tables) -> None:
    upsert_interactions(tables, log([("u", "a", 5), ("u", "b", 5)]))
    assert upsert_interactions(tables, log([("u", "0", 5), ("u", "a", 5), ("u", "b", 5)])) == EventChanges(
        added=1, unchanged=2
    )
    assert read_log(tables)["item_id"].to_pylist() == ["a", "b", "0"], "equal times keep the order of arrival"
    assert len(set(read_log(tables)["_seq"].to_pylist())) == 3


def test_a_corrected_rating_changes_its_event(tables: Tables) -> None:
    upsert_interactions(tables, log([("u", "a", 1)], value=3.0))
    assert upsert_interactions(tables, log([("u", "a", 1)], value=4.0)) == EventChanges(changed=1)
    assert read_log(tables).select(["user_id", "value", "_seq"]).to_pylist() == [
        {"user_id": "u", "value": 4.0, "_seq": 0}
    ]


def test_the_log_is_read_by_user_then_time_then_input_order(tables: Tables) -> None:
    upsert_interactions(tables, log([("u2", "x", 9), ("u10", "c", 3), ("u10", "b", 1), ("u10", "a", 3)]))
    found = read_log(tables)
    assert list(zip(found["user_id"].to_pylist(), found["item_id"].to_pylist(), strict=True)) == [
        ("u10", "b"),
        ("u10", "c"),
        ("u10", "a"),
        ("u2", "x"),
    ]


def test_replacing_swaps_the_whole_log_in_one_commit(tables: Tables) -> None:
    upsert_interactions(tables, log([("u", "a", 1), ("u", "b", 2)]))
    version = tables.version(INTERACTIONS)
    found = upsert_interactions(tables, log([("u", "b", 2), ("u", "c", 3)]), replace=True)
    assert found == EventChanges(added=1, unchanged=1, removed=1)
    assert tables.version(INTERACTIONS) == version + 1
    assert read_log(tables)["item_id"].to_pylist() == ["b", "c"]
    assert tables.read(INTERACTIONS, version=version).num_rows == 2, "the old log stays readable"
    assert upsert_interactions(tables, log([("u", "b", 2), ("u", "c", 3)]), replace=True) == EventChanges(
        unchanged=2
    )
    assert tables.version(INTERACTIONS) == version + 1


def test_replacing_by_the_same_events_in_another_order_keeps_the_new_order(tables: Tables) -> None:
    upsert_interactions(tables, log([("u", "a", 1), ("u", "b", 1)]))
    upsert_interactions(tables, log([("u", "b", 1), ("u", "a", 1)]), replace=True)
    assert read_log(tables)["item_id"].to_pylist() == ["b", "a"]


def test_events_that_only_join_to_the_same_text_have_different_keys() -> None:
    pairs = log(
        [("a", "bc", 1), ("ab", "c", 1), ("a1", "b", 2), ("a", "1b", 2), ("u", "i", None), ("u", "i", 0)]
    )
    assert len(set(event_ids(pairs).to_pylist())) == 6
    assert event_ids(log([("u", "i", 1)]))[0] != event_ids(log([("u", "i", 1)], event="buy"))[0]


def test_ordinals_count_earlier_equals() -> None:
    codes = np.random.default_rng(0).integers(0, 5, 200)
    expected = [int((codes[:place] == code).sum()) for place, code in enumerate(codes)]
    assert ordinals(codes).tolist() == expected
    assert ordinals(np.array([], np.int64)).tolist() == []


def test_an_empty_store_has_an_empty_log(tables: Tables) -> None:
    assert read_log(tables).num_rows == 0
