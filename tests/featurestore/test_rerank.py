"""Fused and diverse rankings, against their definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.rerank import diverse, reciprocal_rank

RANKINGS = st.lists(st.lists(st.integers(0, 20), unique=True, max_size=15), min_size=1, max_size=3)


@given(rankings=RANKINGS)
def test_reciprocal_rank_is_the_sum_over_rankings(rankings: list[list[int]]) -> None:
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, row in enumerate(ranking, start=1):
            scores[row] = scores.get(row, 0.0) + 1 / (60 + rank)
    rows, parts = reciprocal_rank(rankings)
    assert rows.tolist() == sorted(scores, key=lambda row: (-scores[row], row))
    assert parts.sum(axis=1) == pytest.approx([scores[row] for row in rows])


def mmr(relevance: np.ndarray, vectors: np.ndarray, k: int, diversity: float) -> list[int]:
    """Carbonell and Goldstein's definition, one candidate at a time."""
    chosen: list[int] = []
    while len(chosen) < min(k, len(relevance)):
        gains = {}
        for place in range(len(relevance)):
            if place not in chosen:
                nearest = max((float(vectors[place] @ vectors[other]) for other in chosen), default=0.0)
                gains[place] = (1 - diversity) * relevance[place] - diversity * nearest
        best = max(gains.values())
        chosen.append(min(place for place, gain in gains.items() if gain > best - 1e-12))
    return chosen


@given(seed=st.integers(0, 10_000), n=st.integers(1, 25), k=st.integers(1, 30), diversity=st.floats(0, 1))
def test_diverse_is_maximal_marginal_relevance(seed: int, n: int, k: int, diversity: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = np.sort(rng.uniform(-1, 1, n))[::-1]
    found = diverse(relevance, vectors, k, diversity)
    assert found.tolist() == mmr(relevance, vectors, k, diversity)


def test_without_diversity_the_order_stays() -> None:
    relevance = np.array([0.9, 0.9, 0.5, 0.1, -0.2])
    assert diverse(relevance, np.eye(5), 4, 0.0).tolist() == [0, 1, 2, 3]


def test_of_twins_the_second_waits() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert diverse([0.9, 0.9, 0.6], vectors, 3, 0.5).tolist() == [0, 2, 1]
