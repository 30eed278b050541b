"""What scores of groups are worth: AUC over all rows and of each user, HR@k and MRR@k, where equal scores count their
expected place.

A yes/no model often gives two candidates the very same score. An order by item id would hide that; here a target that
shares its score with e others stands at each of those e + 1 places with equal chance, and a metric is its mean over
them. So a scorer that says the same of everything has AUC .5, and HR@5 = 5/21 among 21 candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.errors import BadInput
from recommender.metrics import RANK_METRICS, Float64, pooled_auc

POOLED = "AUC"  # over all rows at once, which the paper reports
OF_USERS = "AUC_user"  # mean of each user's
SHOWN = ("HR", "MRR")


@dataclass(frozen=True, eq=False)
class Figures:
    """metrics: {"AUC", "AUC_user", "HR@k", "MRR@k"}; per_user: the same but for AUC, each (m,) float64.

    ranks: (m,) float64, the target's expected place, from 1. tied: (m,) int64, others with the target's score.
    """

    metrics: Mapping[str, float]
    per_user: Mapping[str, Float64]
    ranks: Float64
    tied: npt.NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        return {
            "metrics": {n: v if np.isfinite(v) else None for n, v in self.metrics.items()},
            "users": len(self.ranks),
            "tied_scores": int((self.tied > 0).sum()),
        }


def figures(scores: npt.NDArray[Any], ks: Sequence[int] = (5,)) -> Figures:
    """scores: (m, 1 + n), the target's in column 0; -inf for a candidate that cannot be scored, NaN is refused."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise BadInput(f"scores are of groups of a target and its negatives, not of shape {scores.shape}")
    if not ks or min(ks) < 1:
        raise BadInput(f"ks must be positive cut-offs, got {tuple(ks)}")
    if np.isnan(scores).any():
        raise ValueError(f"NaN among the scores, first in group {int(np.isnan(scores).any(axis=1).argmax())}")
    target, others = scores[:, :1], scores[:, 1:]
    above = np.count_nonzero(others > target, axis=1).astype(np.int64)
    tied = np.count_nonzero(others == target, axis=1).astype(np.int64)
    n = others.shape[1]
    per_user: dict[str, Float64] = {OF_USERS: (n - above - tied / 2.0) / n}
    for name in SHOWN:
        for k in ks:
            per_user[f"{name}@{k}"] = expected(name, k, above, tied)
    metrics = {POOLED: pooled_auc(target[:, 0], others.ravel())}
    metrics |= {
        name: float(values.mean()) if len(values) else float("nan") for name, values in per_user.items()
    }
    return Figures(metrics, per_user, above + 1 + tied / 2.0, tied)


def expected(metric: str, k: int, above: npt.NDArray[np.int64], tied: npt.NDArray[np.int64]) -> Float64:
    """(m,) mean of a metric over the places above + 1 .. above + tied + 1."""
    value = RANK_METRICS[metric]
    total = np.zeros(len(above), dtype=np.float64)
    for step in range(int(tied.max()) + 1 if len(tied) else 0):
        still = tied >= step
        total[still] += value(above[still] + 1 + step, k)
    return total / (tied + 1)
