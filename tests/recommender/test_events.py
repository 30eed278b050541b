from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import BadInput
from recommender.events import EventLog, k_core

Rows = list[tuple[str, str, int]]
rows_strategy = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(["x", "yy", "ü", "10", "9"]), st.integers(0, 4)),
    max_size=60,
)


def table(rows: Rows, order: str = "timestamp") -> pa.Table:
    users, items, times = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "user_id": pa.array(users, pa.string()),
            "item_id": pa.array(items, pa.string()),
            order: pa.array(times, pa.int64()),
        }
    )


def triples(log: EventLog) -> list[tuple[str, str, int]]:
    times = np.zeros(len(log), dtype=np.int64) if log.times is None else log.times
    return [
        (str(log.user_ids[u]), str(log.item_ids[i]), int(t))
        for u, i, t in zip(log.users, log.items, times, strict=True)
    ]


@given(rows_strategy)
def test_a_log_holds_every_event_ordered_by_user_then_time_then_input(rows: Rows) -> None:
    log = EventLog.from_table(table(rows))
    assert triples(log) == sorted(rows, key=lambda r: (r[0], r[2]))  # sorted() is stable
    assert list(log.user_ids) == sorted({r[0] for r in rows})
    assert list(log.item_ids) == sorted({r[1] for r in rows})
    for u in range(log.n_users):
        assert (log.users[log.offsets[u] : log.offsets[u + 1]] == u).all()
    assert log.offsets[-1] == len(rows)
    assert log.users.dtype == log.items.dtype == np.int32


@given(rows_strategy)
def test_an_event_is_tied_when_the_user_has_another_at_its_time_before_it(rows: Rows) -> None:
    log = EventLog.from_table(table(rows))
    events = triples(log)
    expected = [
        j > 0 and events[j][0] == events[j - 1][0] and events[j][2] == events[j - 1][2]
        for j in range(len(events))
    ]
    assert log.tied.tolist() == expected


def naive_k_core(rows: Rows, user_min: int, item_min: int) -> Rows:
    while True:
        users, items = Counter(r[0] for r in rows), Counter(r[1] for r in rows)
        kept = [r for r in rows if users[r[0]] >= user_min and items[r[1]] >= item_min]
        if len(kept) == len(rows):
            return rows
        rows = kept


@settings(max_examples=200)
@given(rows_strategy, st.integers(0, 6), st.integers(0, 6))
def test_k_core_equals_removing_poor_users_and_items_until_none_is_left(
    rows: Rows, user_min: int, item_min: int
) -> None:
    log = k_core(EventLog.from_table(table(rows)), user_min, item_min)
    expected = EventLog.from_table(table(naive_k_core(rows, user_min, item_min)))
    assert triples(log) == triples(expected)
    assert log.hash == expected.hash
    assert log.tied.tolist() == expected.tied.tolist()


@given(rows_strategy, st.data())
def test_events_kept_by_a_selection_are_tied_as_if_they_alone_had_been_read(
    rows: Rows, data: st.DataObject
) -> None:
    log = EventLog.from_table(table(rows))
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(log), max_size=len(log))), dtype=np.bool_)
    kept = [row for row, k in zip(triples(log), keep, strict=True) if k]
    again = EventLog.from_table(table(kept))
    part = log.select(keep)
    assert (part.hash, part.tied.tolist()) == (again.hash, again.tied.tolist())


def test_k_core_refuses_a_negative_minimum() -> None:
    with pytest.raises(BadInput):
        k_core(EventLog.from_table(table([("a", "x", 1)])), -1, 2)


def test_positions_order_a_log_but_are_not_times() -> None:
    log = EventLog.from_table(table([("a", "x", 2), ("a", "y", 0), ("a", "z", 1)], "position"))
    assert log.times is None
    assert [str(log.item_ids[i]) for i in log.items] == ["y", "z", "x"]


def test_a_position_decides_between_events_of_one_time() -> None:
    events = table([("a", "x", 5), ("a", "y", 5), ("a", "z", 1)]).append_column(
        "position", pa.array([1, 0, 2], pa.int64())
    )
    log = EventLog.from_table(events)
    assert [str(log.item_ids[i]) for i in log.items] == ["z", "y", "x"]
    assert not log.tied.any()


