from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from featurestore.errors import BadInput, NotFound
from recommender import runs
from recommender.config import Config
from recommender.evaluate import evaluate, scores_of
from recommender.events import EventLog
from recommender.fit import fit
from recommender.ranking import top_k
from recommender.retrieve import Retriever, facts
from recommender.splits import leave_one_out

N_ITEMS, N_USERS, DIM = 60, 50, 6


@dataclass
class Matrix:
    ids: Any
    values: Any


@dataclass
class FakeRelease:
    """What the recommender reads of a release, held in memory."""

    name: str
    ids: Any
    vectors: Any
    log: pa.Table
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def catalogue(self) -> pa.Table:
        return pa.table(
            {
                "row": pa.array(range(len(self.ids)), pa.int32()),
                "item_id": pa.array(self.ids.tolist()),
                "title": [f"Title {i}" for i in self.ids],
                "price": pa.array([float(i[1:]) for i in self.ids]),
            }
        )

    def matrix(self, feature: str) -> Matrix:
        assert feature == "text"
        with_text = [i for i, id_ in enumerate(self.ids) if not id_.endswith("7")]
        return Matrix(self.ids[with_text], self.vectors[with_text])

    def events(self) -> pa.Table:
        return self.log


def releases() -> tuple[FakeRelease, FakeRelease]:
    """A first release, and a second one from which i003 is gone and to which ten items came; user u000 took some."""
    rng = np.random.default_rng(0)
    ids = np.array([f"i{i:03d}" for i in range(N_ITEMS + 10)])
    vectors = rng.normal(size=(len(ids), DIM)).astype(np.float32)
    rows = [
        (f"u{u:03d}", f"i{int(rng.random() ** 2 * N_ITEMS):03d}", t)
        for u in range(N_USERS)
        for t in range(int(rng.integers(4, 12)))
    ]
    rows += [("u900", "i003", 1)]

    def table(events: list[tuple[str, str, int]]) -> pa.Table:
        users, items, times = zip(*events, strict=True)
        return pa.table({"user_id": users, "item_id": items, "timestamp": times})

    first = FakeRelease("0001", ids[:N_ITEMS], vectors[:N_ITEMS], table(rows), {"release": "0001"})
    later = [*rows, ("u000", "i060", 100), ("u000", "i067", 101), ("u901", "i061", 1)]
    keep = ids != "i003"
    return first, FakeRelease("0002", ids[keep], vectors[keep], table(later), {"release": "0002"})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's folder with three short runs on the first release."""
    root = tmp_path_factory.mktemp("store")
    first, _ = releases()
    for items, cosine in (("id", False), ("text", False), ("id+text", True)):
        config = Config.of(
            items=items, cosine=cosine, width=8, heads=1, layers=1, length=6, epochs=2, scaling="none", seed=1
        )
        fit(first, config, runs.allot(root, config.slug), device="cpu")
    return root


@pytest.fixture(autouse=True)
def features_come_from_the_fake_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs.Run, "_release", lambda self: releases()[0])


def retriever(store: Path, run: str, release: int = 0) -> Retriever:
    return Retriever(store, releases()[release], run)


RUNS = ["sasrec-id-001", "sasrec-text-001", "sasrec-id-text-001"]


def brute_force(store: Path, name: str, user: str, k: int) -> tuple[list[str], np.ndarray]:
    """Every item of the vocabulary that the run can rank, scored by its model, seen ones out, sorted."""
    run = runs.open_run(store, name)
    model, log = run.load_model(), EventLog.from_release(releases()[0])
    u = int(np.searchsorted(log.user_ids, user))
    start, end = log.offsets[u : u + 1], log.offsets[u + 1 : u + 2]
    scores = model.user_vectors(log.items, start, end) @ model.item_vectors().T
    scores[0, log.items[start[0] : end[0]]] = np.nan
    if not run.config.features:
        scores[0, run.counts == 0] = np.nan
    rows = top_k(scores, k)[0]
    return [str(run.item_ids[r]) for r in rows], scores[0, rows]


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("user", ["u000", "u007", "u031"])
def test_recommend_gives_the_ids_of_a_brute_force_ranking(store: Path, name: str, user: str) -> None:
    found = retriever(store, name).recommend(user, k=8)
    ids, scores = brute_force(store, name, user, 8)
    assert found["item_id"].to_pylist() == ids
    np.testing.assert_allclose(found["score"].to_numpy(), scores, rtol=1e-4, atol=1e-5)
    assert found["title"].to_pylist() == [f"Title {i}" for i in ids]


