"""A fine-tuned run among the others of a store: made, listed, traced, resumed, kept by gc, and forgotten from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dualview import housekeeping, lineage, msr
from dualview.training import fit, promote, run_rows
from featurestore.errors import BadInput, Conflict, NotFound
from featurestore.store import Store
from recommender.msr.pairs import Pairs
from recommender.runs import MSR, Run, open_run
from tests.recommender import asking, shelves

OPTIONS = {"rank": 2, "epochs": 1, "answers": ("y", "n"), "lr": 1e-3, "history": 5, "length": 400}
PAIRS = {"users": 12, "negatives": 4, "valid_users": 4}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = shelves.build(tmp_path / "store")
    made.publish(allow_stale=True)
    return made


def train(store: Store, **given: Any) -> Run:
    return msr.train(
        store, **{"model": str(asking.folder("llm")), "pairs": PAIRS, "device": "cpu"} | OPTIONS | given
    )


def test_a_run_says_what_it_was_made_of(store: Store) -> None:
    plan = msr.plan_train(store, model=str(asking.folder("llm")), pairs=PAIRS, device="cpu", **OPTIONS)
    beats: list[tuple[int, int]] = []
    run = train(store, beat=lambda place, total: beats.append((place, total)))
    pairs = Pairs.load(run.folder / "pairs.parquet")
    assert (plan.run, plan.pairs_hash, plan.release) == (run.name, pairs.hash, run.release)
    assert plan.examples == run.about["split"]["examples"] == 2 * len(pairs.parts["train"]) == len(beats)
    assert plan.valid_examples == 5 * len(pairs.parts["valid"])
    assert (
        plan.learned_parameters
        == 2
        * sum(a + b for a, b in [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)])
        * 2
    )
    assert run.split_hash == pairs.hash
    assert run.options.answers == ("y", "n")
    assert (run.options.image, run.options.dtype) == (False, "float32"), (
        "what the model decided is written down"
    )
    assert 0 <= run.metrics()["valid"]["auc"] <= 1
    assert run.about["model"]["folder_sha256"]


def test_it_stands_among_the_runs_and_is_no_sequential_one(store: Store) -> None:
    sequential = fit(store, items="id", epochs=1, length=10, width=8)
    run = train(store)
    rows = {row["run"]: row for row in run_rows(store)}
    assert rows[run.name]["kind"] == MSR
    assert rows[run.name]["valid AUC"] == run.metrics()["valid"]["auc"]
    assert rows[sequential.name]["valid AUC"] is None
    traced = lineage.trace(store, f"run:{run.name}")
    assert traced.facts["kind"] == MSR
    assert {node.kind for node in traced.below} == {"options", "split", "release", "made on"}
    item = lineage.trace(store, f"item:{run.item_ids[0]}")
    assert [node.name for release in item.below if release.kind == "release" for node in release.below]
    with pytest.raises(BadInput, match="a fine-tuned yes/no model"):
        promote(store, run.name)
    with pytest.raises(BadInput, match="a fine-tuned yes/no model"):
        fit(store, resume=run.name)
    with pytest.raises(BadInput, match="a sequential recommender"):
        msr.train(store, resume=sequential.name)
    assert open_run(store.root, "latest").name == sequential.name


def test_it_goes_on_by_its_name_with_its_own_pairs(store: Store) -> None:
    run = train(store)
    longer = msr.train(store, resume=run.name, epochs=2, device="cpu")
    assert (longer.name, longer.metrics()["epochs"]) == (run.name, 2)
    with pytest.raises(BadInput, match="its own pairs"):
        msr.train(store, resume=run.name, pairs={"seed": 1}, device="cpu")
    with pytest.raises(Conflict, match="rank was 2, is 4"):
        msr.train(store, resume=run.name, rank=4, device="cpu")
    with pytest.raises(NotFound, match="there is no run"):
        msr.train(store, resume="msr-none-001", device="cpu")


def test_a_run_goes_on_with_its_own_release_and_another_is_refused(store: Store) -> None:
    before = store.release("latest").name
    runs = (train(store), fit(store, items="id", epochs=1, device="cpu"))
    store.publish(tag="again", allow_stale=True)
    assert store.release("latest").name != before
    for run, go_on in zip(runs, (msr.train, fit), strict=True):
        assert go_on(store, resume=run.name, release=before, epochs=2, device="cpu").release == before
        assert go_on(store, resume=run.name, epochs=2, device="cpu").release == before
        with pytest.raises(Conflict, match=f"is of release {before}, not of") as refused:
            go_on(store, resume=run.name, release="again", device="cpu")
        assert "leave --release out" in str(refused.value)


def test_gc_keeps_the_release_that_it_learnt_from(store: Store) -> None:
    run = train(store)
    with store.lock("test"):
        store.tables.upsert("items", store.tables.read("items").slice(0, 1), "item_id")
    for _ in range(2):
        store.publish(allow_stale=True)
    housekeeping.gc(store, keep=1, grace=0)
    assert run.release in {release.name for release in store.releases()}
    assert open_run(store.root, run.name, MSR).folder.exists()


def test_who_is_forgotten_is_in_no_pair_any_more(store: Store) -> None:
    run = train(store)
    pairs = Pairs.load(run.folder / "pairs.parquet")
    user, item = str(pairs.parts["test"].users[0]), str(pairs.parts["train"].items[0, 0])
    report = housekeeping.forget(store, users=[user], items=[item])
    left = Pairs.load(run.folder / "pairs.parquet")
    for groups in left.parts.values():
        assert user not in groups.users
        assert item not in groups.items
    assert len(left.parts["train"]) < len(pairs.parts["train"])
    assert item not in Run(run.folder).item_ids
    assert run.name in report.learnt


def test_what_is_missing_is_told(store: Store) -> None:
    with pytest.raises(BadInput, match="which model"):
        msr.train(store)
    with pytest.raises(NotFound, match="no column or feature 'headline'"):
        train(store, text="headline")
    with pytest.raises(BadInput, match="holds vectors, not texts"):
        train(store, summary="text")
    with pytest.raises(BadInput, match="unknown option of pairs 'user'"):
        train(store, pairs={"user": 3})
    assert not (store.root / "runs").exists()
