from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from featurestore.errors import BadInput, Conflict
from recommender import checkpoint
from recommender.config import Config
from recommender.evaluate import evaluate, scores_of
from recommender.events import EventLog
from recommender.fit import fit, pick_device
from recommender.items import Vectors
from recommender.model import build, scorer
from recommender.objectives import NextItem
from recommender.runs import Run
from recommender.sequences import TrainingBatches
from recommender.splits import Split, hide_items
from recommender.trainer import TrainingError
from tests.recommender.learning import ring

SMALL = {"width": 16, "length": 10, "batch": 16, "epochs": 4, "patience": 50, "lr": 1e-2}


def weights(run: Run, name: str = checkpoint.BEST) -> dict[str, torch.Tensor]:
    return checkpoint.load(run.folder / "checkpoint" / name)[0]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Killed(Exception):
    pass


def killed_after(epoch: int):  # type: ignore[no-untyped-def]
    def progress(row: dict[str, object]) -> None:
        if row["epoch"] == epoch:
            raise Killed

    return progress


def features(split: Split, seed: int = 0) -> dict[str, Vectors]:
    random = np.random.default_rng(seed)
    count = split.log.n_items
    return {
        name: Vectors(random.normal(size=(count, 6)).astype(np.float32), random.random(count) > 0.2)
        for name in ("text", "image")
    }


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax", "bce", "gbce"])
def test_every_loss_learns_what_comes_next(tmp_path: Path, loss: str) -> None:
    split = ring(users=150)
    sampled = {} if loss == "softmax" else {"negatives": 8}
    config = Config.of(**(SMALL | sampled | {"loss": loss, "epochs": 25}))
    run = fit(split, config, tmp_path / "run", device="cpu")
    result = evaluate(scorer(run.load_model(), split, "test"), split, "test", (1,), lists=False)
    assert result.metrics["HR@1"] > 0.5  # chance is about 0.1 among the items a user has left


@pytest.mark.parametrize("items", ["text", "id+text+image"])
def test_a_model_of_features_learns_and_embeds_an_item_by_them_alone(tmp_path: Path, items: str) -> None:
    split = ring(users=150)
    given = features(split)
    given["text"] = Vectors(np.eye(split.log.n_items, dtype=np.float32), np.ones(split.log.n_items, np.bool_))
    config = Config.of(**(SMALL | {"items": items, "epochs": 25}))
    run = fit(split, config, tmp_path / "run", features=given, device="cpu")
    model = run.load_model(features=given)
    result = evaluate(scorer(model, split, "test"), split, "test", (1,), lists=False)
    assert result.metrics["HR@1"] > 0.5
    assert model.new_item_vectors(given).shape == (split.log.n_items, 16)


@pytest.mark.parametrize(
    "options",
    [
        {"average": 0.9, "windows": "random", "length": 3, "attention_dropout": 0.1},
        {"loss": "gbce", "negatives": 4, "warmup": 3, "schedule": "cosine", "clip": 1.0, "weight_decay": 0.1},
        {
            "items": "id+text",
            "lr_ids": 1e-3,
            "lr_features": 3e-3,
            "loss": "sampled_softmax",
            "negative_power": 0.5,
            "cosine": True,
        },
    ],
    ids=["averaged", "scheduled", "features"],
)
def test_a_killed_and_resumed_run_ends_with_the_same_bits(tmp_path: Path, options: dict[str, object]) -> None:
    split = ring()
    config = Config.of(**(SMALL | options))
    given = features(split)
    whole = fit(split, config, tmp_path / "whole", features=given, device="cpu")
    torch.manual_seed(99)  # what the caller's generator holds is of no account
    for epoch in (1, 3):
        with pytest.raises(Killed):
            fit(split, config, tmp_path / "parts", features=given, device="cpu", progress=killed_after(epoch))
        torch.rand(7)
    parts = fit(split, config, tmp_path / "parts", features=given, device="cpu")
    assert same(weights(whole), weights(parts))
    assert same(weights(whole, checkpoint.LAST), weights(parts, checkpoint.LAST))
    untimed = [
        [{k: v for k, v in row.items() if "seconds" not in k} for row in run.history()]
        for run in (whole, parts)
    ]
    assert untimed[0] == untimed[1]
    assert len(untimed[0]) == 4


