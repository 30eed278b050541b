"""Paired comparisons, against scipy, against exact values, and against what they promise when simulated."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from featurestore.errors import BadInput
from recommender import compare, metrics


def exact_p(differences: np.ndarray) -> float:
    """Over all sign patterns, zeros too, one by one."""
    least = abs(differences.sum()) - 1e-9
    sums = [abs((differences * signs).sum()) >= least for signs in product((1, -1), repeat=len(differences))]
    return float(np.mean(sums))


def test_a_users_value_is_that_of_the_metrics() -> None:
    ranks = np.array([1, 2, 10, 11, 500], dtype=np.int32)
    for name, metric in metrics.RANK_METRICS.items():
        np.testing.assert_array_equal(
            compare.per_user(ranks, f"{name}@10"), metric(ranks.astype(np.int64), 10)
        )
    np.testing.assert_allclose(compare.per_user(ranks, "MRR"), 1 / ranks)


def test_an_unknown_metric_and_a_rank_that_is_none_are_refused() -> None:
    with pytest.raises(BadInput, match="did you mean 'NDCG@10'"):
        compare.per_user(np.array([1]), "NDCG")
    with pytest.raises(BadInput, match="no metric"):
        compare.per_user(np.array([1]), "HR@ten")
    with pytest.raises(BadInput, match="begin at 1"):
        compare.per_user(np.array([3, 0]), "HR@10")


def test_seeds_are_averaged_user_by_user() -> None:
    found = compare.over_seeds([np.array([0.0, 1.0]), np.array([1.0, 1.0]), np.array([0.5, 0.0])])
    np.testing.assert_allclose(found, [0.5, 2 / 3])
    with pytest.raises(BadInput, match="same users"):
        compare.over_seeds([np.zeros(2), np.zeros(3)])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=1, max_size=9))
def test_the_p_of_few_users_is_exact(values: list[float]) -> None:
    assert compare.randomisation(np.array(values)) == pytest.approx(exact_p(np.array(values)))


@pytest.mark.parametrize("seed", range(4))
def test_the_p_of_more_users_is_near_the_exact_one(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.2, 0.5, 16)
    exact = exact_p(differences)
    drawn = compare.randomisation(differences)  # 2^16 patterns are more than 10,000 rounds
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 10_000) + 1e-4)


def test_it_agrees_with_scipys_permutation_test_on_hits() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = (rng.random(400) < 0.30).astype(float), (rng.random(400) < 0.25).astype(float)
    peer = stats.permutation_test(
        (ours, theirs), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=9_999, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert compare.randomisation(ours - theirs) == pytest.approx(peer.pvalue, abs=0.02)


def test_chunks_change_nothing_that_matters_and_the_same_seed_gives_the_same_p(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    differences = np.random.default_rng(1).normal(0.05, 1, 500)
    whole = compare.randomisation(differences)
    assert whole == compare.randomisation(differences)
    monkeypatch.setattr(compare, "CELLS", 500 * 7)
    assert compare.randomisation(differences) == pytest.approx(whole, abs=0.02)


def test_users_without_a_difference_do_not_count_and_none_at_all_is_no_evidence() -> None:
    differences = np.random.default_rng(2).normal(0.2, 1, 60)
    padded = np.concatenate([np.zeros(1000), differences])
    assert compare.randomisation(padded) == compare.randomisation(differences)
    assert compare.randomisation(np.zeros(50)) == 1.0


def test_p_is_never_0_and_never_below_what_the_rounds_allow() -> None:
    assert compare.randomisation(np.ones(200), rounds=999) == 1 / 1000


def test_without_a_difference_p_is_uniform() -> None:
    rng = np.random.default_rng(4)
    found = [compare.randomisation(rng.standard_t(3, 60), rounds=499, seed=k) for k in range(400)]
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.035)


def test_with_a_difference_it_is_found_about_as_often_as_the_t_test_should() -> None:
    rng = np.random.default_rng(5)
    drawn = [rng.normal(0.3, 1, 100) for _ in range(200)]
    power = stats.nct.sf(stats.t.isf(0.025, 99), 99, 3.0)  # .844
    for found in ([compare.randomisation(d, rounds=499) for d in drawn], [compare.t_test(d) for d in drawn]):
        assert np.mean(np.array(found) < 0.05) == pytest.approx(power, abs=0.09)


@pytest.mark.parametrize("n", [2, 5, 300])
def test_the_t_test_is_scipys(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.random(n), rng.random(n)
    assert compare.t_test(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_the_t_test_of_equal_differences_and_of_one_user() -> None:
    assert compare.t_test(np.zeros(5)) == 1.0
    assert compare.t_test(np.full(4, 0.5)) == 0.0
    assert np.isnan(compare.t_test(np.array([1.0])))


def test_holm_is_the_calculation_by_hand() -> None:
    # ascending .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, and never falling: .04 .06 .06 .06
    assert compare.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert compare.holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert compare.holm([]) == []


def test_a_nan_is_not_counted_in_the_family() -> None:
    found = compare.holm([0.02, float("nan"), 0.04])
    assert found[0] == pytest.approx(0.04)
    assert np.isnan(found[1])
    assert found[2] == pytest.approx(0.04)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_holm_rejects_what_stepping_down_rejects(p: list[float], level: float) -> None:
    rejected: set[int] = set()
    order = sorted(range(len(p)), key=lambda k: p[k])
    for step, k in enumerate(order):
        if p[k] * (len(p) - step) > level:
            break
        rejected.add(k)
    assert {k for k, value in enumerate(compare.holm(p)) if value <= level} == rejected


def test_the_interval_of_a_difference_is_that_of_scipys_bootstrap() -> None:
    rng = np.random.default_rng(6)
    ours, theirs = (rng.exponential(size=250) * (rng.random(250) < 0.4) for _ in range(2))
    (low, high), (gain_low, gain_high) = compare.bootstrap(ours, theirs, resamples=8_000)
    for found, statistic in (
        ((low, high), lambda a, b, axis: a.mean(axis) - b.mean(axis)),
        ((gain_low, gain_high), lambda a, b, axis: a.mean(axis) / b.mean(axis) - 1),
    ):
        peer = stats.bootstrap(
            (ours, theirs), statistic, paired=True, method="percentile", vectorized=True, n_resamples=8_000,
            rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        width = peer.high - peer.low
        np.testing.assert_allclose(found, (peer.low, peer.high), atol=0.04 * width)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    held = 0
    for k in range(200):
        base = rng.random(150)
        (low, high), _ = compare.bootstrap(base + rng.normal(0.1, 0.4, 150), base, resamples=300, seed=k)
        held += low <= 0.1 <= high
    assert held / 200 == pytest.approx(0.95, abs=0.05)


def test_a_reference_with_nothing_has_no_gain_but_a_difference() -> None:
    found = compare.paired(np.array([0.0, 1.0, 1.0, 0.5]), np.zeros(4))
    assert found.difference == pytest.approx(0.625)
    assert np.isnan(found.gain)
    assert np.isnan(found.gain_low)
    assert found.low <= 0.625 <= found.high
    assert compare.paired(np.zeros(4), np.zeros(4)).p == 1.0


def test_values_of_other_users_are_refused() -> None:
    with pytest.raises(BadInput, match="same users"):
        compare.paired(np.zeros(3), np.zeros(4))
    with pytest.raises(BadInput, match="numbers"):
        compare.randomisation(np.array([1.0, np.nan]))


def test_spread_is_the_sample_deviation_and_one_seed_has_none() -> None:
    assert compare.spread([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1.0))
    mean, deviation = compare.spread([0.5])
    assert mean == 0.5
    assert np.isnan(deviation)


def test_seeds_are_apart_only_if_every_one_is() -> None:
    assert compare.apart([0.3, 0.4], [0.1, 0.2])
    assert compare.apart([0.1, 0.2], [0.3, 0.4])
    assert compare.apart([0.15, 0.4], [0.1, 0.2]) is False
    assert compare.apart([0.3], [0.1, 0.2]) is None  # one seed is always apart
    assert compare.apart([], [0.2, 0.3]) is None


def test_the_best_of_all_must_be_above_each() -> None:
    assert compare.best_of([0.01, 0.04], [0.1, 0.2]) == 0.04
    assert compare.best_of([0.01, 0.04], [0.1, -0.2]) == 1.0
    assert np.isnan(compare.best_of([], []))
