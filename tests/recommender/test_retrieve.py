from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from featurestore import features
from featurestore import release as releases
from featurestore.errors import BadInput, NotFound
from featurestore.interactions import upsert_interactions
from featurestore.items import upsert_items
from featurestore.recipe import Recipe
from featurestore.release import Release
from featurestore.store import Store
from recommender import runs
from recommender.config import Config
from recommender.evaluate import evaluate, scores_of
from recommender.events import EventLog
from recommender.fit import fit
from recommender.ranking import top_k
from recommender.retrieve import Retriever, facts
from recommender.splits import leave_one_out

N_ITEMS, N_USERS, DIM = 60, 50, 6


FEATURES = """
[features.text]
kind = "embed_text"
inputs = ["title"]
encoder = "given"
"""


def ids_of(numbers: Iterable[int]) -> list[str]:
    return [f"i{n:03d}" for n in numbers]


def compute(store: Store, recipe: Recipe, seed: int) -> None:
    """Make every cell of `text` current: a random vector for an item with a title, no input for one without."""
    with store.lock("test"):
        store.lock_recipe("text", recipe)
        todo = features.work(store.plan("text"))
        if not len(todo):
            return
        has = todo["has_input"].to_pylist()
        drawn = {
            item: np.random.default_rng([seed, int(item[1:])]).normal(size=DIM).astype(np.float32)
            for item in todo["item_id"].to_pylist()
        }
        values = [
            drawn[i].tolist() if ok else None for i, ok in zip(todo["item_id"].to_pylist(), has, strict=True)
        ]
        n = len(todo)
        rows = pa.table(
            {
                "item_id": todo["item_id"],
                "value": pa.array(values, pa.list_(pa.float32(), DIM)),
                "input_hash": todo["input_hash"],
                "status": ["ok" if ok else "no_input" for ok in has],
                "error_code": pa.nulls(n, pa.string()),
                "error_message": pa.nulls(n, pa.string()),
                "transient": pa.nulls(n, pa.bool_()),
                "attempts": pa.array([0] * n, pa.int32()),
            }
        )
        features.commit(store.tables, "text", recipe, rows)


