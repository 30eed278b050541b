from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.errors import BadInput
from recommender.events import EventLog
from recommender.splits import Split, global_time, leave_one_out

Rows = list[tuple[str, str, int]]
rows_strategy = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz"), st.integers(0, 9)),
    min_size=1,
    max_size=60,
)


def log_of(rows: Rows, order: str = "timestamp") -> EventLog:
    users, items, times = zip(*rows, strict=True)
    return EventLog.from_table(pa.table({"user_id": users, "item_id": items, order: times}))


def item(split: Split, row: int) -> str:
    return str(split.log.item_ids[split.log.items[row]])


@given(rows_strategy)
def test_leave_one_out_puts_every_event_into_exactly_one_part(rows: Rows) -> None:
    split = leave_one_out(log_of(rows))
    log = split.log
    for u in range(log.n_users):
        first, last = int(log.offsets[u]), int(log.offsets[u + 1])
        train = list(range(first, int(split.train_end[u])))
        held_out = [int(r[u]) for r in (split.valid, split.test) if r[u] >= 0]
        assert train + held_out == list(range(first, last))
        assert len(held_out) == (2 if last - first >= 3 else 0)
    numbers = split.numbers()
    assert numbers["train_events"] + numbers["valid_users"] + numbers["test_users"] == len(rows)
    assert numbers["train_events"] == split.counts.sum() == split.in_training.sum()


def test_users_with_fewer_than_three_events_are_training_only_and_counted() -> None:
    split = leave_one_out(
        log_of([("a", "x", 1), ("b", "x", 1), ("b", "y", 2), ("c", "x", 1), ("c", "y", 2), ("c", "z", 3)])
    )
    assert split.users("test").tolist() == [2]
    assert item(split, split.test[2]) == "z"
    assert item(split, split.valid[2]) == "y"
    numbers = split.numbers()
    assert (numbers["users"], numbers["users_without_target"], numbers["train_events"]) == (3, 2, 4)


def naive_global_time(
    log: EventLog, valid_from: int, test_from: int
) -> tuple[set[int], list[int], list[int]]:
    assert log.times is not None
    train = {j for j in range(len(log)) if log.times[j] < valid_from}
    valid, test = [-1] * log.n_users, [-1] * log.n_users
    for u in range(log.n_users):
        first = int(log.offsets[u])
        for window, low, high in ((valid, valid_from, test_from), (test, test_from, 10**9)):
            inside = [j for j in range(first, int(log.offsets[u + 1])) if low <= log.times[j] < high]
            if inside and inside[0] > first:
                window[u] = inside[0]
    return train, valid, test


@given(rows_strategy, st.integers(1, 8), st.integers(1, 5))
def test_a_global_cut_trains_on_the_past_and_asks_for_each_users_first_event_after_it(
    rows: Rows, valid_from: int, width: int
) -> None:
    log = log_of(rows)
    train, valid, test = naive_global_time(log, valid_from, valid_from + width)
    if not train:
        with pytest.raises(BadInput, match="nothing is left for training"):
            global_time(log, valid_from=valid_from, test_from=valid_from + width)
        return
    split = global_time(log, valid_from=valid_from, test_from=valid_from + width)
    assert set(np.flatnonzero(split.in_training).tolist()) == train
    assert split.valid.tolist() == valid
    assert split.test.tolist() == test


def test_a_users_very_first_event_is_no_target_and_is_counted() -> None:
    log = log_of([("a", "x", 1), ("b", "x", 5), ("b", "y", 6), ("c", "z", 9), ("a", "z", 9)])
    split = global_time(log, valid_from=5, test_from=8)
    assert split.valid.tolist() == [-1, -1, -1]
    assert split.users("test").tolist() == [0]
    numbers = split.numbers()
    assert numbers["valid_without_history"] == 1
    assert numbers["test_without_history"] == 1
    assert numbers["users_without_target"] == 2


def test_fractions_cut_near_the_shares_and_never_inside_one_time() -> None:
    rng = np.random.default_rng(0)
    rows: Rows = [
        (f"u{rng.integers(50)}", f"i{rng.integers(20)}", int(rng.integers(200))) for _ in range(2000)
    ]
    split = global_time(log_of(rows), fractions=(0.7, 0.2, 0.1))
    times = split.log.times
    assert times is not None
    share = split.in_training.mean()
    assert 0.68 < share <= 0.7
    assert times[split.in_training].max() < times[~split.in_training].min()


@pytest.mark.parametrize("fractions", [(0.8, 0.2, 0.0), (0.5, 0.1, 0.1), (1.2, -0.1, -0.1)])
def test_fractions_that_are_no_shares_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(BadInput, match="fractions"):
        global_time(log_of([("a", "x", 1), ("a", "y", 2)]), fractions=fractions)


def test_a_log_without_a_clock_cannot_be_cut_in_time() -> None:
    with pytest.raises(BadInput, match="no clock"):
        global_time(log_of([("a", "x", 1), ("a", "y", 2), ("a", "z", 3)], "position"))


def test_a_cut_with_one_bound_or_bounds_in_the_wrong_order_is_refused() -> None:
    log = log_of([("a", "x", 1), ("a", "y", 2)])
    with pytest.raises(BadInput, match="both"):
        global_time(log, valid_from=2)
    with pytest.raises(BadInput, match="no time is left"):
        global_time(log, valid_from=3, test_from=2)


def test_users_whose_target_hangs_on_a_tied_time_are_counted() -> None:
    split = leave_one_out(
        log_of(
            [
                *[("a", "x", 1), ("a", "y", 2), ("a", "z", 2)],  # which of y and z comes last is input order
                *[("b", "x", 1), ("b", "y", 1), ("b", "z", 2)],  # the validation target is tied with training
                *[("c", "x", 1), ("c", "y", 2), ("c", "z", 3)],
            ]
        )
    )
    assert split.tied("test").tolist() == [0]
    assert split.tied("valid").tolist() == [0, 1]
    assert split.ties == 2


def test_the_hash_of_a_split_tells_the_log_and_the_cut_apart() -> None:
    log = log_of([("a", "x", 1), ("a", "y", 2), ("a", "z", 3), ("b", "x", 2), ("b", "z", 3)])
    again = log_of([("a", "x", 1), ("a", "y", 2), ("a", "z", 3), ("b", "x", 2), ("b", "z", 3)])
    assert leave_one_out(log).hash == leave_one_out(again).hash
    cuts = [
        leave_one_out(log),
        global_time(log, valid_from=2, test_from=3),
        global_time(log, valid_from=3, test_from=4),
    ]
    assert len({cut.hash for cut in cuts}) == 3


def test_targets_are_named_valid_or_test() -> None:
    split = leave_one_out(log_of([("a", "x", 1), ("a", "y", 2), ("a", "z", 3)]))
    with pytest.raises(BadInput, match="not 'train'"):
        split.rows("train")  # type: ignore[arg-type]
