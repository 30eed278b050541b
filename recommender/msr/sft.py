"""Fine-tuning a model to answer yes or no, by the one trainer: examples and options in, a run of kind "msr" out.

The target of an example is its answer's token at the place where the ranker reads it (`loss_on = "answer"`), so what is
trained is what is used. Only adapters are trained, kept in checkpoints, and saved.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from featurestore.errors import BadInput, Conflict
from recommender import checkpoint, metrics
from recommender.fit import pick_device
from recommender.msr import lora, models
from recommender.msr.config import MsrConfig
from recommender.msr.examples import Example, digest
from recommender.msr.prompt import Batch, Prompt
from recommender.msr.ranker import Ranker, arithmetic, at_last
from recommender.runs import MSR, PAIRS, Run, allot
from recommender.trainer import Plan, Progressed, Row, Trainer

if TYPE_CHECKING:
    from recommender.msr.pairs import Pairs

MAY_CHANGE = ("epochs", "patience", "save_every")  # options that a resumed run may be given anew
TIMED, TIMED_SECONDS = 6, 20.0  # batches of a rehearsal, and seconds after which it ends
LOOKED_AT = 8  # examples with pictures, and so many without, that are tried before training begins
IGNORED = -100  # a target that cross-entropy leaves out
Beat = Callable[[int, int], None]


@dataclass(frozen=True)
class Questions:
    """Examples that become a batch once they are needed: what a checkpoint has seen is passed over for nothing."""

    examples: Sequence[Example]
    prompt: Prompt

    def to(self, device: torch.device) -> tuple[Batch, Tensor]:
        """(the batch, (n,) ids of the answers). Raises BadInput naming an example that does not fit."""
        rows = [self.prompt.encode(e.preference, e.candidate, e.name) for e in self.examples]
        answers = [self.prompt.yes if e.label else self.prompt.no for e in self.examples]
        return self.prompt.collate(rows).to(device), torch.tensor(answers, device=device)


class Examples:
    """Examples in another order each epoch, a function of seed and epoch alone."""

    def __init__(self, examples: Sequence[Example], prompt: Prompt, batch: int, seed: int) -> None:
        self.examples, self.prompt, self.batch, self.seed = examples, prompt, batch, seed

    def __len__(self) -> int:
        return math.ceil(len(self.examples) / self.batch)

    def epoch(self, number: int) -> Iterator[Questions]:
        order = np.random.default_rng([self.seed, number]).permutation(len(self.examples)).tolist()
        for start in range(0, len(order), self.batch):
            yield Questions([self.examples[row] for row in order[start : start + self.batch]], self.prompt)


class Answering(nn.Module):
    """The objective: cross-entropy of the answer's token over the whole vocabulary, the mean over examples.

    With loss_on "all" an example's loss is the mean over its tokens, so that examples count alike however long they
    are and however they are batched; the places of pictures have no target. `right`: share of examples whose own
    answer is likelier than the other.
    """

    def __init__(self, model: Any, prompt: Prompt, config: MsrConfig) -> None:
        super().__init__()
        self.model, self.prompt, self.all = model, prompt, config.loss_on == "all"
        if config.checkpointing:
            # transformers 5.23 gave it another name
            name = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
            how = {f"{name}_checkpointing_kwargs": {"use_reentrant": False}}
            getattr(model, f"{name}_checkpointing_enable")(**how)

    def train(self, mode: bool = True) -> Answering:
        """Frozen parts do not train: no dropout, no running statistics."""
        super().train(mode)
        self.model.eval()
        self.model.get_decoder().train(mode)
        for tower in lora.towers(self.model):
            self.model.get_submodule(tower).eval()
        return self

    def forward(self, asked: tuple[Batch, Tensor]) -> dict[str, Tensor]:
        batch, answers = asked
        if self.all:
            with arithmetic(self.model):
                logits = self.model(**batch.inputs, use_cache=False).logits.float()
            final = logits[torch.arange(len(answers)), batch.last]
            loss = every_token(logits, self._targets(batch, answers))
        else:
            with arithmetic(self.model):
                final = at_last(self.model, batch.inputs, batch.last, use_cache=False)
            loss = cross_entropy(final, answers)
        pair = final.detach()[:, [self.prompt.yes, self.prompt.no]]
        said_yes, is_yes = pair[:, 0] > pair[:, 1], answers == self.prompt.yes
        return {"loss": loss, "right": (said_yes == is_yes).float().mean()}

    def _targets(self, batch: Batch, answers: Tensor) -> Tensor:
        """(n, L) the token after each place, the answer after the last; IGNORED where there is none to learn."""
        ids = batch.inputs["input_ids"]
        targets = torch.full_like(ids, IGNORED)
        targets[:, :-1] = ids[:, 1:]
        place = torch.arange(ids.shape[1], device=ids.device)
        targets[place >= batch.last[:, None]] = IGNORED
        for token in self.prompt.image_tokens:
            targets[targets == token] = IGNORED
        targets[torch.arange(len(ids)), batch.last] = answers
        return targets


def every_token(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over rows of the mean cross-entropy over a row's targets. logits: (n, L, v); targets: (n, L)."""
    each = cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
    return (each.sum(dim=1) / (targets != IGNORED).sum(dim=1)).mean()


