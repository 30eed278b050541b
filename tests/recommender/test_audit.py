"""An audit of a run that is as it should be, and of copies of it in which one thing is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featurestore import journal
from featurestore.errors import BadInput, NotFound
from featurestore.files import read_json, write_json
from featurestore.store import Store
from recommender import backbones, checkpoint, data, runs
from recommender import model as models
from recommender.audit import HOLDS, UNKNOWN, VIOLATED, Check, Material, audit, events
from recommender.config import Config
from recommender.fit import fit
from recommender.runs import Run
from recommender.sequences import TrainingBatches
from recommender.splits import Split, hide_items
from tests.recommender import learning, shelves

SMALL = {"width": 8, "length": 6, "batch": 16, "epochs": 3, "layers": 1, "heads": 1}
ALL = "id+text+brought+fused"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Release 0002 holds `fused`, fitted on its leave-one-out split; in 0003 it was fitted on another."""
    store = shelves.build(tmp_path_factory.mktemp("audit") / "store")
    split = data.split_of(store.publish(allow_stale=True), Config())
    shelves.compute(store, "fused", shelves.fused("d"), shelves.saw(split.hash, run="sasrec-id-001"))
    store.publish()
    trained(store, items="id")  # the run that is said to have fitted it
    shelves.compute(store, "fused", shelves.fused("e"), shelves.saw("0" * 64, release="0009"))
    store.publish()
    return store


@pytest.fixture(scope="module")
def whole(store: Store) -> Run:
    return trained(store, items=ALL)


def trained(store: Store, **options: Any) -> Run:
    config = Config.of(**SMALL | options)
    return fit(store.release("0002"), config, runs.allot(store.root, config.slug), device="cpu")


def found(run: Run) -> dict[str, Check]:
    return {check.name: check for check in audit(run.folder.parent.parent, run.name).checks}


def copied(run: Run) -> Run:
    """A run of its own that is the same."""
    folder = runs.allot(run.folder.parent.parent, run.config.slug)
    shutil.copytree(run.folder, folder, dirs_exist_ok=True)
    return Run(folder)


def violated(run: Run) -> set[str]:
    return {name for name, check in found(run).items() if check.verdict == VIOLATED}


def test_every_figure_of_an_untouched_run_comes_out_again(whole: Run, store: Store) -> None:
    checks = found(whole)
    said = {name: check.verdict for name, check in checks.items()}
    assert said.pop("feature brought") == UNKNOWN
    assert said == dict.fromkeys(said, HOLDS)
    assert {"split", "parts are disjoint", "targets come last", "training counts", "vocabulary"} <= set(said)
    assert {"training batches", "feature text", "feature fused", "epoch", "validation figure"} <= set(said)
    assert {"test", "answers before valid", "answers before test", "places before a change"} <= set(said)
    assert sum(name.startswith("scaling ") for name in said) == 3
    split = data.split_of(store.release("0002"), whole.config)
    assert checks["split"].evidence["held_out_events"] == 2 * len(split.users("test"))
    counted = checks["training counts"].evidence
    assert counted["recorded_sum"] == counted["training_sum"] < counted["all_events_sum"]
    assert checks["feature brought"].evidence["file"] == {"sha256": "b" * 64, "ids_sha256": "c" * 64}
    assert "content of 20 items" in checks["feature text"].because
    assert checks["feature fused"].evidence["recomputed_split_of_its_run"] == split.hash
    assert checks["validation figure"].evidence["recomputed"] == pytest.approx(
        max(row["valid_ndcg@10"] for row in whole.history())
    )
    for name in ("answers before valid", "answers before test"):
        proof = checks[name].evidence
        assert proof["largest_change"] == 0 < proof["largest_change_where_the_target_is_read"]
    assert checks["places before a change"].evidence["largest_change_later"] > 0.01


@pytest.mark.parametrize(
    "options",
    [
        {"split": "global-time"},
        {"backbone": "gru4rec", "windows": "random", "length": 3, "heads": 2},
        {"backbone": "bert4rec"},
        {"causal": False},
        {"items": "id+text", "tower": "llm-esr", "width": 8, "distill_users": 3},
        {"items": "id+text+fused", "tower": "dmesr", "width": 8},
        {"items": "id+text", "tower": "init"},
        {"items": "id+text", "id_init": "pca", "scaling": "standard"},
        {"items": "id+text", "hide_items": 0.2},
    ],
)
def test_it_holds_for_every_kind_of_model(store: Store, options: dict[str, Any]) -> None:
    if options.get("tower") in ("llm-esr", "dmesr"):
        options = options | {"view_heads": 1}
    checks = found(trained(store, **options | {"epochs": 1}))
    wrong = {name: check for name, check in checks.items() if check.verdict != HOLDS}
    began = options.get("tower") in ("init", "llm-esr") or "id_init" in options
    assert set(wrong) == ({"first id vectors"} if began else set())
    assert ("cut in time" in checks) == (options.get("split") == "global-time")
    assert ("similar users" in checks) == (options.get("tower") == "llm-esr")