@pytest.mark.parametrize("name", RUNS)
def test_a_history_given_as_ids_equals_that_users(store: Path, name: str) -> None:
    asked = retriever(store, name)
    log = asked.log
    history = [str(log.item_ids[i]) for i in log.items[log.offsets[4] : log.offsets[5]]]
    by_user, by_history = asked.recommend(str(log.user_ids[4])), asked.recommend(history=history)
    assert by_user["item_id"].to_pylist() == by_history["item_id"].to_pylist()


def test_seen_items_are_out_unless_asked_for(store: Path) -> None:
    asked = retriever(store, "sasrec-id-001")
    log = asked.log
    seen = {str(log.item_ids[i]) for i in log.items[log.offsets[0] : log.offsets[1]]}
    everything = N_ITEMS
    without = asked.recommend("u000", k=everything)
    assert not seen & set(without["item_id"].to_pylist())
    assert facts(without)["items_seen_excluded"] == len(seen)
    ranked = facts(without)["items_ranked"]
    assert len(without) == ranked - len(seen)
    with_seen = asked.recommend("u000", k=everything, exclude_seen=False)
    assert len(with_seen) == ranked
    assert seen <= set(with_seen["item_id"].to_pylist())


@pytest.mark.parametrize("release", [0, 1])
@pytest.mark.parametrize("name", RUNS)
def test_a_filter_keeps_the_order_of_what_passes(store: Path, name: str, release: int) -> None:
    asked = retriever(store, name, release)
    whole = asked.recommend("u002", k=100)["item_id"].to_pylist()
    for where, passes in [("price < 20", lambda n: n < 20), ("price > 30", lambda n: n > 30)]:
        expected = [i for i in whole if passes(int(i[1:]))]
        found = asked.recommend("u002", k=100, where=where)
        assert found["item_id"].to_pylist() == expected
        assert asked.recommend("u002", k=5, where=where)["item_id"].to_pylist() == expected[:5]
        everything = asked.recommend("u002", k=100, exclude_seen=False)["item_id"].to_pylist()
        assert facts(found)["items_passing_filter"] == sum(passes(int(i[1:])) for i in everything)
    assert len(asked.recommend("u002", where="price < 0")) == 0


def test_items_that_came_after_training_are_ranked_by_a_run_with_features(store: Path) -> None:
    new = {f"i{i:03d}" for i in range(N_ITEMS, N_ITEMS + 10)} - {"i067"}  # i067 has no text
    found = retriever(store, "sasrec-text-001", release=1).recommend("u005", k=100, exclude_seen=False)
    ids = set(found["item_id"].to_pylist())
    assert new <= ids
    assert "i067" not in ids
    assert "i003" not in ids  # gone from the catalogue
    assert facts(found)["items_left_out"] == 1


def test_a_new_items_vector_is_the_towers_of_its_features(store: Path) -> None:
    later = releases()[1]
    ready = retriever(store, "sasrec-text-001", release=1)._ready
    run = runs.open_run(store, "sasrec-text-001")
    model = run.load_model()
    from recommender.items import Vectors

    matrix = later.matrix("text")
    expected = model.new_item_vectors({"text": Vectors.aligned(matrix.ids, matrix.values, ["i064"])})
    row = ready.served.rows_of(np.array(["i064"]))
    np.testing.assert_allclose(ready.served.vectors[row], expected, rtol=1e-5, atol=1e-6)
    old = ready.served.rows_of(run.item_ids)
    np.testing.assert_allclose(ready.served.vectors[old], model.item_vectors(), rtol=1e-5, atol=1e-6)


def test_an_id_only_run_leaves_out_what_training_never_saw_and_says_how_many(store: Path) -> None:
    run = runs.open_run(store, "sasrec-id-001")
    found = retriever(store, "sasrec-id-001", release=1).recommend("u005", k=100, exclude_seen=False)
    trained = {str(i) for i, count in zip(run.item_ids, run.counts, strict=True) if count} - {"i003"}
    assert set(found["item_id"].to_pylist()) == trained
    assert facts(found)["items_left_out"] == N_ITEMS + 9 - len(trained)


