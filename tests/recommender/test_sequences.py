from __future__ import annotations

import numpy as np
import pytest

from featurestore.errors import BadInput
from recommender.sequences import TrainingBatches, pack, ragged_rows
from tests.recommender.learning import ring


def pairs(split: object, **options: object) -> set[tuple[int, int, int]]:
    """(user, input, target) of a whole epoch."""
    found = set()
    for batch in TrainingBatches(split, batch=7, seed=1, **options).epoch(1):  # type: ignore[arg-type]
        owners = np.repeat(batch.users, batch.history.lengths)
        found |= set(zip(owners.tolist(), batch.history.items.tolist(), batch.targets.tolist(), strict=True))
    return found


def test_ragged_rows_of_empty_and_full_ranges_follow_each_other() -> None:
    assert ragged_rows(np.array([5, 9, 0]), np.array([2, 0, 3])).tolist() == [5, 6, 0, 1, 2]
    assert ragged_rows(np.array([], dtype=np.int64), np.array([], dtype=np.int64)).tolist() == []


def test_packing_keeps_the_latest_events_in_their_order() -> None:
    values = np.arange(10, 30, dtype=np.int32)
    packed = pack(values, np.array([0, 5]), np.array([5, 7]), length=3)
    assert packed.items.tolist() == [12, 13, 14, 15, 16]
    assert packed.lengths.tolist() == [3, 2]
    assert packed.items[packed.last].tolist() == [14, 16]


def test_a_history_without_events_is_refused() -> None:
    with pytest.raises(BadInput, match="without events"):
        pack(np.arange(4), np.array([0, 2]), np.array([2, 2]), length=3)


def test_each_target_is_the_event_after_its_input_and_none_is_held_out() -> None:
    split = ring()
    expected = {
        (user, int(split.log.items[row]), int(split.log.items[row + 1]))
        for user in range(split.log.n_users)
        for row in range(split.log.offsets[user], split.train_end[user] - 1)
    }
    assert pairs(split, length=50) == expected


def test_a_window_holds_the_last_events_only() -> None:
    split = ring(least=9, most=9)
    for batch in TrainingBatches(split, length=3, batch=100, seed=0).epoch(1):
        ends = split.train_end[batch.users]
        assert batch.history.lengths.tolist() == [3] * len(batch.users)
        assert batch.targets.view(-1, 3)[:, -1].tolist() == split.log.items[ends - 1].tolist()


def test_random_windows_reach_every_training_event_in_time_and_nothing_else() -> None:
    split = ring(users=5, least=12, most=14)
    batches = TrainingBatches(split, length=3, batch=5, seed=0, windows="random")
    found = set()
    for number in range(1, 80):
        for batch in batches.epoch(number):
            owners = np.repeat(batch.users, batch.history.lengths)
            found |= set(zip(owners.tolist(), batch.targets.tolist(), strict=True))
    expected = {
        (user, int(split.log.items[row]))
        for user in range(5)
        for row in range(split.log.offsets[user] + 1, split.train_end[user])
    }
    assert found == expected


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    def order(seed: int, number: int) -> list[int]:
        batches = TrainingBatches(ring(), length=5, batch=8, seed=seed)
        for earlier in range(1, number):
            next(batches.epoch(earlier))
        return [user for batch in batches.epoch(number) for user in batch.users.tolist()]

    assert order(0, 3) == [
        user for b in TrainingBatches(ring(), length=5, batch=8, seed=0).epoch(3) for user in b.users.tolist()
    ]
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)
    assert sorted(order(0, 3)) == list(range(60))


def test_users_with_one_training_event_are_left_out_and_counted() -> None:
    split = ring(users=8, least=3, most=3)
    with pytest.raises(BadInput, match="two training events"):
        TrainingBatches(split, length=5, batch=4, seed=0)
    mixed = ring(users=40, least=3, most=5)
    short = int((mixed.train_end - mixed.log.offsets[:-1] < 2).sum())
    batches = TrainingBatches(mixed, length=5, batch=16, seed=0)
    assert short > 0
    assert batches.left_out == short
    assert len(list(batches.epoch(1))) == len(batches) == -(-(40 - short) // 16)
