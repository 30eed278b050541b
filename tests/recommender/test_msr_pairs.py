"""Pairs of users and items: what may stand in a group, which events become positives, and that a file is believed
only as it was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import BadInput, NotFound
from recommender.events import EventLog
from recommender.msr.pairs import PARTS, PairOptions, Pairs, Part, draw_pairs


def a_log(users: int = 30, items: int = 60, seed: int = 0, clock: bool = True, most: int = 12) -> EventLog:
    """Users who take some items, each at a time of its own; repeats happen."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        for place in range(int(random.integers(1, most))):
            item, at = f"i{int(random.integers(items)):03d}", int(random.integers(10_000)) * 100 + place
            rows.append(
                {"user_id": f"u{user:03d}", "item_id": item, "timestamp" if clock else "position": at}
            )
    return EventLog.from_table(pa.Table.from_pylist(rows))


logs = st.builds(
    a_log,
    users=st.integers(3, 25),
    items=st.integers(40, 80),
    seed=st.integers(0, 50),
    clock=st.booleans(),
)
options = st.builds(
    lambda **given: PairOptions.of(**given),
    split=st.sampled_from(["leave-one-out", "by-user"]),
    seed=st.integers(0, 3),
    negatives=st.integers(1, 12),
    train_negatives=st.integers(1, 3),
    weighting=st.sampled_from(["uniform", "popularity"]),
    catalogue=st.sampled_from(["then", "all"]),
    min_history=st.integers(1, 3),
    train_positives=st.integers(1, 4),
    users=st.none() | st.integers(1, 20),
)


def drawn(log: EventLog, asked: PairOptions) -> Pairs | None:
    try:
        return draw_pairs(log, asked)
    except BadInput as error:
        if "no user has an event" not in error.message:
            raise
        return None


@settings(max_examples=60, deadline=None)
@given(logs, options)
def test_a_group_is_one_event_and_items_its_user_never_took(log: EventLog, asked: PairOptions) -> None:
    pairs = drawn(log, asked)
    if pairs is None:
        return
    taken: dict[str, set[str]] = {u: set() for u in log.user_ids.tolist()}
    events: dict[str, list[str]] = {u: [] for u in log.user_ids.tolist()}
    for user, item in zip(log.user_ids[log.users].tolist(), log.item_ids[log.items].tolist(), strict=True):
        taken[user].add(item)
        events[user].append(item)
    for name in PARTS:
        groups = pairs.parts[name]
        n = asked.train_negatives if name == "train" else asked.negatives
        assert groups.items.shape == (len(groups), n + 1)
        for user, history, items in zip(
            groups.users.tolist(), groups.history.tolist(), groups.items.tolist(), strict=True
        ):
            assert events[user][history] == items[0]
            assert history >= asked.min_history
            assert len(set(items)) == n + 1
            assert not taken[user] & set(items[1:])


@settings(max_examples=40, deadline=None)
@given(logs, options)
def test_no_user_and_no_event_is_lost_without_being_counted(log: EventLog, asked: PairOptions) -> None:
    pairs = drawn(log, asked)
    if pairs is None:
        return
    found = pairs.numbers
    for name in ("valid", "test"):
        told = ("groups", "users_without_target", "short_history", "too_few_candidates")
        assert sum(found[f"{name}_{part}"] for part in told) == found["users_chosen"]
    assert found["users_chosen"] == min(asked.users or log.n_users, log.n_users)
    learnt = len(np.unique(pairs.parts["train"].users))
    assert learnt + found["users_without_training"] <= found["users_chosen"]
    assert {n: len(pairs.parts[n]) for n in PARTS} == {n: found[f"{n}_groups"] for n in PARTS}


@settings(max_examples=40, deadline=None)
@given(logs, options)
def test_training_knows_nothing_of_what_is_asked_later(log: EventLog, asked: PairOptions) -> None:
    pairs = drawn(log, asked)
    if pairs is None:
        return
    parts = pairs.parts
    if asked.split == "by-user":
        named = [set(parts[name].users.tolist()) for name in PARTS]
        assert not named[0] & named[1]
        assert not named[0] & named[2]
        assert not named[1] & named[2]
        return
    length = dict(zip(log.user_ids.tolist(), np.diff(log.offsets).tolist(), strict=True))
    for user, history in zip(parts["train"].users.tolist(), parts["train"].history.tolist(), strict=True):
        assert history < length[user] - (2 if length[user] >= 3 else 0)
    later: list[tuple[Part, int]] = [("valid", 2), ("test", 1)]
    for name, back in later:
        for user, history in zip(parts[name].users.tolist(), parts[name].history.tolist(), strict=True):
            assert history == length[user] - back


@settings(max_examples=30, deadline=None)
@given(logs, st.sampled_from(["uniform", "popularity"]))
def test_a_negative_was_there_by_then(log: EventLog, weighting: str) -> None:
    pairs = drawn(log, PairOptions.of(negatives=3, weighting=weighting))
    if pairs is None or log.times is None:
        return
    first: dict[str, int] = {}
    for item, time in zip(log.item_ids[log.items].tolist(), log.times.tolist(), strict=True):
        first[item] = min(first.get(item, time), time)
    groups = pairs.parts["test"]
    at = log.offsets[np.searchsorted(log.user_ids, groups.users)] + groups.history
    for time, items in zip(log.times[at].tolist(), groups.items[:, 1:].tolist(), strict=True):
        assert all(first[item] <= time for item in items)


