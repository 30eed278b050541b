"""The one trainer: it minimises any objective, keeps what validates best, and can be killed at any moment.

Two decisions. An epoch's batches depend on its number alone and everything else that changes is in one checkpoint, so a
run that was killed and resumed ends, on a CPU, with the same bits as one that was not. And the trainer knows nothing
of what it trains: batches in, named losses out, one figure to keep the best by. Weights that are frozen are neither
averaged nor saved: whoever froze them has them.
"""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from featurestore.errors import BadInput, DualviewError
from recommender import checkpoint

Row = dict[str, Any]


class TrainingError(DualviewError):
    """The loss is no longer a number."""

    code = "training_failed"


class Batches(Protocol):
    """Anything that gives the batches of an epoch, the same ones each time it is asked for the same epoch."""

    def __len__(self) -> int: ...

    def epoch(self, number: int) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Plan:
    """How long to train and what to keep. `monitor` is a key of what `validate` returns; higher is better."""

    epochs: int
    patience: int
    eval_every: int = 1
    warmup: int = 0
    schedule: str = "constant"
    clip: float | None = None
    average: float = 0.0
    monitor: str = "ndcg@10"
    accumulate: int = 1  # batches a step; an epoch's last step may be of fewer
    save_every: int = 0  # batches between checkpoints inside an epoch, rounded up to whole steps; 0: none


