from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import BadInput, NotFound
from recommender.evaluate import Result, ScoreFn, evaluate, item_groups, sampled
from recommender.events import EventLog, Int64
from recommender.negatives import Negatives, draw_negatives
from recommender.splits import Split, Which, global_time, leave_one_out


def random_split(seed: int, users: int = 12, items: int = 15, events: int = 120, clock: int = 120) -> Split:
    """Events with repeats and ties, items of very different popularity."""
    rng = np.random.default_rng(seed)
    table = pa.table(
        {
            "user_id": [f"u{u:03d}" for u in rng.integers(users, size=events)],
            "item_id": [f"i{i:03d}" for i in (rng.random(events) ** 2 * items).astype(int)],
            "timestamp": rng.integers(clock, size=events),
        }
    )
    return leave_one_out(EventLog.from_table(table))


def table_scorer(split: Split, seed: int, levels: int = 5) -> tuple[npt.NDArray[np.float32], ScoreFn]:
    """Few levels of score, so that ties are everywhere."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(levels, size=(split.log.n_users, split.log.n_items)).astype(np.float32)
    return scores, lambda users: scores[users]


def naive_rank(
    split: Split, which: Which, user: int, row: npt.NDArray[np.float32], mask: bool
) -> tuple[int, int]:
    log, target_row = split.log, int(split.rows(which)[user])
    target = int(log.items[target_row])
    seen = set(log.items[log.offsets[user] : target_row].tolist()) if mask else set()
    allowed = [i for i in range(log.n_items) if i == target or i not in seen]
    return sorted(allowed, key=lambda i: (-row[i], i)).index(target) + 1, len(allowed)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["valid", "test"]),
    st.sampled_from(["mask", "allow"]),
    st.booleans(),
)
def test_ranks_equal_those_of_a_sort_with_the_history_taken_out_and_the_target_left_in(
    seed: int, which: Which, repeat: str, tight: bool
) -> None:
    split = random_split(seed)
    scores, scorer = table_scorer(split, seed)
    result = evaluate(
        scorer,
        split,
        which,
        repeat=repeat,  # type: ignore[arg-type]
        memory_mb=0.001 if tight else 32,
    )
    assert result.users.tolist() == split.users(which).tolist()
    for user, rank, candidates in zip(result.users, result.ranks, result.candidates, strict=True):
        expected = naive_rank(split, which, user, scores[user], repeat == "mask")
        assert (rank, candidates) == expected
    assert result.metrics["HR@5"] == pytest.approx(np.mean(result.ranks <= 5))


def test_users_come_in_batches_that_fit_the_budget_and_the_result_does_not_depend_on_it() -> None:
    split = random_split(3, users=40, events=500)
    _, scorer = table_scorer(split, 1)
    sizes: list[int] = []

    def counting(users: Int64) -> npt.NDArray[np.float32]:
        sizes.append(len(users))
        return np.asarray(scorer(users))

    n_items = split.log.n_items
    small = evaluate(counting, split, "test", memory_mb=7.5 * 16 * n_items / 2**20)
    assert max(sizes) == 7
    assert sum(sizes) == len(split.users("test"))
    large = evaluate(scorer, split, "test")
    assert small.metrics == large.metrics
    assert small.ranks.tolist() == large.ranks.tolist()


def test_a_constant_scorer_gains_nothing() -> None:
    """Item ids carry no meaning here, so its hit rate must be that of chance, not 1."""
    rng = np.random.default_rng(0)
    users, items = 3000, 100
    table = pa.table(
        {
            "user_id": np.repeat([f"u{u:04d}" for u in range(users)], 4),
            "item_id": [
                f"i{i:03d}" for i in np.concatenate([rng.permutation(items)[:4] for _ in range(users)])
            ],
            "position": np.tile(np.arange(4), users),
        }
    )
    split = leave_one_out(EventLog.from_table(table))
    result = evaluate(lambda u: np.zeros((len(u), items), dtype=np.float32), split, "test", ks=(10,))
    chance = 10 / (items - 3)
    assert result.metrics["HR@10"] == pytest.approx(chance, abs=4 * np.sqrt(chance / users))
    assert result.metrics["AUC"] == pytest.approx(0.5, abs=0.03)
    assert result.tied_scores == users


def repeat_split() -> Split:
    return leave_one_out(
        EventLog.from_table(
            pa.table({"user_id": ["a"] * 4, "item_id": ["x", "y", "z", "x"], "position": [0, 1, 2, 3]})
        )
    )


def test_a_target_that_was_taken_before_stays_in_the_ranking_and_is_counted() -> None:
    def score(users: Int64) -> npt.NDArray[np.float32]:
        return np.array([[1, 3, 2]], dtype=np.float32)

    masked = evaluate(score, repeat_split(), "test", ks=(1,))
    allowed = evaluate(score, repeat_split(), "test", ks=(1,), repeat="allow")
    assert (masked.ranks.tolist(), masked.candidates.tolist()) == ([1], [1])
    assert (allowed.ranks.tolist(), allowed.candidates.tolist()) == ([3], [3])
    assert masked.repeat_targets == allowed.repeat_targets == 1
    assert "out of the ranking" in masked.protocol
    assert "repeat consumption" in allowed.protocol


def test_a_perfect_scorer_has_every_metric_at_its_best() -> None:
    split = random_split(5)

    def perfect(users: Int64) -> npt.NDArray[np.float32]:
        scores = np.zeros((len(users), split.log.n_items), dtype=np.float32)
        scores[np.arange(len(users)), split.log.items[split.test[users]]] = 1
        return scores

    result = evaluate(perfect, split, "test", ks=(5,))
    best = {k: v for k, v in result.metrics.items() if k.split("@")[0] in ("HR", "NDCG", "MRR", "AUC")}
    assert set(best.values()) == {1.0}


def test_groups_part_the_users_by_item_and_by_history_and_agree_with_the_whole() -> None:
    split = random_split(11, users=60, items=40, events=600)
    _, scorer = table_scorer(split, 2)
    result = evaluate(scorer, split, "test", ks=(10,))
    for kind in ("items:", "users:"):
        groups = [values for name, values in result.groups.items() if name.startswith(kind)]
        total = sum(g["users"] for g in groups)
        assert total == len(result.users)
        hits = sum(g["users"] * g["HR@10"] for g in groups if g["users"])
        assert hits / total == pytest.approx(result.metrics["HR@10"])


def test_head_items_are_the_given_share_with_most_training_events_and_cold_ones_have_none() -> None:
    groups = item_groups(np.array([5, 0, 9, 1, 1]), head_share=0.4)
    assert np.flatnonzero(groups["items:head"]).tolist() == [0, 2]
    assert np.flatnonzero(groups["items:tail"]).tolist() == [3, 4]
    assert np.flatnonzero(groups["items:cold"]).tolist() == [1]
    assert np.flatnonzero(item_groups(np.array([5, 0]), head_share=1)["items:head"]).tolist() == [0]
    tied = item_groups(np.array([1, 1, 1, 0]), head_share=0.25)
    assert np.flatnonzero(tied["items:head"]).tolist() == [0]


def test_coverage_and_novelty_look_at_what_is_shown() -> None:
    split = random_split(4)
    popular_last = -split.counts.astype(np.float32)
    shy = evaluate(lambda u: np.tile(popular_last, (len(u), 1)), split, "test", ks=(3,))
    loud = evaluate(lambda u: np.tile(-popular_last, (len(u), 1)), split, "test", ks=(3,))
    assert shy.metrics["novelty@3"] > loud.metrics["novelty@3"]
    assert 3 / split.log.n_items <= loud.metrics["coverage@3"] < 1
    assert not [
        m
        for m in evaluate(lambda u: np.tile(popular_last, (len(u), 1)), split, lists=False).metrics
        if "cov" in m
    ]


def test_a_part_of_the_users_can_be_evaluated() -> None:
    split = random_split(8)
    _, scorer = table_scorer(split, 1)
    whole, some = evaluate(scorer, split, "test"), split.users("test")[::2]
    part = evaluate(scorer, split, "test", users=some)
    assert part.ranks.tolist() == whole.ranks[::2].tolist()
    with pytest.raises(BadInput, match="have a test target"):
        evaluate(scorer, split, "test", users=np.array([10**6]))


def test_bad_calls_are_refused() -> None:
    split = random_split(1)
    _, scorer = table_scorer(split, 1)
    for call in (
        lambda: evaluate(scorer, split, ks=()),
        lambda: evaluate(scorer, split, ks=(0,)),
        lambda: evaluate(scorer, split, repeat="maybe"),  # type: ignore[arg-type]
        lambda: evaluate(scorer, split, memory_mb=0),
        lambda: evaluate(scorer, split, head_share=20),
    ):
        with pytest.raises(BadInput):
            call()
    two = EventLog.from_table(pa.table({"user_id": ["a", "a"], "item_id": ["x", "y"], "position": [0, 1]}))
    with pytest.raises(BadInput, match="no user of this split has a test target"):
        evaluate(scorer, leave_one_out(two), "test")


def test_a_scorer_that_returns_nan_is_a_bug_and_raised() -> None:
    split = random_split(1)
    with pytest.raises(ValueError, match="NaN"):
        evaluate(lambda u: np.full((len(u), split.log.n_items), np.nan), split)


def test_a_result_becomes_json_and_a_table_of_ids() -> None:
    split = random_split(2)
    _, scorer = table_scorer(split, 2)
    result = evaluate(scorer, split, "test")
    facts = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert facts["users"] == len(result.users)
    assert facts["split_hash"] == split.hash
    assert facts["metrics"]["NDCG@10"] == result.metrics["NDCG@10"]
    table = result.to_table(split)
    assert table["user_id"].to_pylist() == split.log.user_ids[result.users].tolist()
    assert table["item_id"].to_pylist() == split.log.item_ids[split.targets("test")].tolist()
    with pytest.raises(BadInput, match="another split"):
        result.to_table(random_split(3))


def test_targets_that_hang_on_tied_times_are_counted_with_the_result() -> None:
    split = random_split(9, clock=30)
    _, scorer = table_scorer(split, 2)
    assert evaluate(scorer, split, "test").tied_times == len(split.tied("test")) > 0


def test_under_a_global_cut_the_history_holds_the_validation_events() -> None:
    log = EventLog.from_table(
        pa.table({"user_id": ["a"] * 4, "item_id": ["w", "x", "y", "z"], "timestamp": [1, 5, 6, 9]})
    )
    split = global_time(log, valid_from=5, test_from=8)
    result = evaluate(lambda u: np.array([[4, 3, 2, 1]], dtype=np.float32), split, "test", ks=(1,))
    assert (result.ranks.tolist(), result.candidates.tolist()) == ([1], [1])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_negatives_are_distinct_items_that_the_user_never_took(seed: int, n: int) -> None:
    split = random_split(seed, users=30, items=60, events=200)
    if split.log.n_items < 40:
        return
    drawn = draw_negatives(split, "test", n, seed)
    log = split.log
    for user, items in zip(drawn.users, drawn.items, strict=True):
        taken = set(log.items[log.offsets[user] : log.offsets[user + 1]].tolist())
        assert len(set(items.tolist())) == n
        assert not taken & set(items.tolist())
        assert items.min() >= 0
        assert items.max() < log.n_items


def test_negatives_are_uniform_over_the_items_a_user_never_took() -> None:
    rows = [(f"u{u:04d}", f"i{i}") for u in range(4000) for i in range(3)]
    rows += [("zz", f"i{i}") for i in range(13)]
    users, items = zip(*rows, strict=True)
    split = leave_one_out(EventLog.from_table(pa.table({"user_id": users, "item_id": items})))
    # only zz took the ten items that the other users can draw; zz itself has none left
    few = Split(
        split.log,
        "x",
        "x",
        split.train_end,
        split.valid,
        np.where(split.test == len(rows) - 1, -1, split.test),
    )
    for n in (2, 8):  # by rejection, and by shuffling what is left
        drawn = draw_negatives(few, "test", n, seed=1)
        counts = np.bincount(drawn.items.ravel(), minlength=13)
        free = [i for i in range(13) if split.log.item_ids[i] not in ("i0", "i1", "i2")]
        assert counts[free].sum() == 4000 * n
        assert np.abs(counts[free] - 400 * n).max() < 5 * np.sqrt(400 * n)


def test_negatives_follow_the_seed_and_are_refused_where_too_few_items_are_left() -> None:
    split = random_split(6, items=50, events=300)
    one, same, other = (draw_negatives(split, "test", 5, seed) for seed in (1, 1, 2))
    assert one.hash == same.hash != other.hash
    with pytest.raises(BadInput, match="fewer than 200 items"):
        draw_negatives(split, "test", 200, seed=1)


def test_saved_negatives_read_back_the_same_and_only_for_their_split(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    split = random_split(6, items=50, events=300)
    drawn, path = draw_negatives(split, "test", 5, 1), tmp_path / "negatives.parquet"
    drawn.save(path, split)
    loaded = Negatives.load(path, split)
    assert loaded.hash == drawn.hash
    assert loaded.items.tolist() == drawn.items.tolist()
    with pytest.raises(BadInput, match="another split"):
        Negatives.load(path, random_split(7))
    with pytest.raises(NotFound):
        Negatives.load(tmp_path / "none.parquet", split)
    table = pq.read_table(path)
    pq.write_table(table.take(list(range(len(table)))[::-1]), path)
    with pytest.raises(BadInput, match="hash"):
        Negatives.load(path, split)


def sampled_both(seed: int) -> tuple[Split, npt.NDArray[np.float32], Negatives, Result]:
    split = random_split(seed, users=30, items=60, events=300)
    scores, scorer = table_scorer(split, seed)
    drawn = draw_negatives(split, "test", 10, seed)
    return split, scores, drawn, sampled(scorer, split, drawn)


def test_sampled_ranks_are_the_targets_place_among_its_negatives() -> None:
    split, scores, drawn, result = sampled_both(4)
    targets = split.targets("test")
    for user, target, items, rank in zip(drawn.users, targets, drawn.items, result.ranks, strict=True):
        listed = sorted([int(target), *items.tolist()], key=lambda i: (-scores[user, i], i))
        assert rank == listed.index(int(target)) + 1
    positive = scores[drawn.users, targets]
    negative = np.take_along_axis(scores[drawn.users], drawn.items.astype(np.int64), axis=1)
    wins = (positive[:, None, None] > negative[None]).mean() + (
        positive[:, None, None] == negative[None]
    ).mean() / 2
    assert result.metrics["AUC_pooled"] == pytest.approx(wins)


def test_a_sampled_result_says_that_it_is_sampled_and_names_its_negatives() -> None:
    _, _, drawn, result = sampled_both(4)
    facts = result.to_dict()
    assert facts["protocol"].startswith("SAMPLED 1:10, not comparable")
    assert facts["negatives_hash"] == drawn.hash
    with pytest.raises(BadInput, match="another split"):
        sampled(lambda u: None, random_split(5), drawn)


def test_evaluation_imports_neither_a_database_nor_torch() -> None:
    code = (
        "import sys, recommender.evaluate, recommender.baselines, recommender.metrics\n"
        "print([m for m in ('torch', 'lancedb', 'lance', 'duckdb', 'faiss', 'scipy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