@settings(max_examples=15, deadline=None)
@given(logs, options)
def test_the_same_seed_gives_the_same_groups_and_a_file_gives_them_back(
    tmp_path_factory: pytest.TempPathFactory, log: EventLog, asked: PairOptions
) -> None:
    pairs = drawn(log, asked)
    if pairs is None:
        return
    again = draw_pairs(log, asked)
    assert pairs.hash == again.hash
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    pairs.save(path)
    read = Pairs.load(path)
    assert read.hash == pairs.hash
    assert dict(read.numbers) == dict(pairs.numbers)
    for name in PARTS:
        assert np.array_equal(read.parts[name].items, pairs.parts[name].items)


def test_another_seed_draws_other_negatives_for_the_same_positives() -> None:
    log = a_log()
    one, other = (draw_pairs(log, PairOptions.of(negatives=5, seed=seed)).parts["test"] for seed in (0, 1))
    assert np.array_equal(one.targets, other.targets)
    assert not np.array_equal(one.items, other.items)


def test_a_user_who_took_nearly_everything_gets_the_items_that_are_left() -> None:
    items = [f"i{n:02d}" for n in range(20)]
    rows = [{"user_id": "all", "item_id": item, "timestamp": 100 + n} for n, item in enumerate(items[:17])]
    rows += [{"user_id": "else", "item_id": item, "timestamp": n} for n, item in enumerate(items)]
    log = EventLog.from_table(pa.Table.from_pylist(rows))
    for weighting in ("uniform", "popularity"):
        pairs = draw_pairs(log, PairOptions.of(negatives=3, weighting=weighting))
        groups = pairs.parts["test"]
        assert groups.users.tolist() == ["all"]
        assert set(groups.items[0, 1:].tolist()) == set(items[17:])
        assert pairs.numbers["test_too_few_candidates"] == 1  # `else` took every item


def test_popularity_draws_an_item_as_often_as_it_was_taken() -> None:
    rows = [{"user_id": "asked", "item_id": f"own{n}", "timestamp": 10_000 + n} for n in range(3)]
    rows += [
        {"user_id": f"u{n}", "item_id": "hit" if n % 4 else f"rare{n}", "timestamp": n} for n in range(400)
    ]
    log = EventLog.from_table(pa.Table.from_pylist(rows))
    met = 0
    for seed in range(60):
        asked = PairOptions.of(negatives=1, weighting="popularity", seed=seed)
        groups = draw_pairs(log, asked).parts["test"]
        met += "hit" in groups.items[groups.users == "asked"]
    assert 35 <= met <= 55  # 300 of 400 events


def test_training_takes_the_latest_positives_and_counts_repeats() -> None:
    rows = [{"user_id": "u", "item_id": item, "timestamp": n} for n, item in enumerate("abcadef")]
    rows += [{"user_id": "v", "item_id": f"x{n}", "timestamp": n} for n in range(10)]
    log = EventLog.from_table(pa.Table.from_pylist(rows))
    pairs = draw_pairs(log, PairOptions.of(negatives=2, train_positives=2, catalogue="all"))
    of_u = pairs.parts["train"].take(np.flatnonzero(pairs.parts["train"].users == "u"))
    assert of_u.targets.tolist() == ["a", "d"]
    assert of_u.history.tolist() == [3, 4]
    assert pairs.numbers["train_repeats"] == 1


def test_positives_whose_order_is_that_of_the_input_are_counted() -> None:
    rows = [
        {"user_id": "u", "item_id": item, "timestamp": at}
        for item, at in zip("abcde", (1, 2, 3, 5, 5), strict=True)
    ]
    rows += [{"user_id": "v", "item_id": f"x{n}", "timestamp": at} for n, at in enumerate((5, 6, 6, 8, 9))]
    found = draw_pairs(
        EventLog.from_table(pa.Table.from_pylist(rows)), PairOptions.of(negatives=2, catalogue="all")
    )
    assert [found.numbers[f"{name}_tied"] for name in PARTS] == [1, 1, 1]


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    draw_pairs(a_log(), PairOptions.of(negatives=4)).save(path)
    table = pq.read_table(path)
    ids = table["item_id"].to_pylist()
    ids[0], ids[1] = ids[1], ids[0]
    changed = table.set_column(table.column_names.index("item_id"), "item_id", pa.array(ids))
    pq.write_table(changed, path)
    with pytest.raises(BadInput, match="hash"):
        Pairs.load(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(BadInput, match="hash"):
        Pairs.load(path)
    with pytest.raises(NotFound):
        Pairs.load(tmp_path / "none.parquet")


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadInput) as refused:
        PairOptions.of(negative=20)
    assert "negatives" in str(refused.value.remedy)
    with pytest.raises(BadInput, match="min_history"):
        PairOptions.of(min_history=0)
