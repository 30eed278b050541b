"""Approximate indexes: what they promise beside speed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import ann, index, indexes, tuning
from featurestore.ann import Setting, Shortlist
from featurestore.errors import BadInput, Conflict, NotFound, Stale

Floats = npt.NDArray[np.float32]
N, DIM = 6000, 24
SELECTIVITIES = (0.0001, 0.001, 0.01, 0.05, 0.1, 0.3, 0.5, 0.9, 1.0)


def clustered(n: int = N, dim: int = DIM, seed: int = 0, centres: int = 40) -> Floats:
    """Vectors around centres, of lengths from 0.1 to 10."""
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal((centres, dim))
    drawn = middle[rng.integers(0, centres, n)] + 0.7 * rng.standard_normal((n, dim))
    return (drawn * rng.uniform(0.1, 10, (n, 1))).astype(np.float32)


@pytest.fixture(scope="module")
def built() -> Shortlist:
    """Probing few lists of many, so that the approximate routes differ from the exact one."""
    return ann.build(clustered(), Setting(8, 100))


@pytest.fixture(scope="module")
def flat() -> index.Index:
    return index.build(clustered())


@pytest.fixture(autouse=True, scope="module")
def _routed() -> Iterator[None]:
    """More than ten rows are searched by their lists, as twenty thousand are elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ann, "GATHER_ROWS", 10)
        yield


# ---- scores and rows


def test_scores_are_those_of_the_flat_index_to_the_last_bit(built: Shortlist, flat: index.Index) -> None:
    queries = clustered(30, seed=5)
    for query in queries:
        rows = np.arange(0, N, 7)
        assert built.score(query, rows).tolist() == flat.score(query, rows).tolist()
    assert (built.unit(np.arange(N)) == flat.unit(np.arange(N))).all()
    scores, rows = built.search(queries, 10)
    for query, own, found in zip(queries, scores, rows, strict=True):
        assert own.tolist() == flat.score(query, found).tolist()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    queries=st.integers(1, 12),
    k=st.integers(1, 60),
    share=st.none() | st.sampled_from(SELECTIVITIES),
    left_out=st.integers(0, 5),
)
def test_a_forced_exact_search_is_the_flat_indexs(
    built: Shortlist, flat: index.Index, seed: int, queries: int, k: int, share: float | None, left_out: int
) -> None:
    rng = np.random.default_rng(seed)
    asked = clustered(queries, seed=seed)
    allowed = None if share is None else rng.random(N) < share
    exclude = [rng.integers(0, N, left_out) for _ in range(queries)] if left_out else None
    truth = flat.search(asked, k, allowed, exclude)
    found = built.search(asked, k, allowed, exclude, exact=True)
    assert (found[0] == truth[0]).all()
    assert (found[1] == truth[1]).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    k=st.integers(1, 40),
    share=st.sampled_from(SELECTIVITIES),
    queries=st.integers(1, 3),
    follows=st.booleans(),
)
def test_only_allowed_rows_are_answered_and_k_of_them_wherever_there_are_k(
    built: Shortlist, seed: int, k: int, share: float, queries: int, follows: bool
) -> None:
    rng = np.random.default_rng(seed)
    side = clustered() @ rng.standard_normal(DIM) if follows else rng.random(N)
    allowed = side >= np.quantile(side, 1 - share)
    asked = clustered(queries, seed=seed + 1)
    exclude = [rng.integers(0, N, 3) for _ in range(queries)]
    scores, rows = built.search(asked, k, allowed, exclude)
    for own, found, out in zip(scores, rows, exclude, strict=True):
        kept = found[found >= 0]
        assert len(kept) == min(k, int(allowed.sum()) - int(allowed[np.unique(out)].sum()))
        assert allowed[kept].all()
        assert not set(kept.tolist()) & set(out.tolist())
        assert len(set(kept.tolist())) == len(kept)
        assert (np.diff(own[: len(kept)]) <= 0).all()


@pytest.mark.parametrize("share", SELECTIVITIES)
@pytest.mark.parametrize("follows", [False, True])
def test_recall_holds_at_every_selectivity_also_where_the_filter_follows_the_vectors(
    built: Shortlist, share: float, follows: bool
) -> None:
    tuned = built.with_setting(tuning.tune(built, 0.97, "vector").setting)
    rng = np.random.default_rng(3)
    side = clustered() @ rng.standard_normal(DIM) if follows else rng.random(N)
    allowed = side >= np.quantile(side, 1 - share)
    assert tuning.measure(tuned, rng.choice(N, 100, replace=False), allowed=allowed) >= 0.97


