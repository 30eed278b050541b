from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from recommender.ranking import as_scores, ranges, target_ranks, top_k

# few distinct values, so that ties are everywhere; NaN is an item out of the ranking
scores_strategy = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0, np.nan]),
)


def naive_order(row: npt.NDArray[np.float32]) -> list[int]:
    """Columns in the ranking by (score descending, column ascending)."""
    return sorted((j for j in range(len(row)) if not np.isnan(row[j])), key=lambda j: (-float(row[j]), j))


@given(scores_strategy, st.integers(1, 14))
def test_top_k_is_the_head_of_the_sorted_row_with_ties_by_column(
    scores: npt.NDArray[np.float32], k: int
) -> None:
    lists = top_k(scores, k)
    for row, found in zip(scores, lists, strict=True):
        expected = naive_order(row)[:k]
        assert found.tolist() == expected + [-1] * (k - len(expected))


@given(scores_strategy, st.data())
def test_a_rank_is_the_targets_place_in_the_sorted_row(
    scores: npt.NDArray[np.float32], data: st.DataObject
) -> None:
    targets = np.array([data.draw(st.integers(0, scores.shape[1] - 1)) for _ in scores])
    at = np.arange(len(scores))
    scores[at, targets] = np.nan_to_num(scores[at, targets], nan=0.5, neginf=-np.inf)
    ranks, equal = target_ranks(scores, targets)
    for i, target in enumerate(targets):
        assert ranks[i] == naive_order(scores[i]).index(target) + 1
        assert equal[i] == sum(v == scores[i, target] for v in scores[i]) - 1


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=10))
def test_ranges_lists_every_integer_with_its_owner(spans: list[tuple[int, int]]) -> None:
    start = np.array([s for s, _ in spans], dtype=np.int64)
    stop = start + np.array([n for _, n in spans], dtype=np.int64)
    values, owner = ranges(start, stop)
    expected = [(s + i, j) for j, (s, n) in enumerate(spans) for i in range(n)]
    assert list(zip(values.tolist(), owner.tolist(), strict=True)) == expected


def test_a_scorers_answer_of_another_shape_or_with_nan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"need \(2, 3\)"):
        as_scores(np.zeros((3, 2)), 2, 3)
    with pytest.raises(ValueError, match="NaN"):
        as_scores(np.array([[0.0, 1.0], [np.nan, 0.0]]), 2, 2)


def test_a_scorers_own_array_is_never_written_to() -> None:
    own = np.zeros((2, 3), dtype=np.float32)
    as_scores(own, 2, 3)[:] = 7
    assert not own.any()
