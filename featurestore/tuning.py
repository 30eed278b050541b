"""How far an approximate index has to look for a recall that was asked for, and what recall it then has.

recall@k of a query: the share of its k best rows that are answered; a row whose exact score is that of the k-th or
higher counts, since rows of equal score are equally right. Queries are rows of the index, which are not their own
answers. The truth is an exact search of the same rows.

Two decisions. The setting is chosen on some queries and its recall reported on others, which had no part in the choice.
And it is chosen with a standard error to spare, by a cost in codes read and rows scored, not by a clock: so the same
vectors always give the same setting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featurestore.ann import Setting, Shortlist
from featurestore.errors import Stale
from featurestore.exact import Bool, Float32, Index, Int64

K = 10
QUERIES = 500  # in each of the sets
REPORTS = 3  # sets to report on: the next dearer setting is reported on a set of its own
SHORTLISTS = (30, 50, 100, 200, 400, 800, 1600)
FIRST_NPROBE = 4
ROW_COST = 20  # of scoring a row exactly, in codes read: measured at 128 and 384 numbers
SPARE = 1.0  # standard errors by which the tuning queries exceed the target
SEED = 2


@dataclass(frozen=True)
class Tuned:
    """recall: mean over the `queries` report queries, of which the choice, made on `tuned_on` others, knew none."""

    setting: Setting
    recall: float
    queries: int
    tuned_on: int


@dataclass(frozen=True)
class _Truth:
    """Queries with what they are measured by.

    rows (q,) which are not their own answers, vectors (q, dim), kth (q,) exact score of the k-th best, of (q,) how many
    best rows there are: k, or fewer where fewer are allowed.
    """

    rows: Int64
    vectors: Float32
    kth: Float32
    of: Int64


def tune(index: Shortlist, target: float, feature: str) -> Tuned:
    """The cheapest setting that reaches `target`. Raises Stale that names the feature where no setting does."""
    sets = _query_sets(len(index))
    first = _truth(index, sets[0], K)
    best = 0.0
    fits: list[tuple[float, Setting]] = []
    for nprobe in _nprobes(index.ivf.nlist):
        if len(fits) >= REPORTS and _cost(index, Setting(nprobe, SHORTLISTS[0])) > fits[REPORTS - 1][0]:
            break
        for shortlist, each in _by_shortlist(index, first, nprobe).items():
            best = max(best, float(each.mean()))
            if each.mean() - SPARE * each.std() / np.sqrt(len(each)) >= target:
                setting = Setting(nprobe, shortlist)
                fits.append((_cost(index, setting), setting))
        fits.sort(key=lambda fit: fit[0])
    for (_, setting), rows in zip(fits, sets[1:], strict=False):
        best = measure(index.with_setting(setting), rows)
        if best >= target:
            return Tuned(setting, best, len(rows), len(first.rows))
    raise Stale(
        f"feature '{feature}': recall@{K} of an approximate index is {best:.4f}, {target} was asked for",
        remedy=f"ask for less, such as publish --recall {_below(best)}; or for an exact index: write "
        f'index = "exact" under [features.{feature}] in features.toml',
    )


def measure(index: Index, rows: npt.ArrayLike, *, k: int = K, allowed: Bool | None = None) -> float:
    """Mean recall@k for the vectors in `rows`, which are not their own answers; 1 where no row is allowed."""
    truth = _truth(index, np.asarray(rows, np.int64), k, allowed)
    found, _ = index.search(truth.vectors, k, allowed, exclude=list(truth.rows[:, None]))
    hits = np.count_nonzero((found >= truth.kth[:, None]) & (found > -np.inf), axis=1)
    return float(np.mean(np.where(truth.of > 0, np.minimum(hits, truth.of) / np.maximum(truth.of, 1), 1.0)))


def _below(recall: float) -> str:
    """A target that was nearly reached, in two digits."""
    return f"{max(0.0, np.floor(recall * 100 - 1) / 100):.2f}"


def _query_sets(n: int) -> list[Int64]:
    """Disjoint sets of rows: the first to tune on, the others to report on."""
    each = min(QUERIES, n // (REPORTS + 1))
    drawn = np.random.default_rng(SEED).choice(n, each * (REPORTS + 1), replace=False)
    return list(drawn.astype(np.int64).reshape(REPORTS + 1, each))


def _truth(index: Index, rows: Int64, k: int, allowed: Bool | None = None) -> _Truth:
    vectors = index.unit(rows)
    scores, best = index.search(vectors, k, allowed, exclude=list(rows[:, None]), exact=True)
    of = np.count_nonzero(best >= 0, axis=1)
    return _Truth(rows, vectors, scores[np.arange(len(rows)), np.maximum(of, 1) - 1], of)


def _by_shortlist(index: Shortlist, truth: _Truth, nprobe: int) -> dict[int, npt.NDArray[np.float64]]:
    """Recall of each query, (q,), for each length of the shortlist: the shorter ones begin the longest."""
    longest = min(SHORTLISTS[-1] + 1, len(index))
    hits = {length: np.zeros(len(truth.rows)) for length in SHORTLISTS}
    for query, (row, vector) in enumerate(zip(truth.rows, truth.vectors, strict=True)):
        rows = index.candidates(vector[None], nprobe, longest)[0]
        rows = rows[(rows >= 0) & (rows != row)]
        right = index.score(vector, rows) >= truth.kth[query]
        for length in SHORTLISTS:
            hits[length][query] = min(truth.of[query], np.count_nonzero(right[:length])) / truth.of[query]
    return hits


def _nprobes(nlist: int) -> list[int]:
    """Powers of two, and half way between them, up to all lists."""
    steps = {share * 2**power // 2 for power in range(nlist.bit_length()) for share in (2, 3)}
    return sorted(step for step in steps if FIRST_NPROBE <= step <= nlist)


def _cost(index: Shortlist, setting: Setting) -> float:
    """Codes read and rows scored, in codes; one more for each list that is opened."""
    codes = len(index) / int(index.ivf.nlist)
    return setting.nprobe * (1 + codes) + ROW_COST * setting.shortlist
