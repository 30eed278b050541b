from __future__ import annotations

import ir_measures as ir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recommender import metrics

N, DEPTH, KS = 60, 12, (1, 3, 5, 10)


def judged_lists(
    several: bool, seed: int = 0
) -> tuple[np.ndarray, list[ir.Qrel], list[ir.ScoredDoc], np.ndarray]:
    """Random lists of DEPTH items out of 30; gains, judgements and runs of the same lists, and each query's
    gains."""
    rng = np.random.default_rng(seed)
    gains = np.zeros((N, DEPTH), dtype=np.int64)
    judged = np.zeros((N, 30), dtype=np.int64)
    qrels, run = [], []
    for q in range(N):
        right = rng.choice(30, size=rng.integers(2, 9) if several else 1, replace=False)
        judged[q, right] = rng.integers(1, 4, size=len(right)) if several else 1
        listed = rng.permutation(30)[:DEPTH]
        gains[q] = judged[q, listed]
        qrels += [ir.Qrel(str(q), f"i{item:02d}", int(judged[q, item])) for item in right]
        run += [
            ir.ScoredDoc(str(q), f"i{item:02d}", float(DEPTH - place)) for place, item in enumerate(listed)
        ]
    return gains, qrels, run, judged


def peer(measure: ir.measures.Measure, qrels: list[ir.Qrel], run: list[ir.ScoredDoc]) -> np.ndarray:
    values = {int(m.query_id): m.value for m in ir.iter_calc([measure], qrels, run)}
    return np.array([values[q] for q in range(N)])


@pytest.mark.parametrize("k", KS)
def test_metrics_of_one_target_equal_those_of_ir_measures(k: int) -> None:
    gains, qrels, run, _ = judged_lists(several=False)
    ranks = np.where(gains.any(axis=1), gains.argmax(axis=1) + 1, DEPTH + 1)
    assert (ranks <= DEPTH).any()
    assert (ranks > DEPTH).any()
    for ours, theirs in [
        (metrics.hit_rate, ir.Success @ k),
        (metrics.hit_rate, ir.R @ k),
        (metrics.ndcg, ir.nDCG @ k),
        (metrics.reciprocal_rank, ir.RR @ k),
    ]:
        np.testing.assert_allclose(ours(ranks, k), peer(theirs, qrels, run), atol=1e-6)


@pytest.mark.parametrize("k", KS)
def test_metrics_of_graded_lists_equal_those_of_ir_measures(k: int) -> None:
    gains, qrels, run, judged = judged_lists(several=True, seed=1)
    relevant = np.count_nonzero(judged, axis=1)
    for ours, theirs in [
        (metrics.precision(gains, k), ir.P @ k),
        (metrics.recall(gains, k, relevant), ir.R @ k),
        (metrics.average_precision(gains, k, relevant), ir.AP @ k),
        (metrics.first_right(gains, k), ir.RR @ k),
        (metrics.graded_ndcg(gains, k, judged), ir.nDCG @ k),
    ]:
        np.testing.assert_allclose(ours, peer(theirs, qrels, run), atol=1e-6)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.sampled_from(KS))
def test_rank_metrics_are_the_list_metrics_of_a_list_with_one_right_answer(places: list[int], k: int) -> None:
    ranks = np.array(places)
    gains = (np.arange(1, 51) == ranks[:, None]).astype(int)
    one = np.ones(len(ranks), dtype=np.int64)
    np.testing.assert_allclose(metrics.hit_rate(ranks, k), metrics.recall(gains, k, one))
    np.testing.assert_allclose(metrics.ndcg(ranks, k), metrics.graded_ndcg(gains, k, gains))
    np.testing.assert_allclose(metrics.reciprocal_rank(ranks, k), metrics.first_right(gains, k))
    np.testing.assert_allclose(metrics.reciprocal_rank(ranks, k), metrics.average_precision(gains, k, one))


def test_from_ranks_gives_the_means_under_their_usual_names() -> None:
    means = metrics.from_ranks(np.array([1, 3, 11]), (10,))
    assert means == pytest.approx({"HR@10": 2 / 3, "NDCG@10": (1 + 0.5) / 3, "MRR@10": (1 + 1 / 3) / 3})
    assert np.isnan(list(metrics.from_ranks(np.array([], dtype=np.int64), (10,)).values())).all()


def test_auc_is_the_share_of_candidates_below_the_target() -> None:
    values = metrics.auc(np.array([1, 3, 5, 1]), np.array([5, 5, 5, 1]))
    assert values[:3].tolist() == [1.0, 0.5, 0.0]
    assert np.isnan(values[3])


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=20), st.lists(st.integers(0, 5), min_size=1, max_size=20)
)
def test_pooled_auc_counts_pairs_in_order_and_half_of_the_equal_ones(pos: list[int], neg: list[int]) -> None:
    expected = np.mean([1.0 if p > q else 0.5 if p == q else 0.0 for p in pos for q in neg])
    assert metrics.pooled_auc(np.array(pos), np.array(neg)) == pytest.approx(expected)


def test_coverage_counts_each_shown_item_once_and_no_empty_place() -> None:
    assert metrics.coverage(np.array([[0, 1], [1, -1]]), 4) == 0.5


def test_novelty_is_the_mean_information_of_what_is_shown() -> None:
    counts = np.array([3, 0])  # smoothed shares 4/5 and 1/5
    assert metrics.novelty(np.array([[0, -1]]), counts) == pytest.approx(-np.log2(0.8))
    assert metrics.novelty(np.array([[0, 1]]), counts) == pytest.approx(-(np.log2(0.8) + np.log2(0.2)) / 2)
