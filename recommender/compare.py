"""Is one model better than another? Paired comparisons over the users that both were asked about.

    ours = over_seeds([per_user(ranks, "NDCG@10") for ranks in runs_of_ours])      # one value a user
    found = paired(ours, theirs)                                                   # difference, interval, p
    adjusted = holm([found.p for found in family])

A user's value is the mean over seeds, and users are what is drawn: a test says whether these trained models would
differ on other users of the same kind. It does not say that other seeds would give the same models; for that stand
`spread` (mean and deviation over seeds) and `apart` beside it.

The default is the randomisation test. It assumes only that, were the two models alike, either could have had either
of a user's two values; NDCG and hits of one target are mostly zeros and jumps, far from normal. Smucker, Allan &
Carterette (CIKM 2007) find it and the paired t-test in agreement and both preferable to Wilcoxon's and the sign test,
so `t_test` is given beside it: where the two disagree, neither should be leant on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.errors import BadInput, did_you_mean
from recommender.metrics import RANK_METRICS

Float64 = npt.NDArray[np.float64]

Ranks = npt.NDArray[np.signedinteger[Any]]

ROUNDS = 10_000  # sign flips: the smallest p is 1 / 10,001
RESAMPLES = 2_000  # of users; Efron & Tibshirani 1993 ask for at least 1,000 where percentiles are read
CELLS = 1 << 22  # signs held at once: 32 MiB of float64


@dataclass(frozen=True)
class Comparison:
    """What `paired` found. mean, reference: of the two sides over users; difference = mean - reference.

    gain = mean / reference - 1, NaN where the reference has nothing. low..high and gain_low..gain_high are 95 %
    percentile intervals of difference and gain over resampled users. p: of the randomisation test; p_t: of the t-test;
    both two-sided and uncorrected.
    """

    users: int
    mean: float
    reference: float
    difference: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    p: float
    p_t: float


def per_user(ranks: Ranks, metric: str) -> Float64:
    """(n,) value of `metric` for each user, from 1-based ranks. metric: NDCG@k, HR@k, MRR@k, or MRR without a cut."""
    name, _, cut = metric.partition("@")
    if name not in RANK_METRICS or not (cut.isdecimal() or (name == "MRR" and not cut)):
        known = [f"{known}@10" for known in RANK_METRICS]
        raise BadInput(
            f"no metric of a rank is called '{metric}'", remedy=did_you_mean(metric, [*known, "MRR"])
        )
    if len(ranks) and int(ranks.min()) < 1:
        raise BadInput("ranks begin at 1", remedy="leave out the users that have no target")
    wide = np.asarray(ranks, dtype=np.int64)
    return RANK_METRICS[name](wide, int(cut) if cut else np.iinfo(np.int64).max)


def over_seeds(values: Sequence[Float64]) -> Float64:
    """(n,) each user's mean over seeds; values: one (n,) array a seed, users in the same order."""
    if not values or len({len(one) for one in values}) != 1:
        raise BadInput("values of several seeds are averaged user by user, so all must be of the same users")
    return np.asarray(np.mean(np.stack(values), axis=0), dtype=np.float64)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds (n - 1 below the line); the deviation of one seed is NaN."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        return float("nan"), float("nan")
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan")


def apart(ours: Sequence[float], reference: Sequence[float]) -> bool | None:
    """Whether every seed of one side is above every seed of the other; None where a side has fewer than two.

    Were both sides alike, that would happen by chance in 2 of (a + b choose a) orders: with three seeds each 1 in 10.
    """
    if min(len(ours), len(reference)) < 2:
        return None
    return min(ours) > max(reference) or max(ours) < min(reference)


