"""Exact search: against a slow one in double precision, whatever the batch, the filter and the ties."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import index
from featurestore.errors import BadInput, Conflict, NotFound

Floats = npt.NDArray[np.float32]


def drawn(n: int, dim: int, seed: int = 0, *, distinct: int | None = None) -> Floats:
    """n random vectors, of which only `distinct` differ: the rest are copies, so that scores tie."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((distinct or n, dim)).astype(np.float32)
    return base[rng.integers(0, len(base), n)] if distinct else base


def slow(
    built: index.Index,
    query: Floats,
    k: int,
    allowed: npt.NDArray[np.bool_] | None = None,
    exclude: npt.ArrayLike = (),
) -> tuple[list[float], list[int]]:
    """The promise, spelled out: every score in double, rounded once, ordered by score and then by row."""
    unit = query.astype(np.float64)
    if built.metric == "cosine":
        unit = (unit / np.sqrt((unit * unit).sum())).astype(np.float32).astype(np.float64)
    scores = np.array([np.dot(v, unit) for v in built.vectors.astype(np.float64)]).astype(np.float32)
    kept = np.ones(len(scores), bool) if allowed is None else allowed.copy()
    kept[np.asarray(exclude, int)] = False
    rows = sorted(np.flatnonzero(kept).tolist(), key=lambda row: (-scores[row], row))[:k]
    return [float(scores[row]) for row in rows], rows


def agrees(built: index.Index, queries: Floats, k: int, **options: object) -> None:
    scores, rows = built.search(queries, k, **options)  # type: ignore[arg-type]
    assert scores.dtype == np.float32
    assert rows.dtype == np.int32
    assert scores.shape == rows.shape == (len(queries), k)
    exclude = options.get("exclude")
    for number, query in enumerate(queries):
        left_out = exclude[number] if exclude is not None else ()  # type: ignore[index]
        expected_scores, expected = slow(built, query, k, options.get("allowed"), left_out)  # type: ignore[arg-type]
        found = int((rows[number] >= 0).sum())
        assert rows[number, :found].tolist() == expected
        assert scores[number, :found].tolist() == expected_scores
        assert (rows[number, found:] == -1).all()
        assert np.isneginf(scores[number, found:]).all()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 300),
    dim=st.integers(1, 33),
    queries=st.integers(1, 20),
    k=st.integers(1, 40),
    distinct=st.none() | st.integers(1, 20),
    share=st.none() | st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.6, 0.95, 1.0]),
    left_out=st.integers(0, 6),
    metric=st.sampled_from(["cosine", "ip"]),
    seed=st.integers(0, 1000),
)
def test_every_route_gives_the_true_best_rows_with_ties_by_row(
    n: int,
    dim: int,
    queries: int,
    k: int,
    distinct: int | None,
    share: float | None,
    left_out: int,
    metric: index.Metric,
    seed: int,
) -> None:
    built = index.build(drawn(n, dim, seed, distinct=distinct), metric)
    rng = np.random.default_rng(seed + 1)
    asked = drawn(n, dim, seed, distinct=distinct)[rng.integers(0, n, queries)]
    options: dict[str, object] = {}
    if share is not None:
        options["allowed"] = rng.random(n) < share
    if left_out:
        options["exclude"] = [rng.integers(0, n, left_out) for _ in range(queries)]
    agrees(built, asked, k, **options)


@pytest.mark.parametrize("share", [None, 0.05, 0.3, 0.9])
@pytest.mark.parametrize("queries", [1, 5, 30])
def test_every_route_is_exact_on_thousands_of_rows(share: float | None, queries: int) -> None:
    built = index.build(drawn(5000, 48))
    allowed = None if share is None else np.random.default_rng(3).random(5000) < share
    asked = drawn(queries, 48, seed=9)
    agrees(built, asked, 10, allowed=allowed, exclude=[[row, row + 1] for row in range(queries)])


def test_twins_at_the_kth_place_are_chosen_by_row_even_when_hundreds_tie() -> None:
    vectors = drawn(1000, 16)
    vectors[100:700] = vectors[100]
    built = index.build(vectors)
    _, rows = built.search(vectors[100], 10, exclude=[[100]])
    assert rows[0].tolist() == list(range(101, 111))


def test_an_answer_is_the_same_alone_and_in_a_batch() -> None:
    vectors = drawn(3000, 384)
    built = index.build(vectors)
    scores, rows = built.search(vectors[:40], 15)
    for number in range(40):
        alone = built.search(vectors[number], 15)
        assert (alone[0][0] == scores[number]).all()
        assert (alone[1][0] == rows[number]).all()