def test_counts_that_saw_what_was_held_out_are_found(whole: Run) -> None:
    run = copied(whole)
    log = data.split_of(run.opened_release(), run.config).log
    np.save(run.folder / "counts.npy", np.bincount(log.items, minlength=log.n_items))
    assert violated(run) == {"training counts"}


def test_another_split_than_the_recorded_one_is_found(whole: Run) -> None:
    run = copied(whole)
    about = read_json(run.folder / "run.json")
    about["split"]["hash"] = "0" * 64
    write_json(run.folder / "run.json", about)
    checks = found(run)
    assert checks["split"].verdict == VIOLATED
    assert checks["validation figure"].verdict == UNKNOWN


def test_a_feature_that_saw_another_split_is_found(whole: Run) -> None:
    run = copied(whole)
    write_json(run.folder / "run.json", read_json(run.folder / "run.json") | {"release": "0003"})
    assert violated(run) == {"feature fused"}


def test_a_claim_about_the_split_that_its_run_refutes_is_found(store: Store, whole: Run) -> None:
    run, named = copied(whole), Run(store.root / "runs" / "sasrec-id-001")
    before = (named.folder / "config.json").read_text()
    write_json(named.folder / "config.json", read_json(named.folder / "config.json") | {"k_core": [7, 7]})
    try:
        assert violated(run) == {"feature fused"}
    finally:
        (named.folder / "config.json").write_text(before)


