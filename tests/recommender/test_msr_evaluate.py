"""Scorers side by side on the same candidates: figures with ties, sequential runs asked the same, what is refused, and
candidates put into a fine-tuned run's order."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dualview import msr
from dualview.commands.recommend import run as verb
from dualview.msr_evaluation import evaluate, plan_evaluation
from dualview.training import fit
from featurestore.errors import BadInput, Conflict, NotFound
from featurestore.store import Store
from recommender.events import EventLog
from recommender.metrics import hit_rate, reciprocal_rank
from recommender.msr import scorers
from recommender.msr.asking import Bench
from recommender.msr.config import MsrConfig
from recommender.msr.evaluate import evaluate_groups
from recommender.msr.examples import history
from recommender.msr.figures import figures
from recommender.msr.material import NoPreference, kept, material
from recommender.msr.pairs import Groups, PairOptions, Pairs, draw_pairs
from recommender.msr.ranker import Ranker
from recommender.msr.rerank import Reranker
from recommender.retrieve import Retriever, facts
from recommender.runs import Run
from recommender.splits import leave_one_out
from tests.recommender import asking, shelves, tastes
from tests.recommender.serve.shelf import serving

OPTIONS: dict[str, Any] = {
    "rank": 2,
    "epochs": 1,
    "answers": ("y", "n"),
    "lr": 1e-2,
    "history": 5,
    "length": 400,
    "batch": 8,
}
PAIRS: dict[str, Any] = {"users": 16, "negatives": 4, "valid_users": 4}

few = arrays.arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(2, 6)), elements=st.integers(0, 3))


# ---- figures


@settings(max_examples=80, deadline=None)
@given(few, st.integers(1, 4))
def test_equal_scores_count_the_mean_over_the_places_that_they_share(scores: Any, k: int) -> None:
    found = figures(scores, (k,))
    for row, user in enumerate(scores.tolist()):
        above = sum(other > user[0] for other in user[1:])
        tied = sum(other == user[0] for other in user[1:])
        places = np.arange(above + 1, above + tied + 2)
        assert found.per_user[f"HR@{k}"][row] == pytest.approx(hit_rate(places, k).mean())
        assert found.per_user[f"MRR@{k}"][row] == pytest.approx(reciprocal_rank(places, k).mean())
        below = len(user) - 1 - above - tied
        assert found.per_user["AUC_user"][row] == pytest.approx((below + tied / 2) / (len(user) - 1))
        assert found.ranks[row] == pytest.approx(places.mean())


def test_who_says_the_same_of_everything_is_at_chance() -> None:
    found = figures(np.zeros((7, 21))).metrics
    mrr = sum(1 / rank for rank in range(1, 6)) / 21
    assert found == pytest.approx({"AUC": 0.5, "AUC_user": 0.5, "HR@5": 5 / 21, "MRR@5": mrr})


def test_pooled_auc_asks_that_users_be_comparable() -> None:
    scores = np.array([[0.9, 0.8, 0.8], [0.2, 0.1, 0.1]])
    found = figures(scores).metrics
    assert found["AUC_user"] == 1
    assert found["AUC"] == pytest.approx(6 / 8)


def test_a_candidate_that_cannot_be_scored_is_last_and_nan_is_a_bug() -> None:
    assert figures(np.array([[0.0, -np.inf]])).metrics["AUC"] == 1
    assert figures(np.array([[-np.inf, -np.inf]])).metrics["AUC"] == 0.5
    with pytest.raises(ValueError, match="NaN"):
        figures(np.array([[0.0, np.nan]]))


# ---- sequential models and floors


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = shelves.build(tmp_path_factory.mktemp("msr") / "store")
    made.publish(allow_stale=True)
    return made


@pytest.fixture(scope="module")
def sequential(store: Store) -> Run:
    return fit(store, items="id", epochs=2, length=10, width=8)


@pytest.fixture(scope="module")
def tuned(store: Store, sequential: Run) -> Run:
    return msr.train(store, model=str(asking.folder("llm")), pairs=PAIRS, device="cpu", **OPTIONS)


def test_a_sequential_run_scores_candidates_as_it_ranks_the_whole_catalogue(
    store: Store, sequential: Run
) -> None:
    release = store.release("latest")
    log = EventLog.from_release(release)
    groups = draw_pairs(log, PairOptions.of(negatives=5)).parts["test"]
    answers = scorers.of_run(sequential, release, log)(groups)
    split = leave_one_out(log)
    model = sequential.load_model()
    users = np.searchsorted(log.user_ids, groups.users)
    whole = model.user_vectors(split.log.items, *split.history(users, "test")) @ model.item_vectors().T
    expected = np.take_along_axis(whole, np.searchsorted(log.item_ids, groups.items), axis=1)
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    alone = scorers.of_run(sequential, release, log)(groups.take(np.array([3])))
    np.testing.assert_allclose(
        alone, answers[3:4], atol=1e-6
    )  # a product of another size is rounded otherwise


def test_a_run_that_was_trained_on_what_is_asked_is_refused(store: Store, sequential: Run) -> None:
    release = store.release("latest")
    log = EventLog.from_release(release)
    trained = draw_pairs(log, PairOptions.of(negatives=5)).parts["train"]
    with pytest.raises(Conflict, match="was trained on"):
        scorers.of_run(sequential, release, log)(trained)
    parts = draw_pairs(log, PairOptions.of(negatives=5)).parts
    scorers.of_run(sequential, release, log, parts["test"])
    with pytest.raises(Conflict, match=f"chose its epoch by {len(parts['valid'])} of the"):
        scorers.of_run(sequential, release, log, test=parts["valid"])


def test_an_item_without_a_vector_is_last_and_not_read(store: Store, sequential: Run) -> None:
    release = store.release("latest")
    log = EventLog.from_release(release)
    groups = draw_pairs(log, PairOptions.of(negatives=5)).parts["test"]
    model = sequential.load_model()
    lost = groups.items[0, 1]
    keep = sequential.item_ids != lost
    known = scorers.Sequential(
        sequential.item_ids[keep],
        model.item_vectors()[keep],
        np.ones(keep.sum(), dtype=np.bool_),
        model.user_vectors,
    )
    answers = scorers.sequential(known, leave_one_out(log), log, "x")(groups)
    assert np.isneginf(answers[groups.items == lost]).all()
    assert np.isfinite(answers[groups.items != lost]).all()


def test_an_item_that_is_taken_again_may_be_asked_about() -> None:
    """What is refused is an event that was learnt from, not an item."""
    rows = [{"user_id": "u", "item_id": item, "timestamp": n} for n, item in enumerate("abcda")]
    rows += [{"user_id": "v", "item_id": f"x{n}", "timestamp": n} for n in range(5)]
    log = EventLog.from_table(pa.Table.from_pylist(rows))
    zeros = np.zeros((log.n_items, 2), dtype=np.float32)
    known = scorers.Sequential(
        log.item_ids, zeros, np.ones(log.n_items, dtype=np.bool_), lambda rows, starts, ends: zeros[starts]
    )
    score = scorers.sequential(known, leave_one_out(log), log, "x")
    groups = draw_pairs(log, PairOptions.of(negatives=2, catalogue="all")).parts["test"]
    assert groups.targets.tolist() == ["a", "x4"]
    assert score(groups).shape == (2, 3)
    first = replace(groups, history=np.zeros(2, dtype=np.int32))  # the `a` that training has
    with pytest.raises(Conflict, match="trained on 1 of the 2"):
        score(first)


def test_an_item_that_no_event_was_learnt_of_ranks_nowhere(tmp_path: Path) -> None:
    store = tastes.shop(tmp_path / "store", (7, 5, 4))
    run, release = fit(store, items="id", epochs=1, length=5, width=8), store.release("latest")
    log = EventLog.from_release(release)
    groups = draw_pairs(log, PairOptions.of(negatives=2, catalogue="all")).parts["test"]
    answers = scorers.of_run(run, release, log)(groups)
    unseen = ~np.isin(groups.items, run.item_ids[run.counts > 0])
    assert unseen[2, 0]
    assert np.array_equal(np.isneginf(answers), unseen)


def test_popularity_knows_no_held_out_event(store: Store) -> None:
    log = EventLog.from_release(store.release("latest"))
    counts = leave_one_out(log).counts
    for split, expected in (("leave-one-out", counts), ("by-user", None)):
        pairs = draw_pairs(log, PairOptions.of(negatives=3, split=split))
        groups = pairs.parts["test"]
        answers = scorers.popularity(log, pairs)(groups)
        if expected is None:
            asked = np.isin(log.user_ids, [*groups.users, *pairs.parts["valid"].users])
            expected = np.bincount(log.items[~asked[log.users]], minlength=log.n_items)
        assert np.array_equal(answers, expected[np.searchsorted(log.item_ids, groups.items)])


def test_chance_depends_on_user_and_place_alone(store: Store) -> None:
    groups = draw_pairs(EventLog.from_release(store.release("latest")), PairOptions.of(negatives=3)).parts[
        "test"
    ]
    whole = scorers.chance()(groups)
    assert np.array_equal(scorers.chance()(groups.take(np.array([5, 2]))), whole[[5, 2]])


# ---- a fine-tuned run


def test_a_run_is_evaluated_beside_others_and_keeps_its_figures(
    store: Store, tuned: Run, sequential: Run
) -> None:
    plan = plan_evaluation(store, tuned.name, beside=[sequential.name])
    assert plan["scorers"] == [tuned.name, "zero-shot", sequential.name, "popularity", "chance"]
    assert not plan["replaces"]
    assert not (tuned.folder / "test_users.parquet").exists()
    report = evaluate(store, tuned.name, beside=[sequential.name], device="cpu")
    assert list(report.asked.found) == plan["scorers"]
    metrics = tuned.metrics()["test"]
    assert metrics["metrics"] == pytest.approx(dict(report.asked.found[tuned.name].metrics))
    assert metrics["metrics"]["AUC"] != metrics["beside"]["zero-shot"]["metrics"]["AUC"]
    kept_rows = pq.read_table(tuned.folder / "test_users.parquet")
    mine = kept_rows.filter(np.array([s == tuned.name for s in kept_rows["scorer"].to_pylist()]))
    assert np.mean(mine["HR@5"].to_numpy()) == pytest.approx(metrics["metrics"]["HR@5"])
    assert {row["against"] for row in report.compared} == set(plan["scorers"][1:])
    assert all(row["p_holm"] >= row["p"] for row in report.compared)
    # what the ranker says of a group is what stands in the table
    groups = Pairs.load(tuned.folder / "pairs.parquet").parts["test"]
    release = store.release("latest")
    asked = material(store, release, EventLog.from_release(release), tuned.options, sees=False)
    examples = asked.examples(groups.take(np.array([0])))
    odds = Ranker.open(tuned, device="cpu").log_odds(examples[0].preference, [e.candidate for e in examples])
    assert odds[0] == pytest.approx(mine["score"][0].as_py(), abs=1e-4)
    assert [e.label for e in examples] == [True, *[False] * 4]
    assert len(report.tables()[0].rows) == 5


def test_what_an_evaluation_refuses(store: Store, tuned: Run, sequential: Run) -> None:
    with pytest.raises(BadInput, match="test or valid"):
        evaluate(store, tuned.name, on="train")
    with pytest.raises(BadInput, match="a sequential recommender"):
        evaluate(store, sequential.name)
    with pytest.raises(BadInput, match="named twice"):
        plan_evaluation(store, tuned.name, beside=[sequential.name, sequential.name])
    pairs = PAIRS | {"split": "by-user", "users": None}
    other = msr.train(store, model=str(asking.folder("llm")), pairs=pairs, device="cpu", **OPTIONS)
    with pytest.raises(Conflict, match="was trained on"):
        plan_evaluation(store, tuned.name, beside=[other.name])


def test_a_run_that_knows_what_is_asked_is_not_put_beside_another(
    store: Store, tuned: Run, tmp_path: Path
) -> None:
    bench = Bench.open(store, tuned.name)
    parts = bench.pairs.parts
    other = SimpleNamespace(name="other", folder=tmp_path)

    def of(train: Groups, valid: Groups) -> Any:
        replace(bench.pairs, parts={"train": train, "valid": valid, "test": parts["test"]}).save(
            tmp_path / "pairs.parquet"
        )
        return other

    bench._not_learnt(of(parts["train"], parts["valid"]))
    for ahead in (0, 1):  # the event itself, or one whose history has it
        learnt = Groups(parts["test"].users, parts["test"].history + ahead, parts["test"].items[:, :2])
        with pytest.raises(Conflict, match="was trained on"):
            bench._not_learnt(of(learnt, parts["valid"]))
    with pytest.raises(Conflict, match="chose its epoch by 16 of the events"):
        bench._not_learnt(of(parts["train"], parts["test"]))


def test_preferences_are_those_before_the_event_and_missing_ones_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tastes.shop(tmp_path / "store")
    tastes.make(store, "template", summary="summary")
    release = store.release("latest")
    log = EventLog.from_release(release)
    pairs = draw_pairs(log, PairOptions.of(negatives=3, min_history=2, catalogue="all"))
    tell = kept(store, release, log, "recurrent")
    for name in ("train", "valid", "test"):
        groups = pairs.parts[name]
        for user, before, target, told in zip(
            groups.users, groups.history, groups.targets, tell(groups), strict=True
        ):
            first = log.offsets[np.searchsorted(log.user_ids, user)]
            read = log.item_ids[log.items[first : first + before - told.behind]]
            assert all(f"thing {item}" in told.text for item in read)
            assert told.behind < 3
            if target not in read:
                assert f"thing {target}" not in told.text
    with pytest.raises(NotFound, match="direct preferences"):
        kept(store, release, log, "direct")
    few_users = draw_pairs(log, PairOptions.of(negatives=3, min_history=2, catalogue="all")).parts["test"]
    partly = tastes.shop(tmp_path / "other")
    tastes.make(partly, "template", users=few_users.users[:1].tolist())
    with pytest.raises(NotFound, match="have no recurrent preference"):
        kept(partly, partly.release("latest"), log, "recurrent")(few_users)
    monkeypatch.setattr("recommender.msr.material.MOST_MISSING", 1.0)
    with pytest.warns(NoPreference, match="asked about as unknown"):
        told_few = kept(partly, partly.release("latest"), log, "recurrent")(few_users)
    assert [bool(one.text) for one in told_few] == [True, *[False] * (len(few_users) - 1)]


def test_groups_of_other_events_are_refused(store: Store) -> None:
    release = store.release("latest")
    log = EventLog.from_release(release)
    groups = draw_pairs(log, PairOptions.of(negatives=3)).parts["test"]
    asked = material(store, release, log, MsrConfig.of(model="none", image=False))
    with pytest.raises(BadInput, match="other events"):
        asked.examples(replace(groups, history=groups.history - 1))


def test_evaluating_nothing_scores_nothing(store: Store) -> None:
    groups = draw_pairs(EventLog.from_release(store.release("latest")), PairOptions.of(negatives=3)).parts[
        "test"
    ]
    with pytest.raises(ValueError, match="gave"):
        evaluate_groups(groups, {"wrong": lambda g: np.zeros((1, 2), dtype=np.float32)})


# ---- re-ranking


def test_candidates_are_put_into_the_order_of_the_model(store: Store, tuned: Run, sequential: Run) -> None:
    retriever = Retriever.open(store, run=sequential.name)
    plain = retriever.recommend("u003", k=8)
    found = retriever.recommend("u003", k=3, rerank=tuned.name, depth=8, device="cpu")
    told = facts(found)["rerank"]
    assert (told["run"], told["candidates"], told["preference"]["kind"]) == (tuned.name, 8, "history")
    assert set(found["item_id"].to_pylist()) <= set(plain["item_id"].to_pylist())
    assert found.column_names[:3] == ["item_id", "p_yes", "score"]
    release = store.release("latest")
    log = EventLog.from_release(release)
    user = int(np.searchsorted(log.user_ids, "u003"))
    own = log.item_ids[log.items[log.offsets[user] : log.offsets[user + 1]]].tolist()
    shelf = material(store, release, log, tuned.options, sees=False).shelf
    offered = [shelf[item] for item in plain["item_id"].to_pylist()]
    p_yes = Ranker.open(tuned, device="cpu").score(history(shelf, own, 5), offered)
    best = [plain["item_id"][place].as_py() for place in np.argsort(-p_yes, kind="stable")[:3]]
    assert found["item_id"].to_pylist() == best
    assert found["p_yes"].to_pylist() == pytest.approx(np.sort(p_yes)[::-1][:3].tolist(), abs=1e-5)


def test_the_service_reranks_as_the_retriever_does(store: Store, tuned: Run, sequential: Run) -> None:
    found = Retriever.open(store, run=sequential.name).recommend(
        "u003", k=3, rerank=tuned.name, depth=8, device="cpu"
    )
    with serving(store, run=sequential.name, device="cpu") as served:
        asked = {"user": "u003", "k": 3, "rerank": tuned.name, "depth": 8}
        told = served.post("/v1/recommend", asked).json
        kinds = {run["name"]: (run["kind"], run["usable"]) for run in served.get("/v1/runs").json["runs"]}
    assert [item["id"] for item in told["items"]] == found["item_id"].to_pylist()
    assert [item["p_yes"] for item in told["items"]] == pytest.approx(found["p_yes"].to_pylist(), abs=1e-6)
    assert told["facts"]["rerank"]["run"] == tuned.name
    assert kinds[tuned.name] == ("msr", True)
    assert kinds[sequential.name] == ("sequential", True)


def test_what_reranking_refuses(store: Store, tuned: Run, sequential: Run) -> None:
    retriever = Retriever.open(store, run=sequential.name)
    with pytest.raises(BadInput, match="depth"):
        retriever.recommend("u003", depth=8)
    with pytest.raises(BadInput, match="depth is 0"):
        retriever.recommend("u003", rerank=tuned.name, depth=0)
    with pytest.raises(BadInput, match="a fine-tuned yes/no model is asked for"):
        retriever.recommend("u003", rerank=sequential.name)
    with pytest.raises(NotFound, match="no run"):
        retriever.recommend("u003", rerank="nothing")
    with pytest.raises(BadInput, match="the model that re-ranks"):
        verb(store.root, "u003", device="cpu")


def test_a_preference_that_is_not_kept_is_made_where_no_model_is_asked(tmp_path: Path) -> None:
    store = tastes.shop(tmp_path / "store")
    tastes.make(store, "template", points=("train", "valid", "test"))
    pairs = {"negatives": 2, "min_history": 2, "catalogue": "all"}
    sequential = fit(store, items="id", epochs=1, length=10, width=8)
    run = msr.train(
        store,
        model=str(asking.folder("llm")),
        pairs=pairs,
        preference="recurrent",
        device="cpu",
        **{k: v for k, v in OPTIONS.items() if k != "history"} | {"length": 1000},
    )
    assert len(run.options.preference) == 64  # the recipe, not "the one that was used last"
    retriever = Retriever.open(store, run=sequential.name)
    told = facts(retriever.recommend("u0", k=2, rerank=run.name, device="cpu"))["rerank"]["preference"]
    assert (told["kind"], told["step"], told["events_behind"]) == ("kept", 2, 1)
    given = facts(retriever.recommend(history=["i01", "i02", "i03", "i04"], k=2, rerank=run.name))["rerank"]
    assert (given["preference"]["kind"], given["preference"]["step"]) == ("made now", 2)
    tastes.make(store, "template", points=("now",), users=["u0"])
    after = facts(Retriever.open(store, run=sequential.name).recommend("u0", k=2, rerank=run.name))["rerank"]
    assert (after["preference"]["step"], after["preference"]["events_behind"]) == (3, 0)
    assert json.dumps(after)
    kept = retriever.rerankers
    assert kept.get(run.name) is kept.get(run.name)
    (weights,) = run.folder.rglob("adapter_model.safetensors")
    before = kept.get(run.name)
    os.utime(weights, ns=(1, 1))
    assert kept.get(run.name) is not before  # it has trained on
    written = Reranker(store.root, store.release("latest"), run.name)._written
    assert written(["gone", "lost", "sold out", "i01"]) == written(["i01"]), (
        "a release says nothing of what is gone"
    )
    assert written(["gone"]).text == ""