def put(store: Store, numbers: Iterable[int], events: list[tuple[str, str, int]]) -> None:
    """Make the catalogue and the log these. An item whose number ends in 7 has no title, and so no text vector."""
    kept = list(numbers)
    catalogue = pa.table(
        {
            "item_id": ids_of(kept),
            "title": [None if n % 10 == 7 else f"Title {n}" for n in kept],
            "price": [float(n) for n in kept],
        }
    )
    users, items, times = zip(*events, strict=True)
    n = len(events)
    log = pa.table(
        {
            "user_id": users,
            "item_id": items,
            "event": ["view"] * n,
            "timestamp": pa.array(times, pa.int64()),
            "position": pa.nulls(n, pa.int64()),
            "value": pa.nulls(n, pa.float64()),
        }
    )
    with store.lock("test"):
        upsert_items(store.tables, catalogue, remove_missing=True)
        upsert_interactions(store.tables, log, replace=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with three releases, and three short runs on the first.

    In the second, i003 is gone, ten items came, and user u000 took two of them. The third is the second with another
    recipe of the same size for the text vectors.
    """
    store = Store.create(tmp_path_factory.mktemp("retrieve") / "store", FEATURES)
    rng = np.random.default_rng(0)
    events = [
        (f"u{u:03d}", f"i{int(rng.random() ** 2 * N_ITEMS):03d}", t)
        for u in range(N_USERS)
        for t in range(int(rng.integers(4, 12)))
    ]
    events += [("u900", "i003", 1)]
    recipe = Recipe(kind="embed_text", inputs=("column:title",), encoder="given", dim=DIM)
    put(store, range(N_ITEMS), events)
    compute(store, recipe, seed=0)
    first = store.publish()
    later = [*events, ("u000", "i060", 100), ("u000", "i067", 101), ("u901", "i061", 1)]
    put(store, [n for n in range(N_ITEMS + 10) if n != 3], later)
    compute(store, recipe, seed=0)
    store.publish()
    compute(store, recipe.model_copy(update={"code_version": 2}), seed=1)
    store.publish()
    for items, cosine in (("id", False), ("text", False), ("id+text", True)):
        config = Config.of(
            items=items,
            cosine=cosine,
            width=8,
            heads=1,
            layers=1,
            length=6,
            epochs=2,
            seed=1,
            **({} if items == "id" else {"scaling": "none"}),
        )
        fit(first, config, runs.allot(store.root, config.slug), device="cpu")
    return store.root


def opened(store: Path, number: int) -> Release:
    return releases.open(store, f"{number:04d}")


def retriever(store: Path, run: str, release: int = 1) -> Retriever:
    return Retriever.open(store, run, release=f"{release:04d}")


RUNS = ["sasrec-id-001", "sasrec-text-001", "sasrec-id-text-001"]


def brute_force(store: Path, name: str, user: str, k: int) -> tuple[list[str], np.ndarray]:
    """Every item of the vocabulary that the run can rank, scored by its model, seen ones out, sorted."""
    run = runs.open_run(store, name)
    model, log = run.load_model(), EventLog.from_release(opened(store, 1))
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
    assert found["price"].to_pylist() == [float(i[1:]) for i in ids]
    assert found.column_names == ["item_id", "score", "title", "price", "image"]


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


@pytest.mark.parametrize("release", [1, 2])
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
    found = retriever(store, "sasrec-text-001", release=2).recommend("u005", k=100, exclude_seen=False)
    ids = set(found["item_id"].to_pylist())
    assert new <= ids
    assert "i067" not in ids
    assert "i003" not in ids  # gone from the catalogue
    assert facts(found)["items_left_out"] == 1


def test_a_new_items_vector_is_the_towers_of_its_features(store: Path) -> None:
    later = opened(store, 2)
    ready = retriever(store, "sasrec-text-001", release=2)._ready
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
    found = retriever(store, "sasrec-id-001", release=2).recommend("u005", k=100, exclude_seen=False)
    trained = {str(i) for i, count in zip(run.item_ids, run.counts, strict=True) if count} - {"i003"}
    assert set(found["item_id"].to_pylist()) == trained
    assert facts(found)["items_left_out"] == N_ITEMS + 9 - len(trained)


def test_new_items_in_a_history_are_read_by_a_run_with_features_and_counted_by_one_without(
    store: Path,
) -> None:
    with_text = retriever(store, "sasrec-text-001", release=2)
    assert facts(with_text.recommend("u000"))["events_unreadable"] == 1  # i067 has no text
    assert facts(with_text.recommend("u901"))["events_unreadable"] == 0
    id_only = retriever(store, "sasrec-id-001", release=2)
    assert facts(id_only.recommend("u000"))["events_unreadable"] == 2
    with pytest.raises(BadInput, match="can read none of the 1 events of user 'u901'"):
        id_only.recommend("u901")


def test_an_item_without_a_training_event_says_nothing_in_a_history_of_ids(store: Path) -> None:
    config = Config.of(items="id", width=8, heads=1, layers=1, length=6, epochs=1, hide_items=0.2)
    run = fit(opened(store, 1), config, runs.allot(store, "hidden"), device="cpu")
    untrained = str(run.item_ids[run.counts == 0][0])  # of the run's own vocabulary
    trained = str(run.item_ids[run.counts > 0][0])
    asked = retriever(store, run.name, release=1)
    assert facts(asked.recommend(history=[trained, untrained]))["events_unreadable"] == 1
    with pytest.raises(BadInput, match="can read none of the 1 events of this history"):
        asked.recommend(history=[untrained])


def test_a_removed_item_still_counts_as_history(store: Path) -> None:
    found = retriever(store, "sasrec-id-001", release=2).recommend("u900")
    assert len(found) == 10
    assert facts(found)["events_unreadable"] == 0


def test_equal_scores_are_answered_in_the_order_of_ids(store: Path) -> None:
    """All items without a text share one learned vector, so their scores are equal."""
    found = retriever(store, "sasrec-text-001").recommend("u001", k=N_ITEMS, exclude_seen=False)
    without = [i for i in found["item_id"].to_pylist() if i.endswith("7")]
    assert len(without) > 3
    assert without == sorted(without)


def test_a_feature_made_by_another_recipe_is_refused_for_new_items(store: Path) -> None:
    with pytest.raises(
        BadInput, match="'text' of release 0003 is made by another recipe than in release 0001"
    ):
        retriever(store, "sasrec-text-001", release=3).recommend("u000")
    assert len(retriever(store, "sasrec-id-001", release=3).recommend("u000")) == 10


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
    for k in (0, 10_001):
        with pytest.raises(BadInput, match="from 1 to 10,000"):
            asked.recommend("u000", k=k)


def test_the_promoted_run_answers_and_the_latest_where_none_is(store: Path) -> None:
    newest = runs.list_runs(store)[0].name
    assert Retriever.open(store, release="0001").run.name == newest
    assert Retriever.open(store, "latest", release="0001").run.name == newest
    assert newest != "sasrec-text-001"
    runs.promote(store, "sasrec-text-001")
    try:
        assert Retriever.open(store, release="0001").run.name == "sasrec-text-001"
        assert Retriever.open(store, "latest", release="0001").run.name == newest
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
    log = EventLog.from_release(opened(store, 1))
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


def test_similar_items_need_no_run_and_leave_the_item_out(store: Path) -> None:
    asked = Retriever.open(store)
    found = asked.similar("i010", feature="text", k=5)
    matrix = asked.release.matrix("text")
    unit = matrix.values / np.linalg.norm(matrix.values, axis=1, keepdims=True)
    scores = unit @ unit[matrix.ids.tolist().index("i010")]
    expected = [i for i in matrix.ids[np.argsort(-scores)].tolist() if i != "i010"][:5]
    assert found["item_id"].to_pylist() == expected
    by_vector = asked.similar(vector=matrix.values[3], feature="text", k=1)
    assert by_vector["item_id"].to_pylist() == [str(matrix.ids[3])]
    cheap = asked.similar("i010", feature="text", k=5, where="price < 30")
    assert all(price < 30 for price in cheap["price"].to_pylist())


def test_a_copied_release_and_run_answer_without_a_database(store: Path, tmp_path: Path) -> None:
    for name in ("releases", "derived", "runs"):
        shutil.copytree(store / name, tmp_path / name)
    code = (
        "import sys\n"
        "from recommender.retrieve import Retriever\n"
        f"found = Retriever.open({str(tmp_path)!r}, 'sasrec-text-001', release='0002').recommend('u000', k=3)\n"
        "print(len(found), [m for m in ('lancedb', 'lance', 'duckdb') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split("\n")[0] == "3 []"
