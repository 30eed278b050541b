"""NDCG@10 by how often training saw the target: where does a tower gain, among the rare items or the frequent ones?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recommender.compare import Float64
from recommender.study.arms import Arm, Ranks

EDGES = (0, 1, 6, 21, 101)  # least training events of each bin: 0 is a cold item
NAMES = ("cold", "1–5", "6–20", "21–100", "over 100")


def agree(ranks: Ranks, arm: Arm) -> bool:
    """Whether users whose test target training never saw are as many as each cell's group of cold items says."""
    cold = int(np.count_nonzero(ranks.target_count[ranks.test > 0] == 0)) if ranks.test is not None else None
    said = [
        ((cell.get("test") or {}).get("groups") or {}).get("items:cold") or {} for cell in arm.cells.values()
    ]
    return all(group.get("users") == cold for group in said)


def by_bin(values: Mapping[str, Float64], counts: npt.NDArray[Any]) -> list[dict[str, Any]]:
    """A row for each bin that has users: {"bin", "place", "users", "share", "values": {tower: mean}}.

    values: (n,) of each tower, one a user; counts: (n,) training events of the user's target.
    """
    place = np.searchsorted(EDGES, counts, side="right") - 1
    rows: list[dict[str, Any]] = []
    for at, name in enumerate(NAMES):
        inside = place == at
        users = int(inside.sum())
        if users:
            means = {tower: float(value[inside].mean()) for tower, value in values.items()}
            rows.append(
                {"bin": name, "place": at, "users": users, "share": users / len(counts), "values": means}
            )
    return rows


def long_rows(rows: Sequence[Mapping[str, Any]], **about: Any) -> list[dict[str, Any]]:
    """The same, one row a tower and bin."""
    return [
        {**about, "tower": tower, "group": f"target seen {row['bin']}", "users": row["users"], "value": value}
        for row in rows
        for tower, value in row["values"].items()
    ]
