"""Why an item is recommended, as far as vectors tell: which items of the history lie nearest to it.

Near is the cosine between the vectors by which the run scores items. It says what the run holds for similar, not which
event decided: a sequential model reads the order, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from recommender.served import Served

SHOWN = 3  # items of the history that are named


def nearest_in_history(served: Served, items: list[str], history: list[str]) -> list[list[tuple[str, float]]]:
    """For each of `items` the ids of a history that are nearest to it, with cosines, nearest first.

    Items that the run has no vector of are left out.
    """
    past = list(dict.fromkeys(reversed(history)))  # the latest first: among equals it is named
    rows = served.rows_of(np.asarray(past, np.str_)) if past else np.zeros(0, np.int64)
    past = [each for each, row in zip(past, rows, strict=True) if row >= 0]
    known = _unit(served.vectors[rows[rows >= 0]])
    found: list[list[tuple[str, float]]] = []
    for row in served.rows_of(np.asarray(items, np.str_)) if items else ():
        if row < 0 or not past:
            found.append([])
            continue
        cosines = known @ _unit(served.vectors[row][None])[0]
        best = np.argsort(-cosines, kind="stable")[:SHOWN]
        found.append([(past[at], float(cosines[at])) for at in best])
    return found


def _unit(vectors: Any) -> Any:
    wide = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(lengths > 0, lengths, 1.0)