def train(
    store: Any,
    config: MsrConfig,
    examples: Sequence[Example],
    *,
    valid: Sequence[Example] = (),
    folder: str | Path | None = None,
    release: str | None = None,
    pairs: Pairs | None = None,
    device: str = "auto",
    progress: Callable[[Row], None] | None = None,
    beat: Beat | None = None,
) -> Run:
    """Fine-tune, and leave a run of kind "msr".

    store: a Store, or the folder of one. examples: to learn from, in any order. valid: to choose the epoch by, by
    pooled AUC, several rows of one user together; without any the last epoch is kept. folder: where to, by default the
    next free name under `STORE/runs`; a run that is there goes on from its last checkpoint and must have the same
    examples and options (but for epochs, patience and save_every). release: that the examples were made of. pairs:
    that they are; kept with the run. progress: called with a row an epoch; beat: with place and number of batches.

    Raises BadInput for unusable examples (naming one that does not fit), Conflict for a run of other ones,
    ModelUnavailable, TrainingError where the loss is no number.
    """
    root = Path(store if isinstance(store, str | Path) else store.root)
    _check(examples, valid)
    place = pick_device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        loaded = _adapted(root, config, place)
        # what was left to the model is written down as it came out
        dtype = str(loaded.model.dtype).removeprefix("torch.")
        config = config.model_copy(update={"image": loaded.prompt.sees, "dtype": dtype})
        _fits(loaded.prompt, [*examples, *valid])
        folder = Path(folder) if folder is not None else allot(root, config.slug)
        run = _open(folder, config, examples, valid, loaded, release, pairs, str(place))
        trainer = trainer_of(loaded, config, examples, valid, folder / "checkpoint")
        trainer.resume()

        def told(at: Progressed, row: Row) -> None:
            _record(run, at, loaded, finished=trainer.done)
            if progress is not None:
                progress(row)

        at = trainer.run(told, beat)
        _record(run, at, loaded, finished=True)
    return run


@dataclass(frozen=True)
class Rehearsal:
    """What a fine-tuning would be. learned: weights of the adapters, of `parameters` in all. tokens: of the examples
    that were looked at, the mean and the most. batch_seconds: mean of `timed` batches that were really learned from,
    after a first one; None where there was but one. Validation is not in it.
    """

    parameters: int
    learned: int
    layers: int
    tokens_mean: float
    tokens_most: int
    batches: int  # an epoch
    steps: int
    timed: int
    batch_seconds: float | None


def rehearse(
    store: Any,
    config: MsrConfig,
    examples: Sequence[Example],
    *,
    valid: Sequence[Example] = (),
    device: str = "auto",
) -> Rehearsal:
    """Load what `train` would train and learn from a few batches; nothing is kept. Raises as `train` does."""
    root = Path(store if isinstance(store, str | Path) else store.root)
    _check(examples, valid)
    place = pick_device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        loaded = _adapted(root, config, place, read_only=True)
        _fits(loaded.prompt, [*examples, *valid])
        objective = Answering(loaded.model, loaded.prompt, config).train()
        batches = Examples(examples, loaded.prompt, config.batch, config.seed)
        taken, lengths = [], []
        for questions in itertools.islice(batches.epoch(1), TIMED):
            begun = time.perf_counter()
            asked = questions.to(place)
            loss = objective(asked)["loss"]
            loss.backward()
            float(loss.detach())  # waits for an accelerator
            taken.append(time.perf_counter() - begun)
            lengths += (asked[0].last + 2).tolist()
            if sum(taken) > TIMED_SECONDS:
                break
    learned = lora.weights(loaded.model)
    return Rehearsal(
        parameters=sum(weight.numel() for weight in loaded.model.parameters()),
        learned=sum(weight.numel() for weight in learned),
        layers=len(learned) // 2,
        tokens_mean=float(np.mean(lengths)),
        tokens_most=max(lengths),
        batches=len(batches),
        steps=math.ceil(len(batches) / config.accumulate),
        timed=len(taken) - 1,
        batch_seconds=float(np.mean(taken[1:])) if len(taken) > 1 else None,
    )


def _adapted(root: Path, config: MsrConfig, place: torch.device, *, read_only: bool = False) -> models.Loaded:
    """The model with fresh adapters, drawn from the seed."""
    found = models.resolve(root, config.model, read_only=read_only)
    torch.manual_seed(config.seed)
    loaded = models.load(found.folder, config, str(place), found.ref)
    lora.add(
        loaded.model, rank=config.rank, alpha=config.alpha, dropout=config.dropout, targets=config.targets
    )
    return loaded