def paired(
    ours: Float64, reference: Float64, *, rounds: int = ROUNDS, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Compare two models on the same users. ours, reference: (n,) one value a user, in the same order."""
    if ours.shape != reference.shape or ours.ndim != 1 or not len(ours):
        raise BadInput(
            f"paired values must be of the same users, not {ours.shape} and {reference.shape}",
            remedy="compare runs evaluated on one split",
        )
    differences = ours - reference
    mean, base = float(ours.mean()), float(reference.mean())
    (low, high), (gain_low, gain_high) = bootstrap(ours, reference, resamples=resamples, seed=seed)
    return Comparison(
        users=len(ours),
        mean=mean,
        reference=base,
        difference=float(differences.mean()),
        low=low,
        high=high,
        gain=mean / base - 1 if base else float("nan"),
        gain_low=gain_low,
        gain_high=gain_high,
        p=randomisation(differences, rounds=rounds, seed=seed),
        p_t=t_test(differences),
    )


def randomisation(differences: Float64, *, rounds: int = ROUNDS, seed: int = 0) -> float:
    """Two-sided p of the paired randomisation test (Fisher 1935; Smucker et al., CIKM 2007, section 3.1).

    With S = |sum of d_i| and S* the same after each d_i took a random sign,
    p = (1 + #{S* >= S}) / (1 + rounds): what was seen counts as one of the draws, so p is never 0 (Davison & Hinkley
    1997, 4.11; Phipson & Smyth 2010). Where there are no more sign patterns than rounds all are gone through and p is
    exact. A user without a difference changes no sum and is left out.
    """
    moved = differences[differences != 0]
    if not np.isfinite(differences).all():
        raise BadInput("differences must be numbers")
    m = len(moved)
    if m == 0:
        return 1.0
    # sums in another order differ in the last bits; an equal sum must count
    least = abs(moved.sum()) - 1e-9 * np.abs(moved).sum()
    if m < 63 and 2**m <= rounds:
        patterns = (np.arange(2**m)[:, None] >> np.arange(m)) & 1
        return float(np.count_nonzero(np.abs(patterns @ (2 * moved) - moved.sum()) >= least) / 2**m)
    rng = np.random.default_rng(seed)
    chunk, met = max(1, CELLS // m), 0
    for start in range(0, rounds, chunk):
        size = (min(chunk, rounds - start), -(-m // 8))
        bits = np.unpackbits(rng.integers(256, size=size, dtype=np.uint8), axis=1, count=m)
        sums = bits.astype(np.float64) @ (2 * moved) - moved.sum()  # bit 1: +d, bit 0: -d
        met += int(np.count_nonzero(np.abs(sums) >= least))
    return (1 + met) / (1 + rounds)


def t_test(differences: Float64) -> float:
    """Two-sided p of the paired t-test: t = mean / (s / sqrt(n)), n - 1 degrees of freedom (Student 1908).

    NaN for fewer than two users; where all differences are equal, 1 if they are 0, else 0.
    """
    from scipy.special import stdtr

    n = len(differences)
    if n < 2:
        return float("nan")
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(n - 1, -abs(mean) / (deviation / np.sqrt(n))))


def bootstrap(
    ours: Float64, reference: Float64, *, resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Percentile intervals over users of mean(ours) - mean(reference), and of mean(ours) / mean(reference) - 1.

    n users are drawn with replacement, each with both of its values (Efron & Tibshirani 1993, 13.3). Users where both
    are 0 add nothing: how many of the n are others is drawn from the binomial, then which, which is the same
    distribution. The interval of the ratio is NaN where the reference has nothing in some resample.
    """
    either = (ours != 0) | (reference != 0)
    pairs = np.stack([ours[either], reference[either]], axis=1)
    n, m = len(ours), len(pairs)
    rng = np.random.default_rng(seed)
    means = np.zeros((resamples, 2))
    for k, drawn in enumerate(rng.binomial(n, m / n, size=resamples)):
        if m:
            means[k] = np.bincount(rng.integers(m, size=drawn), minlength=m) @ pairs / n
    tails = ((1 - level) / 2, (1 + level) / 2)
    low, high = np.quantile(means[:, 0] - means[:, 1], tails)
    if not means[:, 1].all():
        return (float(low), float(high)), (float("nan"), float("nan"))
    gain_low, gain_high = np.quantile(means[:, 0] / means[:, 1] - 1, tails)
    return (float(low), float(high)), (float(gain_low), float(gain_high))


def holm(p: Sequence[float]) -> list[float]:
    """p-values of one family, corrected so that the chance of any false finding stays at the level (Holm 1979).

    In ascending order, p~_(i) = max over j <= i of min(1, (m - j + 1) p_(j)). A NaN is no test: it stays NaN and is not
    counted in m.
    """
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(len(values), np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else []
    return [float(value) for value in adjusted]


def best_of(p: Sequence[float], differences: Sequence[float]) -> float:
    """p that one model is above every other of a table: the largest of its one-by-one p-values.

    Where it is not above another, its p there is 1. An intersection-union test (Berger 1982): every one must be
    rejected, so that no correction within the table is needed. NaN where there is no other.
    """
    if not len(p):
        return float("nan")
    return float(max(value if d > 0 else 1.0 for value, d in zip(p, differences, strict=True)))