@dataclass
class Progressed:
    """Where training stands; all of it is kept in a checkpoint. place, sums and both seconds: of the epoch that was
    begun.
    """

    epoch: int = 0
    step: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    misses: int = 0
    rows: list[Row] = field(default_factory=list)
    place: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Trainer:
    """Minimises `objective(batch)["loss"]` over batches, and validates.

    kept: the part of the objective whose weights are the result. folder: where last.safetensors and
    best.safetensors go.
    """

    def __init__(
        self,
        objective: nn.Module,
        kept: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: Batches,
        validate: Callable[[], Mapping[str, float]],
        plan: Plan,
        folder: Path,
    ) -> None:
        self.objective, self.kept, self.optimizer, self.batches = objective, kept, optimizer, batches
        self.validate, self.plan, self.folder = validate, plan, folder
        self.at = Progressed()
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._weights: list[Tensor] = [each for each in objective.parameters() if each.requires_grad]
        self._average = [weight.detach().clone() for weight in self._weights] if plan.average else []
        self.device = self._weights[0].device

    @property
    def done(self) -> bool:
        return self.at.epoch >= self.plan.epochs or self.at.misses >= self.plan.patience

    @property
    def steps_an_epoch(self) -> int:
        return math.ceil(len(self.batches) / self.plan.accumulate)

    def run(
        self, told: Callable[[Progressed, Row], None], beat: Callable[[int, int], None] | None = None
    ) -> Progressed:
        """Train until the plan is done. `told` is called after each epoch, once its checkpoint is safe; `beat` after
        each batch, with its place in the epoch and how many there are.
        """
        while not self.done:
            row = self._epoch(beat or (lambda place, total: None))
            best = False
            if self.at.epoch % self.plan.eval_every == 0 or self.at.epoch == self.plan.epochs:
                best = self._validate(row)
            self.at.rows.append(row)
            if best:
                checkpoint.save(self.folder / checkpoint.BEST, self._result(), {"epoch": self.at.epoch})
            self.save()
            told(self.at, row)
        return self.at

    def _epoch(self, beat: Callable[[int, int], None]) -> Row:
        begun, cpu_begun = time.perf_counter() - self.at.seconds, time.process_time() - self.at.cpu_seconds
        number, total, saved = self.at.epoch + 1, len(self.batches), self.at.place
        self.objective.train()
        sums: dict[str, Tensor | float] = dict(self.at.sums)
        for place, batch in enumerate(self.batches.epoch(number), start=1):
            if place <= saved:
                continue  # learned before the checkpoint that this went on from
            terms = self.objective(batch.to(self.device))
            if not math.isfinite(value := float(terms["loss"].detach())):
                raise TrainingError(
                    f"the loss is {value} in epoch {number}, batch {place} of {total}",
                    remedy="lower lr, set clip, or look for extreme values in the features",
                )
            self._learn(terms["loss"], place, total)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term.detach().double()
            beat(place, total)
            stepped = place % self.plan.accumulate == 0
            if self.plan.save_every and stepped and place - self.at.place >= self.plan.save_every:
                self.at.place, self.at.seconds = place, time.perf_counter() - begun
                self.at.cpu_seconds = time.process_time() - cpu_begun
                self.at.sums = {name: float(each) for name, each in sums.items()}
                self.save()
        self.at.epoch, self.at.place, self.at.sums, self.at.seconds, self.at.cpu_seconds = (
            number,
            0,
            {},
            0.0,
            0.0,
        )
        give_memory_back()
        row = {"epoch": number} | {name: float(each) / total for name, each in sums.items()}
        row["seconds"] = round(time.perf_counter() - begun, 2)
        if self.device.type == "cpu":  # of all threads; other work on the machine does not count in it
            row["cpu_seconds"] = round(time.process_time() - cpu_begun, 3)
        return row

    def _learn(self, loss: Tensor, place: int, total: int) -> None:
        """Gradients of a batch, and a step once as many batches as make one have theirs; each counts alike."""
        size = self.plan.accumulate
        first = (place - 1) // size * size
        if place == first + 1:
            self.optimizer.zero_grad(set_to_none=True)
        share = loss if size == 1 else loss / min(size, total - first)
        share.backward()  # type: ignore[no-untyped-call]
        if place % size and place < total:
            return
        self._set_rates()
        if self.plan.clip is not None:
            nn.utils.clip_grad_norm_(self._weights, self.plan.clip)
        self.optimizer.step()
        self.at.step += 1
        self._follow()

    def _set_rates(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.rate_at(self.at.step)

    def rate_at(self, step: int) -> float:
        """Share of the learning rate at a step (from 0): a linear rise, then constant or half a cosine to 0."""
        rise = min(1.0, (step + 1) / self.plan.warmup) if self.plan.warmup else 1.0
        if self.plan.schedule == "constant":
            return rise
        total = max(self.plan.epochs * self.steps_an_epoch - self.plan.warmup, 1)
        return rise * 0.5 * (1 + math.cos(math.pi * min(max(step - self.plan.warmup, 0) / total, 1.0)))

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights; early on faster, so that the start is soon forgotten."""
        if self.plan.average:
            keep = min(self.plan.average, (1 + self.at.step) / (10 + self.at.step))
            torch._foreach_lerp_(self._average, self._weights, 1 - keep)

    @torch.no_grad()
    def _exchange(self) -> None:
        """Swap weights and their average; twice is as before."""
        for weight, mean in zip(self._weights, self._average, strict=False):
            held = weight.clone()
            weight.copy_(mean)
            mean.copy_(held)

    def _validate(self, row: Row) -> bool:
        begun, cpu_begun = time.perf_counter(), time.process_time()
        self._exchange()
        self.objective.eval()
        found = dict(self.validate())
        self._exchange()
        value = found[self.plan.monitor]
        if not math.isfinite(value):
            raise BadInput(
                f"validation found {self.plan.monitor} = {value}",
                remedy="check that users have a validation target",
            )
        best = value > self.at.best
        if best:
            self.at.best, self.at.best_epoch, self.at.misses = value, self.at.epoch, 0
        else:
            self.at.misses += 1
        row |= {f"valid_{name}": number for name, number in found.items()}
        row |= {"best": best, "valid_seconds": round(time.perf_counter() - begun, 2)}
        if self.device.type == "cpu":
            row["valid_cpu_seconds"] = round(time.process_time() - cpu_begun, 3)
        return best

    def _result(self) -> dict[str, Tensor]:
        self._exchange()
        weights = {f"model.{name}": tensor.detach().clone() for name, tensor in learned(self.kept).items()}
        self._exchange()
        return weights

    def save(self) -> None:
        """Everything that the next epoch depends on, as one file."""
        tensors = {f"objective.{name}": tensor for name, tensor in learned(self.objective).items()}
        tensors |= {f"average.{place}": tensor for place, tensor in enumerate(self._average)}
        tensors |= {f"optimizer.{k}": v for k, v in checkpoint.optimizer_tensors(self.optimizer).items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        state = vars(self.at) | {"best": None if math.isinf(self.at.best) else self.at.best}
        checkpoint.save(self.folder / checkpoint.LAST, tensors, state)

    def resume(self) -> bool:
        """Go back to the last checkpoint. False where there is none."""
        path = self.folder / checkpoint.LAST
        if not path.exists():
            return False
        tensors, state = checkpoint.load(path)
        put_back(self.objective, checkpoint.under("objective", tensors))
        for place, mean in enumerate(self._average):
            mean.copy_(tensors[f"average.{place}"])
        checkpoint.restore_optimizer(self.optimizer, checkpoint.under("optimizer", tensors))
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        self.at = Progressed(**(state | {"best": -math.inf if state["best"] is None else state["best"]}))
        return True


def learned(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module without its frozen weights."""
    frozen = _frozen(module)
    return {name: tensor for name, tensor in module.state_dict().items() if name not in frozen}


def put_back(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """The reverse of `learned`; frozen weights stay as they are. Raises RuntimeError where names do not fit."""
    missing, foreign = module.load_state_dict(state, strict=False)
    if foreign or set(missing) - _frozen(module):
        raise RuntimeError(f"a checkpoint of another model: {foreign or missing}")


def _frozen(module: nn.Module) -> set[str]:
    named = module.named_parameters(remove_duplicate=False)  # tied weights have two names
    return {name for name, weight in named if not weight.requires_grad}


def give_memory_back() -> None:
    """Have the C library return what it holds free.

    Batches are of many sizes, and glibc keeps the holes between them: 250 MB more an epoch on ML-1M, for good.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