def rewritten(run: Run, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    path = run.folder / "checkpoint" / checkpoint.BEST
    tensors, state = checkpoint.load(path)
    change(tensors, state)
    checkpoint.save(path, tensors, state)


def test_an_epoch_that_validation_did_not_choose_is_found(whole: Run) -> None:
    worst = min(whole.history(), key=lambda row: row["valid_ndcg@10"])["epoch"]
    by_checkpoint, by_metrics, by_test = copied(whole), copied(whole), copied(whole)
    rewritten(by_checkpoint, lambda _, state: state.update(epoch=worst))
    assert "epoch" in violated(by_checkpoint)
    by_metrics.write_metrics(best_epoch=worst)
    assert violated(by_metrics) == {"epoch"}
    by_test.write_history([row | {"test_ndcg@10": 0.5} for row in by_test.history()])
    assert violated(by_test) == {"epoch"}


def test_weights_that_are_not_those_that_were_validated_are_found(whole: Run) -> None:
    run = copied(whole)

    def other(tensors: dict[str, Any], _: dict[str, Any]) -> None:
        torch.manual_seed(1)
        for name in tensors:
            if name.endswith("ids.weight") or "adapter" in name:
                tensors[name] = torch.randn_like(tensors[name])

    rewritten(run, other)
    assert violated(run) == {"validation figure"}


def test_a_scaling_that_is_not_of_the_item_vectors_alone_is_found(whole: Run) -> None:
    """Here it is made of the vectors of events: each item counts as often as it was taken."""
    run = copied(whole)
    split = data.split_of(run.opened_release(), run.config)
    vectors = data.features_of(run.opened_release(), run.config, run.item_ids)
    taken = {name: stored.take(split.log.items) for name, stored in vectors.items()}
    counts = np.ones(len(split.log), dtype=np.int64)
    weighted = models.build(run.config, counts, taken).state_dict()

    def other(tensors: dict[str, Any], _: dict[str, Any]) -> None:
        for name in tensors:
            if ("scaling" in name and "text" in name) or ".0.scaling" in name:
                tensors[name] = weighted[name.removeprefix("model.")]

    rewritten(run, other)
    wrong = violated(run) - {"validation figure"}
    assert len(wrong) == 1
    assert wrong.pop().startswith("scaling ")


def test_a_model_that_sees_ahead_is_found(whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make = backbones.BUILDERS["sasrec"]
    seeing = lambda config, width: make(config.model_copy(update={"causal": False}), width)  # noqa: E731
    monkeypatch.setitem(backbones.BUILDERS, "sasrec", seeing)
    assert violated(whole) - {"validation figure"} == {"places before a change"}


def test_an_answer_that_reads_its_target_is_found(whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    history = Split.history

    def one_more(split: Split, users: Any, which: Any) -> Any:
        first, row = history(split, users, which)
        return first, np.minimum(row + 1, split.log.offsets[users + 1])

    monkeypatch.setattr("recommender.splits.Split.history", one_more)
    assert {"answers before valid"} <= violated(whole)


def test_batches_that_read_a_held_out_event_are_found(whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    own = TrainingBatches._batch
    monkeypatch.setattr(TrainingBatches, "_batch", lambda self, chosen, ends: own(self, chosen, ends + 1))
    assert violated(whole) == {"training batches"}


def test_parts_that_overlap_or_stand_in_the_wrong_order_are_found(store: Store, whole: Run) -> None:
    given = Material(whole, store.release("0002"))
    sound = given.split
    given.__dict__["split"] = replace(sound, train_end=sound.log.offsets[1:])
    assert events.disjoint(given).evidence["shared"]["training_and_test"] == len(sound.users("test"))
    assert events.order(given).verdict == events.disjoint(given).verdict == VIOLATED
    given.__dict__["split"] = replace(sound, valid=sound.test, test=sound.valid)
    assert events.disjoint(given).verdict == HOLDS
    clock = data.split_of(store.release("0002"), Config.of(split="global-time"))
    given.__dict__["split"] = clock
    assert events.cut(given).verdict == HOLDS
    given.__dict__["split"] = replace(clock, train_end=np.minimum(clock.train_end + 1, clock.log.offsets[1:]))
    late = events.cut(given)
    assert late.verdict == VIOLATED
    assert late.evidence["training_events_after_cut"] > 0


def test_items_with_held_out_events_only_are_told_and_no_violation(store: Store, whole: Run) -> None:
    given = Material(whole, store.release("0002"))
    log = given.split.log
    alone = np.isin(log.items, log.items[-1:])  # the last item taken: nobody learns from it
    given.__dict__["split"] = replace(given.split, train_end=np.where(alone.any(), log.offsets[:-1] + 1, 0))
    told = events.vocabulary(given)
    assert told.verdict == HOLDS
    assert told.evidence["in_no_training_event"] > 0
    assert "cold" in told.because


def test_a_hidden_item_that_was_learnt_from_is_found(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(store, items="text", hide_items=0.2, hide_seed=1)
    good = found(run)["hidden items"]
    assert good.verdict == HOLDS
    assert good.evidence["items"] == 4
    assert good.evidence["test_targets"] > 0
    given = Material(run, store.release("0002"))
    whole = data.split_of(store.release("0002"), run.config.model_copy(update={"hide_items": 0.0}))
    given.__dict__["split"] = replace(whole, hidden=given.split.hidden)
    bad = events.hidden(given)
    assert bad.verdict == VIOLATED
    assert bad.evidence["training_events"] > 0 < bad.evidence["valid_targets"]
    assert bad.evidence["events_in_histories"] > 0


def test_a_user_who_took_hidden_items_alone_is_no_violation(store: Store, whole: Run) -> None:
    run = copied(whole)
    given = Material(run, store.release("0002"))
    cut = given.split
    log = cut.log
    # the first user's events are all of one item, which nobody else took; it is hidden, and the user not asked
    alone = log.users == 0
    items = np.where(alone, 0, np.where(log.items == 0, 1, log.items)).astype(np.int32)
    changed = replace(cut, log=replace(log, items=items))
    seed = next(s for s in range(999) if hide_items(changed, 1 / log.n_items, s).hidden.tolist() == [0])
    given.__dict__["split"] = split = hide_items(changed, 1 / log.n_items, seed)
    assert (split.log.users == 0).sum() == 1  # what was the test target, without anything before it
    assert split.test[0] == -1
    np.save(run.folder / "counts.npy", split.counts)
    assert events.hidden(given).verdict == HOLDS


def test_the_journal_tells_when_the_test_was_opened(store: Store, whole: Run) -> None:
    run = copied(whole)
    assert found(run)["test"].because == "it was never opened for this run"
    run.write_metrics(test={"split_hash": run.split_hash})
    assert found(run)["test"].verdict == UNKNOWN
    journal.record(store.root, "train", run=run.name, epochs=3)
    journal.record(store.root, "evaluate", run=run.name, on="valid")
    journal.record(store.root, "evaluate", run=run.name, on="test")
    opened = found(run)["test"]
    assert opened.verdict == HOLDS
    assert opened.evidence["times_for_this_run"] == 1
    journal.record(
        store.root, "train", run=run.name, epochs=3
    )  # resumed when it was done: nothing was learnt
    assert found(run)["test"].verdict == HOLDS
    journal.record(store.root, "train", run=run.name, epochs=5)
    after = found(run)["test"]
    assert after.verdict == VIOLATED
    assert after.evidence["epochs_learnt_afterwards"] == 2
    run.write_metrics(test={"split_hash": "0" * 64})
    assert found(run)["test"].because == "the kept test figures are of another split"


def test_what_was_forgotten_since_cannot_be_recomputed_and_is_no_violation(store: Store, whole: Run) -> None:
    run = copied(whole)
    path = store.root / "releases" / "0003" / "manifest.json"
    write_json(run.folder / "run.json", read_json(run.folder / "run.json") | {"release": "0003"})
    about = read_json(run.folder / "run.json")
    about["split"]["hash"] = "0" * 64
    write_json(run.folder / "run.json", about)
    before = path.read_text()
    write_json(path, read_json(path) | {"forgotten": {"users": 1, "items": 0}})
    try:
        checks = found(run)
    finally:
        path.write_text(before)
    assert checks["split"].verdict == UNKNOWN
    assert "forgotten since" in checks["split"].because


def test_a_run_without_a_release_or_weights_is_refused(store: Store, whole: Run, tmp_path: Path) -> None:
    config = Config.of(**SMALL | {"epochs": 1})
    fit(learning.ring(users=20), config, runs.allot(tmp_path, config.slug), device="cpu")
    with pytest.raises(BadInput, match="bare log"):
        audit(tmp_path)
    run = copied(whole)
    (run.folder / "checkpoint" / checkpoint.BEST).unlink()
    with pytest.raises(NotFound, match="no checkpoint"):
        audit(store.root, run.name)
