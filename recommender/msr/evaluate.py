"""Scorers side by side on the same groups: figures, each user's values for paired tests, and the tests."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from recommender.compare import holm, paired
from recommender.msr.figures import OF_USERS, Figures, figures
from recommender.msr.pairs import Groups
from recommender.msr.scorers import GroupScorer, Scores


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What each scorer made of the same groups. unscored: candidates that a scorer does not know (-inf)."""

    groups: Groups
    found: Mapping[str, Figures]
    scores: Mapping[str, Scores]
    seconds: Mapping[str, float]

    @property
    def unscored(self) -> dict[str, int]:
        return {name: int(np.isneginf(scores).sum()) for name, scores in self.scores.items()}

    def to_dict(self) -> dict[str, Any]:
        return {
            name: one.to_dict()
            | {"seconds": round(self.seconds[name], 3), "unscored_candidates": self.unscored[name]}
            for name, one in self.found.items()
        }

    def comparisons(self, reference: str, metrics: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Each other scorer against `reference`, user by user. p_holm: corrected over all rows of this answer."""
        rows: list[dict[str, Any]] = []
        base = self.found[reference].per_user
        for name, one in self.found.items():
            if name == reference:
                continue
            for metric in metrics or tuple(base):
                told = asdict(paired(base[metric], one.per_user[metric]))
                rows.append({"scorer": reference, "against": name, "metric": metric, **told})
        for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
            row["p_holm"] = p
        return rows

    def to_table(self) -> pa.Table:
        """One row a scorer and group: scorer, user_id, item_id of the target, history, the target's score and expected
        rank, and the user's metrics.
        """
        parts = []
        for name, one in self.found.items():
            n = len(self.groups)
            columns: dict[str, Any] = {
                "scorer": pa.array([name] * n, pa.string()),
                "user_id": pa.array(self.groups.users.tolist(), pa.string()),
                "item_id": pa.array(self.groups.targets.tolist(), pa.string()),
                "history": pa.array(self.groups.history, pa.int32()),
                "score": pa.array(self.scores[name][:, 0].astype(np.float64), pa.float64()),
                "rank": pa.array(one.ranks, pa.float64()),
            }
            columns |= {metric: pa.array(values, pa.float64()) for metric, values in one.per_user.items()}
            parts.append(pa.table(columns))
        return pa.concat_tables(parts)


def evaluate_groups(
    groups: Groups, scorers: Mapping[str, GroupScorer], ks: Sequence[int] = (5,)
) -> Evaluated:
    """Every scorer on every group."""
    found: dict[str, Figures] = {}
    scores: dict[str, Scores] = {}
    seconds: dict[str, float] = {}
    for name, score in scorers.items():
        begun = time.perf_counter()
        answer = np.asarray(score(groups), dtype=np.float32)
        seconds[name] = time.perf_counter() - begun
        if answer.shape != groups.items.shape:
            raise ValueError(f"scorer {name} gave {answer.shape} scores for groups of {groups.items.shape}")
        scores[name], found[name] = answer, figures(answer, ks)
    return Evaluated(groups, found, scores, seconds)


MAIN = OF_USERS