@pytest.mark.parametrize("distinct", [None, 30])
@pytest.mark.parametrize("share", [None, 0.05, 0.7])
@pytest.mark.parametrize("metric", ["cosine", "ip"])
def test_a_rows_neighbours_are_those_of_its_vector_without_itself(
    distinct: int | None, share: float | None, metric: index.Metric
) -> None:
    built = index.build(drawn(900, 24, distinct=distinct), metric)
    allowed = None if share is None else np.random.default_rng(3).random(900) < share
    for row in (0, 17, 899):
        scores, rows = built.search_row(row, 12, allowed)
        wide = built.vectors.astype(np.float64)
        exact = (wide @ wide[row]).astype(np.float32)
        kept = [r for r in range(900) if r != row and (allowed is None or allowed[r])]
        expected = sorted(kept, key=lambda r: (-exact[r], r))[:12]
        assert rows.tolist() == expected
        assert scores.tolist() == exact[expected].tolist()


@pytest.mark.parametrize("metric", ["cosine", "ip"])
def test_scores_of_given_rows_are_those_of_a_search(metric: index.Metric) -> None:
    built = index.build(drawn(900, 24), metric)
    query = drawn(1, 24, seed=5)[0]
    scores, rows = built.search(query, 900)
    assert built.score(query, rows[0]).tolist() == scores[0].tolist()
    assert built.score(query, []).tolist() == []
    assert built.unit(rows[0][:5]).tolist() == built.vectors[rows[0][:5]].tolist()


def test_cosine_does_not_see_lengths_and_leaves_the_callers_vectors_alone() -> None:
    vectors = drawn(200, 8)
    before = vectors.copy()
    built = index.build(vectors)
    longer = index.build(vectors * np.float32(37.5))
    assert (built.search(vectors[:5], 5)[1] == longer.search(vectors[:5] * 1e-3, 5)[1]).all()
    assert (vectors == before).all()


def test_the_smallest_and_the_largest_vectors_have_a_direction_too() -> None:
    vectors = np.array([[1e-38, 0], [0, 1e-38], [1e18, 1e18]], np.float32)
    scores, rows = index.build(vectors).search(np.array([[1e-38, 0]], np.float32), 3)
    assert rows[0].tolist() == [0, 2, 1]
    assert scores[0] == pytest.approx([1, 0.5**0.5, 0])


def test_an_index_without_rows_answers_nothing() -> None:
    built = index.build(np.zeros((0, 4), np.float32))
    scores, rows = built.search(np.ones(4, np.float32), 3)
    assert rows.tolist() == [[-1, -1, -1]]
    assert np.isneginf(scores).all()


def test_the_file_opens_in_plain_faiss_and_comes_back_the_same(tmp_path: Path) -> None:
    built = index.build(drawn(500, 24))
    facts = built.write(tmp_path / "index.faiss")
    plain = faiss.read_index(str(tmp_path / "index.faiss"))
    assert (plain.ntotal, plain.d, plain.metric_type) == (500, 24, faiss.METRIC_INNER_PRODUCT)
    assert (plain.search(built.vectors[:1], 5)[1] == built.search(built.vectors[:1], 5)[1]).all()
    again = index.read(tmp_path / "index.faiss", facts)
    assert (again.vectors == built.vectors).all()
    assert again.metric == "cosine"
    assert (again.search(drawn(3, 24, 5), 7)[1] == built.search(drawn(3, 24, 5), 7)[1]).all()
    assert again.vectors.ctypes.data % 64 == 0


def test_a_file_that_was_changed_cut_or_lost_is_refused_before_faiss_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.faiss"
    facts = index.build(drawn(50, 8)).write(path)

    def never(*_: object) -> None:
        raise AssertionError("faiss read a file that was not checked")

    monkeypatch.setattr(faiss, "read_index", never)
    whole = path.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-4], whole + b"x", b""):
        path.write_bytes(damaged)
        with pytest.raises(Conflict, match="not the one that was written"):
            index.read(path, facts)
    path.unlink()
    with pytest.raises(NotFound):
        index.read(path, facts)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (np.ones(7, np.float32), "shape"),
        (np.full(8, np.nan, np.float32), "NaN"),
        (np.full(8, np.inf, np.float32), "NaN or an infinite"),
        (np.zeros(8, np.float32), "all zeros"),
    ],
)
def test_a_query_that_cannot_be_compared_is_refused(query: Floats, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        index.build(drawn(20, 8)).search(query, 3)


def test_vectors_that_cannot_be_compared_are_refused_with_their_row() -> None:
    vectors = drawn(20, 8)
    vectors[7] = 0
    with pytest.raises(BadInput, match="vector 7 is all zeros"):
        index.build(vectors)
    vectors[7, 2] = np.nan
    with pytest.raises(BadInput, match="vector 7 holds NaN"):
        index.build(vectors, "ip")


def test_k_and_masks_are_checked() -> None:
    built = index.build(drawn(20, 8))
    with pytest.raises(BadInput, match="at least 1"):
        built.search(drawn(1, 8), 0)
    with pytest.raises(BadInput, match="20 rows"):
        built.search(drawn(1, 8), 1, allowed=np.ones(19, bool))
    with pytest.raises(BadInput, match="not bool"):
        built.search(drawn(1, 8), 1, allowed=np.ones(20, np.int8))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="exclude"):
        built.search(drawn(2, 8), 1, exclude=[[1]])