def test_a_rows_neighbours_leave_it_out_and_a_batch_answers_as_one_by_one(built: Shortlist) -> None:
    rows = np.arange(20)
    scores, found = built.search(built.unit(rows), 10, exclude=list(rows[:, None]))
    for row in rows:
        own_scores, own = built.search_row(int(row), 10)
        assert row not in own
        assert own_scores == pytest.approx(scores[row], abs=1e-6)
        assert len(set(own.tolist()) & set(found[row].tolist())) >= 9


def test_more_than_the_lists_hold_is_answered_by_looking_at_every_row(
    built: Shortlist, flat: index.Index
) -> None:
    narrow = built.with_setting(Setting(1, 10))
    query = clustered(1, seed=9)
    assert (narrow.search(query, 3000)[1] == flat.search(query, 3000)[1]).all()


def test_a_kept_mask_is_not_mistaken_for_another(built: Shortlist) -> None:
    ann_rows = np.arange(N)
    even, odd = ann_rows % 2 == 0, ann_rows % 2 == 1
    for mask in (even, odd):
        mask.setflags(write=False)
    for _ in range(2):
        assert (built.search_row(0, 10, even)[1] % 2 == 0).all()
        assert (built.search_row(0, 10, odd)[1] % 2 == 1).all()


@pytest.mark.parametrize("dim", [5, 33, 67, 130])
def test_any_number_of_dimensions_is_searched(dim: int) -> None:
    made = ann.build(clustered(3000, dim), Setting(8, 200))
    assert made.dim == dim
    assert tuning.measure(made, np.arange(50)) > 0.9


# ---- files


def test_the_file_is_small_opens_in_plain_faiss_and_comes_back_the_same(
    built: Shortlist, tmp_path: Path
) -> None:
    facts = built.write(tmp_path / "index.faiss")
    assert (tmp_path / "index.faiss").stat().st_size < 0.5 * N * DIM * 4
    plain = faiss.read_index(str(tmp_path / "index.faiss"))
    assert (plain.ntotal, plain.metric_type, plain.nprobe) == (N, faiss.METRIC_INNER_PRODUCT, 8)
    near = plain.search(built.unit([0]), 10)[1][0]
    assert 0 in near
    assert built.lengths is not None
    again = ann.read(tmp_path / "index.faiss", facts, built.vectors, built.lengths, built.setting)
    for row in range(20):
        assert again.search_row(row, 10)[1].tolist() == built.search_row(row, 10)[1].tolist()


def test_the_same_vectors_give_the_same_file_and_setting(tmp_path: Path) -> None:
    facts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        facts.append(indexes.build(tmp_path / name, clustered(), indexes.Wanted("ivf", 0.95), "vector"))
    assert facts[0] == facts[1]
    for file in (indexes.FILE, indexes.LENGTHS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_file_that_was_changed_cut_or_lost_is_refused_before_faiss_reads_it(
    built: Shortlist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.faiss"
    facts = built.write(path)
    assert built.lengths is not None
    monkeypatch.setattr(faiss, "deserialize_index", lambda *_: pytest.fail("faiss read a file not checked"))
    whole = path.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-4], whole + b"x", b""):
        path.write_bytes(damaged)
        with pytest.raises(Conflict, match="not the one that was written"):
            ann.read(path, facts, built.vectors, built.lengths, built.setting)
    path.unlink()
    with pytest.raises(NotFound):
        ann.read(path, facts, built.vectors, built.lengths, built.setting)


def test_a_file_of_other_vectors_is_refused(built: Shortlist, tmp_path: Path) -> None:
    facts = built.write(tmp_path / "index.faiss")
    assert built.lengths is not None
    with pytest.raises(Conflict, match="does not hold"):
        ann.read(tmp_path / "index.faiss", facts, built.vectors[1:], built.lengths[1:], built.setting)


def test_vectors_that_cannot_be_compared_are_refused_with_their_row() -> None:
    vectors = clustered(2000)
    vectors[1234] = 0
    with pytest.raises(BadInput, match="vector 1234 is all zeros"):
        ann.build(vectors, Setting(1, 10))


# ---- tuning