def test_without_any_order_column_the_order_of_the_rows_holds() -> None:
    log = EventLog.from_table(table([("b", "x", 0), ("a", "y", 0), ("b", "w", 0)]).drop_columns("timestamp"))
    assert [
        (str(log.user_ids[u]), str(log.item_ids[i])) for u, i in zip(log.users, log.items, strict=True)
    ] == [
        ("a", "y"),
        ("b", "x"),
        ("b", "w"),
    ]
    assert not log.tied.any()


def test_a_wholly_null_order_column_counts_as_absent() -> None:
    events = table([("a", "x", 1), ("a", "y", 0)], "position").append_column(
        "timestamp", pa.nulls(2, pa.int64())
    )
    log = EventLog.from_table(events)
    assert log.times is None
    assert [str(log.item_ids[i]) for i in log.items] == ["y", "x"]


def test_arrow_timestamps_are_read_as_unix_seconds() -> None:
    events = table([("a", "x", 0)]).set_column(
        2, "timestamp", pa.array([1_700_000_000_500_000], pa.timestamp("us", tz="UTC"))
    )
    times = EventLog.from_table(events).times
    assert times is not None
    assert times.tolist() == [1_700_000_000]


def test_events_whose_order_is_partly_unknown_are_refused() -> None:
    events = table([("a", "x", 1), ("a", "y", 2)]).set_column(2, "timestamp", pa.array([1, None], pa.int64()))
    with pytest.raises(BadInput, match="1 of 2 events have no timestamp"):
        EventLog.from_table(events)


def test_times_that_are_not_whole_numbers_are_refused() -> None:
    events = table([("a", "x", 1)]).set_column(2, "timestamp", pa.array([1.5], pa.float64()))
    with pytest.raises(BadInput, match="whole numbers"):
        EventLog.from_table(events)


def test_events_without_a_user_or_item_are_refused() -> None:
    with pytest.raises(BadInput, match="1 of 1 events have no user_id"):
        EventLog.from_table(table([("a", "x", 1)]).set_column(0, "user_id", pa.nulls(1, pa.string())))


def test_a_missing_column_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(BadInput, match="did you mean 'itemid'"):
        EventLog.from_table(pa.table({"user_id": ["a"], "itemid": ["x"]}))


def test_number_ids_become_strings_sorted_as_strings() -> None:
    log = EventLog.from_table(pa.table({"user_id": [1, 1], "item_id": [10, 9]}))
    assert list(log.item_ids) == ["10", "9"]


class Release:
    ids = np.array(["x", "y", "z"])

    def events(self) -> pa.Table:
        return table([("a", "x", 2), ("a", "gone", 1), ("b", "gone", 1), ("a", "z", 3)])


def test_events_of_items_that_left_the_catalogue_are_left_out_and_counted() -> None:
    log = EventLog.from_release(Release())
    assert triples(log) == [("a", "x", 2), ("a", "z", 3)]
    assert list(log.item_ids) == ["x", "z"]
    assert list(log.user_ids) == ["a"]
    assert log.numbers()["left_out"] == 2


def test_the_whole_catalogue_can_be_the_vocabulary() -> None:
    log = EventLog.from_release(Release(), catalogue=True)
    assert list(log.item_ids) == ["x", "y", "z"]
    assert log.items.tolist() == [0, 2]


def test_the_hash_of_a_log_changes_with_ids_order_and_times() -> None:
    rows: Rows = [("a", "x", 1), ("a", "y", 2)]
    base = EventLog.from_table(table(rows)).hash
    assert EventLog.from_table(table(rows[::-1])).hash == base  # the order of input rows does not matter
    others: list[Rows] = [
        [("a", "x", 1), ("a", "z", 2)],
        [("a", "x", 2), ("a", "y", 1)],
        [("a", "x", 1), ("a", "y", 3)],
        [("b", "x", 1), ("b", "y", 2)],
    ]
    assert len({base, *(EventLog.from_table(table(o)).hash for o in others)}) == 5


def test_repeats_are_counted_a_user() -> None:
    log = EventLog.from_table(table([("a", "x", 1), ("a", "x", 2), ("b", "x", 1), ("a", "y", 3)]))
    assert log.repeats() == 1