def test_a_run_killed_by_the_kernel_in_mid_epoch_goes_on_from_the_epoch_before(tmp_path: Path) -> None:
    code = f"""
        import os, signal
        from pathlib import Path
        from recommender.config import Config
        from recommender.fit import fit
        from recommender.objectives import NextItem
        from tests.recommender.learning import ring
        seen, forward = [], NextItem.forward
        def dying(self, batch):
            seen.append(1)
            if len(seen) == 10:  # four batches an epoch
                os.kill(os.getpid(), signal.SIGKILL)
            return forward(self, batch)
        NextItem.forward = dying
        fit(ring(), Config.of(**{SMALL}), {str(tmp_path / "parts")!r}, device="cpu")
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).parents[2])
    assert ended.returncode == -9
    assert len(Run(tmp_path / "parts").history()) == 2
    parts = fit(ring(), Config.of(**SMALL), tmp_path / "parts", device="cpu")
    whole = fit(ring(), Config.of(**SMALL), tmp_path / "whole", device="cpu")
    assert same(weights(whole, checkpoint.LAST), weights(parts, checkpoint.LAST))


def test_the_seed_decides_the_weights_and_the_callers_generator_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = fit(ring(), Config.of(**SMALL), tmp_path / "one", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    other = fit(ring(), Config.of(**SMALL), tmp_path / "other", device="cpu")
    third = fit(ring(), Config.of(**SMALL, seed=1), tmp_path / "third", device="cpu")
    assert same(weights(one), weights(other))
    assert not same(weights(one), weights(third))


def test_training_stops_after_patience_and_keeps_the_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.1, 0.3, 0.2, 0.3, 0.25, 0.9])
    monkeypatch.setattr("recommender.fit.validation", lambda *_: {"ndcg@10": next(values)})
    config = Config.of(**(SMALL | {"patience": 3, "epochs": 50}))
    run = fit(ring(), config, tmp_path / "run", device="cpu")
    assert run.metrics()["best_epoch"] == 2
    assert run.metrics()["epochs"] == 5
    assert run.metrics()["valid"] == {"ndcg@10": 0.3}
    assert checkpoint.load(run.folder / "checkpoint" / checkpoint.BEST)[1] == {"epoch": 2}
    assert [row["best"] for row in run.history()] == [True, True, False, False, False]
    again = fit(ring(), config, tmp_path / "run", device="cpu")  # finished: nothing is left to do
    assert again.metrics()["epochs"] == 5


def test_validation_comes_every_so_many_epochs_and_at_the_end(tmp_path: Path) -> None:
    run = fit(ring(), Config.of(**(SMALL | {"eval_every": 3})), tmp_path / "run", device="cpu")
    assert ["valid_ndcg@10" in row for row in run.history()] == [False, False, True, True]


def test_the_validation_figure_of_the_best_epoch_is_that_of_the_kept_weights(tmp_path: Path) -> None:
    split = ring()
    run = fit(split, Config.of(**(SMALL | {"average": 0.9})), tmp_path / "run", device="cpu")
    found = evaluate(scorer(run.load_model(), split, "valid"), split, "valid", (10,), lists=False)
    assert found.metrics["NDCG@10"] == pytest.approx(run.metrics()["valid"]["ndcg@10"], abs=1e-9)


def test_a_loss_that_is_no_number_stops_the_run_and_names_epoch_and_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    forward = NextItem.forward

    def breaking(self: NextItem, batch: object) -> dict[str, torch.Tensor]:
        calls.append(batch)
        terms = forward(self, batch)  # type: ignore[arg-type]
        return {"loss": terms["loss"] * float("nan")} if len(calls) == 7 else terms

    monkeypatch.setattr(NextItem, "forward", breaking)
    with pytest.raises(TrainingError, match="nan in epoch 2, batch 3 of 4"):
        fit(ring(), Config.of(**SMALL), tmp_path / "run", device="cpu")
    assert len(Run(tmp_path / "run").history()) == 1


def test_a_run_does_not_go_on_with_other_options_or_other_events(tmp_path: Path) -> None:
    fit(ring(), Config.of(**SMALL), tmp_path / "run", device="cpu")
    with pytest.raises(Conflict, match="width was 16, is 8"):
        fit(ring(), Config.of(**(SMALL | {"width": 8})), tmp_path / "run", device="cpu")
    with pytest.raises(Conflict, match="other events"):
        fit(ring(seed=1), Config.of(**SMALL), tmp_path / "run", device="cpu")
    with pytest.raises(Conflict, match="holds a run already"):
        fit(ring(), Config.of(**SMALL), tmp_path / "run", device="cpu", resume=False)
    longer = fit(ring(), Config.of(**(SMALL | {"epochs": 6})), tmp_path / "run", device="cpu")
    assert longer.metrics()["epochs"] == 6
    assert longer.config.epochs == 6


def test_the_caller_is_told_an_epoch_only_when_it_is_safe(tmp_path: Path) -> None:
    def progress(row: dict[str, object]) -> None:
        assert checkpoint.load(tmp_path / "run/checkpoint/last.safetensors")[1]["epoch"] == row["epoch"]
        assert Run(tmp_path / "run").history()[-1] == row

    fit(ring(), Config.of(**SMALL), tmp_path / "run", device="cpu", progress=progress)


def test_a_log_that_cannot_be_learnt_from_is_refused(tmp_path: Path) -> None:
    split = ring(users=5)
    short = split.log.select(np.arange(len(split.log)) < 2)
    with pytest.raises(BadInput, match="validation target"):
        fit(short, Config.of(**SMALL), tmp_path / "run", device="cpu")
    with pytest.raises(BadInput, match="no interactions are left"):
        fit(split.log, Config.of(**SMALL, k_core=(50, 50)), tmp_path / "run", device="cpu")
    with pytest.raises(BadInput, match="no clock"):
        fit(split.log, Config.of(**SMALL, split="global-time"), tmp_path / "run", device="cpu")
    with pytest.raises(BadInput, match="'text', which was not given"):
        fit(split.log, Config.of(**SMALL, items="id+text"), tmp_path / "run", device="cpu")
    with pytest.raises(BadInput, match="unknown device"):
        pick_device("gpuu")
    with pytest.raises(BadInput, match="'cuda:99' is not there"):
        pick_device("cuda:99")
    assert not (tmp_path / "run").exists()


def test_popular_negatives_are_drawn_by_count_and_shared_ones_once_a_batch() -> None:
    counts = np.array([0, 10, 30])
    config = Config.of(loss="bce", negatives=4000, negative_power=1.0, width=4, heads=1)
    torch.manual_seed(0)
    objective = NextItem(build(config, counts), config, counts)
    drawn = objective.sample(7, torch.device("cpu"))
    assert drawn.shape == (4000,)
    shares = torch.bincount(drawn, minlength=3) / 4000
    assert shares.tolist() == pytest.approx([0, 0.25, 0.75], abs=0.03)
    apart = NextItem(build(config, counts), config.model_copy(update={"share_negatives": False}), counts)
    assert apart.sample(7, torch.device("cpu")).shape == (7, 4000)


def test_cosine_scores_are_bounded_by_the_temperature() -> None:
    split = ring()
    torch.manual_seed(0)
    config = Config.of(**SMALL, cosine=True, temperature=0.1)
    model = build(config, split.counts)
    scores = scorer(model, split, "valid")(np.arange(5))
    assert np.abs(scores).max() <= 10.0001
    np.testing.assert_allclose(np.linalg.norm(model.item_vectors(), axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("tower", ["sum", "init"])
def test_what_ids_alone_cannot_know_comes_last_whatever_the_loss_did_to_the_others(tower: str) -> None:
    split = hide_items(ring(users=40), 0.2)
    text = Vectors(
        np.random.default_rng(0).normal(size=(split.log.n_items, 8)).astype(np.float32), split.counts >= 0
    )
    config = Config.of(**SMALL, tower=tower, items="id" if tower == "sum" else "id+text")
    torch.manual_seed(0)
    model = build(config, split.counts, {"text": text})
    users = split.users("test")[:7]
    scores = scorer(model, split, "test")(users)
    np.testing.assert_allclose(scores, scores_of(model, split, "test")(users), rtol=1e-5)
    if tower == "init":  # what an item began with tells something of it
        assert np.isfinite(scores).all()
        return
    assert (scores[:, split.is_hidden] == -np.inf).all()
    assert np.isfinite(scores[:, ~split.is_hidden]).all()
    new = np.isin(split.targets("test"), split.hidden)
    result = evaluate(scorer(model, split, "test"), split, "test", (1,), lists=False)
    known = result.candidates - len(split.hidden)  # at least so many stand before a new one
    assert (result.ranks > known)[new].all()
    assert not (result.ranks > known)[~new].all()


def test_answering_leaves_a_model_in_the_mode_it_was_in() -> None:
    split = ring()
    model = build(Config.of(**SMALL), split.counts).train()
    one = scorer(model, split, "valid")(np.arange(5))
    assert model.training
    np.testing.assert_array_equal(one, scorer(model, split, "valid")(np.arange(5)))  # no dropout in it


def test_a_user_is_answered_alone_as_in_company() -> None:
    split = ring(users=40)
    model = build(Config.of(**SMALL), split.counts)
    users = split.users("test")
    starts, ends = split.history(users, "test")
    together = model.user_vectors(split.log.items, starts, ends)
    alone = [model.user_vectors(split.log.items, starts[i : i + 1], ends[i : i + 1])[0] for i in range(40)]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_the_log_alone_is_split_as_the_configuration_says(tmp_path: Path) -> None:
    log = ring().log
    assert isinstance(log, EventLog)
    run = fit(log, Config.of(**(SMALL | {"epochs": 1, "k_core": (5, 2)})), tmp_path / "run", device="cpu")
    assert run.about["split"]["name"] == "leave-one-out"
    assert run.about["split"]["users"] < 60
    assert len(TrainingBatches(ring(), length=10, batch=16, seed=0)) == 4


@dataclass
class Matrix:
    """What training reads of a published feature."""

    ids: np.ndarray
    values: np.ndarray
    offsets: np.ndarray | None = None


class Published:
    """What training reads of a release: here with an item more than the log has, and one without a vector."""

    name = "0007"

    def __init__(self, split: Split) -> None:
        log = split.log
        self.log, self.ids = log, np.append(log.item_ids, "zz-new")
        values = np.random.default_rng(0).normal(size=(len(self.ids) - 1, 6)).astype(np.float32)
        self.matrices = {
            "text": Matrix(self.ids[1:], values),
            "tokens": Matrix(self.ids[1:], values, np.arange(len(self.ids))),
        }

    def events(self) -> pa.Table:
        places = np.arange(len(self.log))
        return pa.table(
            {
                "user_id": self.log.user_ids[self.log.users],
                "item_id": self.log.item_ids[self.log.items],
                "position": places,
            }
        )

    def matrix(self, name: str) -> Matrix:
        return self.matrices[name]


def test_a_run_learns_from_a_release_by_item_id_and_names_it(tmp_path: Path) -> None:
    split = ring()
    release = Published(split)
    run = fit(release, Config.of(**SMALL, items="id+text"), tmp_path / "run", device="cpu")
    assert run.release == "0007"
    assert run.split_hash == split.hash
    text = release.matrix("text")
    rows = {item: text.values[place] for place, item in enumerate(text.ids)}
    given = np.array([rows.get(item, np.zeros(6)) for item in split.log.item_ids], dtype=np.float32)
    aligned = {"text": Vectors(given, np.array([item in rows for item in split.log.item_ids]))}
    direct = fit(split, run.config, tmp_path / "direct", features=aligned, device="cpu")
    assert same(weights(run), weights(direct))
    model = run.load_model(features=aligned)
    new = model.new_item_vectors({"text": Vectors.aligned(text.ids, text.values, ["zz-new"])})
    assert new.shape == (1, 16)


def test_a_feature_of_several_vectors_an_item_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="several vectors an item"):
        fit(Published(ring()), Config.of(**SMALL, items="tokens"), tmp_path / "run", device="cpu")


def test_recommender_trains_without_lancedb_lance_or_duckdb(tmp_path: Path) -> None:
    code = f"""
        import sys
        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("lancedb", "lance", "pylance", "duckdb"):
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Blocked())
        import importlib, pkgutil, recommender
        for found in pkgutil.walk_packages(recommender.__path__, "recommender."):
            importlib.import_module(found.name)
        from recommender.config import Config
        from recommender.fit import fit
        from tests.recommender.learning import ring
        run = fit(ring(), Config.of(**{SMALL | {"epochs": 1}}), {str(tmp_path / "run")!r}, device="cpu")
        run.load_model()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).parents[2], check=True)