def trainer_of(
    loaded: models.Loaded,
    config: MsrConfig,
    examples: Sequence[Example],
    valid: Sequence[Example],
    folder: Path,
) -> Trainer:
    """The trainer of a model that has its adapters."""
    learned = lora.weights(loaded.model)
    fused = learned[0].device.type in ("cpu", "cuda")
    plan = Plan(
        epochs=config.epochs,
        patience=config.patience or config.epochs,
        eval_every=config.eval_every if valid else 1,
        warmup=config.warmup,
        schedule=config.schedule,
        clip=config.clip,
        monitor="auc" if valid else "epochs",
        accumulate=config.accumulate,
        save_every=config.save_every,
    )
    trainer = Trainer(
        Answering(loaded.model, loaded.prompt, config),
        loaded.model,
        torch.optim.AdamW(learned, lr=config.lr, weight_decay=config.weight_decay, fused=fused),
        Examples(examples, loaded.prompt, config.batch, config.seed),
        # with nothing to choose by, each epoch is better than the one before
        lambda: validation(loaded, valid) if valid else {"epochs": float(trainer.at.epoch)},
        plan,
        folder,
    )
    return trainer


def validation(loaded: models.Loaded, valid: Sequence[Example]) -> Mapping[str, float]:
    """{"auc": pooled over all examples}."""
    scores = Ranker(loaded.model, loaded.prompt).score_examples(valid)
    labels = np.array([example.label for example in valid])
    return {"auc": metrics.pooled_auc(scores[labels], scores[~labels])}


def _check(examples: Sequence[Example], valid: Sequence[Example]) -> None:
    for name, some in (("to learn from", examples), ("to validate on", valid)):
        if some is valid and not some:
            continue
        labels = {example.label for example in some}
        if len(labels) < 2:
            told = f"only '{'yes' if labels.pop() else 'no'}'" if labels else "none"
            raise BadInput(
                f"of the examples {name} there must be some of either answer; there is {told}",
                remedy="draw pairs with negatives",
            )


def _fits(prompt: Prompt, examples: Sequence[Example]) -> None:
    """Raises BadInput now, not after hours, if one of the largest, with a picture or without, does not fit."""

    def size(example: Example) -> int:
        return len(example.candidate.text) + len(example.candidate.summary or "")

    for seen in (False, True):
        alike = [each for each in examples if (each.candidate.picture is not None) == seen]
        for example in sorted(alike, key=size)[-LOOKED_AT:]:
            prompt.encode("", example.candidate, example.name)


def _open(
    folder: Path,
    config: MsrConfig,
    examples: Sequence[Example],
    valid: Sequence[Example],
    loaded: models.Loaded,
    release: str | None,
    pairs: Pairs | None,
    device: str,
) -> Run:
    """The run to go on with, checked to be of the same options and examples, or a new one."""
    assert loaded.ref is not None
    model = loaded.ref.model_dump(mode="json")
    hashes = {"learnt": digest(examples), "valid": digest(valid)}
    if not (folder / "run.json").exists():
        items, counts = _vocabulary(examples)
        split = {"name": "examples", "hash": hashes["learnt"], "description": "examples that were given"}
        if pairs is not None:
            folder.mkdir(parents=True, exist_ok=True)
            pairs.save(folder / PAIRS)
            split = {"name": pairs.options.split, "hash": pairs.hash, "description": pairs.description}
        numbers = {"examples": len(examples), "valid_examples": len(valid)}
        about = {"model": model, "examples": hashes}
        return Run.write(
            folder, MSR, config, items, counts, split | numbers, release=release, device=device, **about
        )
    run = Run(folder)
    run.check(MSR)
    then, now = run.options.model_dump(), config.model_dump()
    changed = [name for name in now if now[name] != then[name] and name not in MAY_CHANGE]
    if changed:
        told = ", ".join(f"{name} was {then[name]!r}, is {now[name]!r}" for name in changed)
        raise Conflict(
            f"run {run.name} cannot go on with other options: {told}", remedy="start a new run for those"
        )
    if run.about["model"] != model:
        raise Conflict(
            f"run {run.name} was begun with other weights than {config.model} holds now",
            remedy="put those back, or start a new run",
        )
    if run.about["examples"] != hashes:
        raise Conflict(
            f"run {run.name} learnt from other examples than these",
            remedy="resume it with the release, pairs and preferences that it began with",
        )
    run.set_config(config)
    return run


def _vocabulary(examples: Sequence[Example]) -> tuple[Any, Any]:
    """Sorted ids of all candidates, and how often each was taken."""
    items = np.unique(np.array([example.candidate.item for example in examples], dtype=np.str_))
    taken = np.array([example.candidate.item for example in examples if example.label], dtype=np.str_)
    return items, np.bincount(np.searchsorted(items, taken), minlength=len(items)).astype(np.int64)


def _record(run: Run, at: Progressed, loaded: models.Loaded, *, finished: bool) -> None:
    run.write_history(at.rows)
    best: Row = next((row for row in at.rows if row["epoch"] == at.best_epoch), {})
    valid = {"auc": best["valid_auc"]} if "valid_auc" in best else {}
    run.write_metrics(epochs=at.epoch, best_epoch=at.best_epoch or None, finished=finished, valid=valid)
    if at.best_epoch and (finished or at.best_epoch == at.epoch):
        tensors, _ = checkpoint.load(run.folder / "checkpoint" / checkpoint.BEST)
        weights = checkpoint.under("model", tensors)
        lora.save(loaded.model, run.folder / lora.FOLDER, weights, run.options.model)
