"""Training a recommender: from events and options to a run.

Tuning has no handle on the test set: training validates, `evaluate` opens the test.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from featurestore.errors import BadInput, Conflict
from recommender import data, leaks, objectives
from recommender import model as models
from recommender.config import Config
from recommender.evaluate import evaluate
from recommender.items import Stored
from recommender.model import SequentialModel, scorer
from recommender.runs import Run
from recommender.sequences import TrainingBatches
from recommender.splits import Split
from recommender.trainer import Plan, Progressed, Row, Trainer

Progress = Callable[[Row], None]
MAY_CHANGE = ("epochs", "patience")  # options that a resumed run may be given anew
TIMED = 5  # steps that a rehearsal times, at most
TIMED_SECONDS = 5.0


def pick_device(name: str) -> torch.device:
    """A device by its name; "auto" is the first CUDA device, else Apple's, else the CPU."""
    if name != "auto":
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise BadInput(f"unknown device '{name}'", remedy="auto, cpu, cuda, cuda:1 or mps") from error
        there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
        if (device.index or 0) >= there.get(device.type, 0):
            raise BadInput(f"device '{name}' is not there", remedy="leave device at auto, or use cpu")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def adamw(model: SequentialModel, config: Config) -> torch.optim.Optimizer:
    """AdamW with rates and decay apart for ids, adapters and backbone.

    Vectors (biases, norms, scales) never decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if name.startswith("tower.ids."):
            key = (config.lr_ids or config.lr, config.weight_decay_ids if weight.dim() > 1 else 0.0)
        elif name.startswith("tower."):
            key = (config.lr_features or config.lr, config.weight_decay if weight.dim() > 1 else 0.0)
        else:
            key = (config.lr, config.weight_decay if weight.dim() > 1 else 0.0)
        groups.setdefault(key, []).append(weight)
    given = [
        {"params": weights, "lr": rate, "weight_decay": decay} for (rate, decay), weights in groups.items()
    ]
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.AdamW(given, betas=config.betas, fused=fused)


def validation(model: SequentialModel, split: Split, config: Config) -> dict[str, float]:
    """HR, NDCG and MRR at 10 of the validation targets, ranked against all items."""
    result = evaluate(scorer(model, split, "valid"), split, "valid", (10,), repeat=config.repeat, lists=False)
    return {f"{name}@10".lower(): result.metrics[f"{name}@10"] for name in ("HR", "NDCG", "MRR")}


def fit(
    source: Any,
    config: Config,
    folder: str | Path,
    *,
    features: Mapping[str, Stored] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    resume: bool = True,
) -> Run:
    """Train a recommender and leave a run in `folder`.

    source: a Release, an EventLog or a Split. features: stored vectors over the split's items, needed where
    `config.items` names features and the source is no Release. progress: called with each row of the history.
    resume: go on from the folder's last checkpoint, if there is one; its options must be the same but for
    epochs and patience.

    Raises TrainingError, naming epoch and batch, where the loss is no number.
    """
    folder = Path(folder)
    split, features = _material(source, config, features)
    place, release = pick_device(device), getattr(source, "name", None) if hasattr(source, "matrix") else None
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(config.seed)
        model = models.build(config, split.counts, features).to(place)
        run = _open(folder, config, split, release, place, resume)
        trainer = Trainer(
            objectives.build(model, config, split, features).to(place),
            model,
            adamw(model, config),
            _batches(split, config, model),
            lambda: validation(model, split, config),
            Plan(
                epochs=config.epochs,
                patience=config.patience,
                eval_every=config.eval_every,
                warmup=config.warmup,
                schedule=config.schedule,
                clip=config.clip,
                average=config.average,
            ),
            folder / "checkpoint",
        )
        if resume:
            trainer.resume()

        def told(at: Progressed, row: Row) -> None:
            _record(run, at, finished=trainer.done)
            if progress is not None:
                progress(row)

        at = trainer.run(told)
        _record(run, at, finished=True)
    return run


def _material(
    source: Any, config: Config, features: Mapping[str, Stored] | None
) -> tuple[Split, Mapping[str, Stored] | None]:
    """The split and the stored vectors to train on. Raises BadInput where no epoch could be chosen."""
    split = data.split_of(source, config)
    if not len(split.users("valid")):
        raise BadInput(
            "no user has a validation target, so no epoch can be chosen",
            remedy="users need three events (leave-one-out), or choose another split",
        )
    leaks.check(source, config, split)
    if features is None and config.features:
        features = data.features_of(source, config, split.log.item_ids) if hasattr(source, "matrix") else {}
    return split, features


def _batches(split: Split, config: Config, model: SequentialModel) -> TrainingBatches:
    return TrainingBatches(
        split, length=model.backbone.reads, batch=config.batch, seed=config.seed, windows=config.windows
    )


@dataclass(frozen=True)
class Rehearsal:
    """What a training would be. step_seconds: mean of `timed` steps that were really made, after a first one;
    validation is not in it.
    """

    split: Split
    parameters: int
    steps: int  # an epoch
    timed: int
    step_seconds: float


def rehearse(source: Any, config: Config, *, device: str = "auto") -> Rehearsal:
    """Build what `fit` would train and make a few steps with it; nothing is kept. Raises as `fit` does."""
    split, features = _material(source, config, None)
    place = pick_device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(config.seed)
        model = models.build(config, split.counts, features).to(place)
        objective, optimizer = (
            objectives.build(model, config, split, features).to(place),
            adamw(model, config),
        )
        batches = _batches(split, config, model)
        taken: list[float] = []
        for batch in itertools.islice(batches.epoch(1), 1 + TIMED):
            begun = time.perf_counter()
            loss = objective(batch.to(place))["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            float(loss.detach())  # waits for an accelerator
            taken.append(time.perf_counter() - begun)
            if sum(taken) > TIMED_SECONDS:
                break
    timed = taken[1:] or taken
    parameters = sum(weight.numel() for weight in model.parameters())
    return Rehearsal(split, parameters, len(batches), len(timed), sum(timed) / len(timed))


def _record(run: Run, at: Progressed, *, finished: bool) -> None:
    run.write_history(at.rows)
    best: Row = next((row for row in at.rows if row["epoch"] == at.best_epoch), {})
    valid = {
        n.removeprefix("valid_"): v
        for n, v in best.items()
        if n.startswith("valid_") and n not in ("valid_seconds", "valid_cpu_seconds")
    }
    run.write_metrics(epochs=at.epoch, best_epoch=at.best_epoch or None, finished=finished, valid=valid)


def _open(
    folder: Path, config: Config, split: Split, release: str | None, device: torch.device, resume: bool
) -> Run:
    """The run to go on with, checked to be of the same options and data, or a new one."""
    if not (folder / "run.json").exists():
        return Run.begin(folder, config, split, release=release, device=str(device))
    run = Run(folder)
    if not resume:
        raise Conflict(f"{folder} holds a run already", remedy="resume it, or train into a new folder")
    then, now = run.config.model_dump(), config.model_dump()
    changed = [name for name in now if now[name] != then[name] and name not in MAY_CHANGE]
    if changed:
        told = ", ".join(f"{name} was {then[name]!r}, is {now[name]!r}" for name in changed)
        raise Conflict(
            f"run {run.name} cannot go on with other options: {told}", remedy="start a new run for those"
        )
    if run.split_hash != split.hash:
        raise Conflict(
            f"run {run.name} learnt from other events than these",
            remedy="resume it on the release that it names",
        )
    run.set_config(config)
    return run