@pytest.mark.parametrize("target", [0.8, 0.95, 0.999])
def test_the_recall_reported_reaches_the_target_on_queries_that_tuned_nothing(
    built: Shortlist, target: float
) -> None:
    tuned = tuning.tune(built, target, "vector")
    assert tuned.recall >= target
    tuning_rows, *report_rows = tuning._query_sets(N)
    assert not any(set(tuning_rows.tolist()) & set(rows.tolist()) for rows in report_rows)
    assert any(
        tuning.measure(built.with_setting(tuned.setting), rows) == tuned.recall for rows in report_rows
    )
    fresh = np.setdiff1d(np.arange(N), np.concatenate([tuning_rows, *report_rows]))
    assert tuning.measure(built.with_setting(tuned.setting), fresh[:500]) >= target - 0.02


def test_a_lower_target_never_costs_more(built: Shortlist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "SHORTLISTS", (10, 12, 15, 20, 30, 50))
    monkeypatch.setattr(tuning, "FIRST_NPROBE", 1)
    costs = [tuning._cost(built, tuning.tune(built, target, "vector").setting) for target in (0.5, 0.8, 0.99)]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


def test_measured_recall_is_the_share_of_true_neighbours(built: Shortlist, flat: index.Index) -> None:
    rows = np.arange(100)
    narrow = built.with_setting(Setting(1, 20))
    shares = []
    for row in rows:
        true = set(flat.search_row(int(row), 10)[1].tolist())
        shares.append(len(true & set(narrow.search_row(int(row), 10)[1].tolist())) / 10)
    assert 0 < np.mean(shares) < 1
    assert tuning.measure(narrow, rows) == pytest.approx(np.mean(shares), abs=0.002)


def test_rows_that_tie_with_the_kth_are_hits() -> None:
    base = clustered(60, centres=60)
    twins = np.repeat(base, 100, axis=0)  # every vector a hundred times: any ten of its twins are right
    made = ann.build(twins, Setting(1, 15))
    found = np.stack([made.search_row(row, 10)[1] for row in range(0, 6000, 300)])
    assert (found // 100 == np.arange(0, 60, 3)[:, None]).all()
    assert tuning.measure(made, np.arange(0, 6000, 300)) == 1


def test_a_target_that_is_missed_is_refused_with_the_recall_and_what_to_do(
    built: Shortlist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "SHORTLISTS", (10,))
    with pytest.raises(Stale) as caught:
        tuning.tune(built, 0.999, "text")
    said = str(caught.value)
    assert caught.value.exit_code == 2
    assert "feature 'text': recall@10 of an approximate index is 0." in said
    assert "0.999 was asked for" in said
    assert "--recall 0." in said
    assert 'index = "exact" under [features.text]' in said


def test_nothing_allowed_counts_as_found(built: Shortlist) -> None:
    assert tuning.measure(built, np.arange(5), allowed=np.zeros(N, bool)) == 1


# ---- which index


def test_the_kind_goes_by_size_unless_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    approximate = [indexes.Wanted("auto").approximate(rows) for rows in (999, 100_000, 100_001)]
    assert approximate == [False, False, True]
    assert not indexes.Wanted("exact").approximate(10**7)
    assert indexes.Wanted("ivf").approximate(1000)
    assert not indexes.Wanted("ivf").approximate(999)
    monkeypatch.setattr(indexes, "EXACT_UP_TO", 50_000)
    assert indexes.Wanted("auto").approximate(50_001)


def test_what_decides_an_approximate_index_is_in_its_identity_and_recall_does_not_touch_an_exact_one() -> (
    None
):
    identity = indexes.Wanted("ivf", 0.9).identity(6000, 24)
    assert identity != indexes.Wanted("ivf", 0.95).identity(6000, 24)
    assert identity != indexes.Wanted("ivf", 0.9).identity(60_000, 24)
    assert indexes.Wanted("exact", 0.9).identity(6000, 24) == indexes.Wanted("auto", 0.5).identity(6000, 24)


@pytest.mark.parametrize("recall", [0.0, -1.0, 1.01, float("nan")])
def test_a_recall_is_a_share(recall: float) -> None:
    with pytest.raises(BadInput, match="recall of"):
        indexes.Wanted(recall=recall).check()


def test_vectors_too_short_for_float32_are_searched_exactly(tmp_path: Path) -> None:
    facts = indexes.build(tmp_path, clustered(1200) * np.float32(1e-25), indexes.Wanted("ivf"), "vector")
    assert facts["kind"] == "exact"


def test_lists_and_codes_follow_size_and_dimension() -> None:
    assert ann.factory(1_000_000, 128) == "IVF4096,PQ64x4fsr"
    assert ann.factory(1_000_000, 383) == "IVF4096,PQ192x4fsr"
    assert ann.factory(2000, 24) == "IVF32,PQ24x4fsr"