def test_new_items_in_a_history_are_read_by_a_run_with_features_and_counted_by_one_without(
    store: Path,
) -> None:
    with_text = retriever(store, "sasrec-text-001", release=1)
    assert facts(with_text.recommend("u000"))["events_unreadable"] == 1  # i067 has no text
    assert facts(with_text.recommend("u901"))["events_unreadable"] == 0
    id_only = retriever(store, "sasrec-id-001", release=1)
    assert facts(id_only.recommend("u000"))["events_unreadable"] == 2
    with pytest.raises(BadInput, match="can read none of the 1 events of user 'u901'"):
        id_only.recommend("u901")


def test_a_removed_item_still_counts_as_history(store: Path) -> None:
    found = retriever(store, "sasrec-id-001", release=1).recommend("u900")
    assert len(found) == 10
    assert facts(found)["events_unreadable"] == 0


def test_equal_scores_are_answered_in_the_order_of_ids(store: Path) -> None:
    """All items without a text share one learned vector, so their scores are equal."""
    found = retriever(store, "sasrec-text-001").recommend("u001", k=N_ITEMS, exclude_seen=False)
    without = [i for i in found["item_id"].to_pylist() if i.endswith("7")]
    assert len(without) > 3
    assert without == sorted(without)


def test_unknown_users_and_items_and_bad_calls_are_refused(store: Path) -> None:
    asked = retriever(store, "sasrec-id-001")
    with pytest.raises(NotFound, match="no events of a user 'nobody'"):
        asked.recommend("nobody")
    with pytest.raises(NotFound, match="no item 'i0001'"):
        asked.recommend(history=["i0001"])
    for wrong in ({}, {"user": "u000", "history": ["i001"]}, {"user": "u000", "k": 0}):
        with pytest.raises(BadInput):
            asked.recommend(**wrong)
    with pytest.raises(BadInput, match="can read none of the 0 events"):
        asked.recommend(history=[])
    with pytest.raises(NotFound, match="did you mean 'sasrec-id-001'"):
        retriever(store, "sasrec-id-01").recommend("u000")


def test_the_promoted_run_answers_and_the_latest_where_none_is(store: Path) -> None:
    newest = runs.list_runs(store)[0].name
    assert Retriever(store, releases()[0]).run.name == newest
    assert Retriever(store, releases()[0], "latest").run.name == newest
    assert newest != "sasrec-text-001"
    runs.promote(store, "sasrec-text-001")
    try:
        assert Retriever(store, releases()[0]).run.name == "sasrec-text-001"
        assert Retriever(store, releases()[0], "latest").run.name == newest
    finally:
        (store / "runs" / runs.PROMOTED).unlink()


def test_item_vectors_are_made_once_for_a_release_and_again_when_a_file_was_damaged(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "sasrec-text-001"
    before = retriever(store, name).recommend("u003")["item_id"].to_pylist()
    made: list[str] = []
    load = runs.Run.load_model
    monkeypatch.setattr(
        runs.Run, "load_model", lambda self, **given: made.append(self.name) or load(self, **given)
    )
    assert retriever(store, name).recommend("u003")["item_id"].to_pylist() == before
    assert made == []
    for path in (runs.open_run(store, name).folder / "served").glob("*/vectors.npy"):
        path.write_bytes(b"not an array")
    assert retriever(store, name).recommend("u003")["item_id"].to_pylist() == before
    assert made == [name]


def test_a_runs_model_is_evaluated_by_the_scores_that_it_answers_with(store: Path) -> None:
    log = EventLog.from_release(releases()[0])
    split = leave_one_out(log)
    model = runs.open_run(store, "sasrec-id-001").load_model()
    result = evaluate(scores_of(model, split, "test"), split, "test", memory_mb=0.01)
    user = int(result.users[3])
    start, end = split.history(np.array([user]), "test")
    scores = model.user_vectors(log.items, start, end) @ model.item_vectors().T
    scores[0, log.items[start[0] : end[0]]] = -np.inf
    target = log.items[split.test[user]]
    if target in log.items[start[0] : end[0]]:
        scores[0, target] = (model.user_vectors(log.items, start, end) @ model.item_vectors().T)[0, target]
    assert result.ranks[3] == 1 + (scores[0] > scores[0, target]).sum()
    valid = runs.open_run(store, "sasrec-id-001").metrics()["valid"]
    again = evaluate(scores_of(model, split, "valid"), split, "valid", ks=(10,))
    assert again.metrics["NDCG@10"] == pytest.approx(valid["ndcg@10"], abs=1e-6)
    json.dumps(again.to_dict(), allow_nan=False)
