"""Steps of several batches, checkpoints inside an epoch, and frozen weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recommender import checkpoint
from recommender.trainer import Plan, Trainer


class Line(nn.Module):
    """Learns the mean of what it is shown; `given` is frozen, and the weight drops out at random."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.given = nn.Parameter(torch.ones(3), requires_grad=False)
        self.dropout = nn.Dropout(0.5)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        loss = ((self.dropout(self.weight * self.given) - batch) ** 2).mean()
        return {"loss": loss, "size": torch.tensor(float(len(batch)))}


class Batches:
    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def epoch(self, number: int) -> Iterator[Tensor]:
        drawn = torch.Generator().manual_seed(number)
        for size in self.sizes:
            yield torch.randn(size, 3, generator=drawn)


def trainer(folder: Path, sizes: tuple[int, ...] = (1,) * 5, rate: float = 0.1, **plan: Any) -> Trainer:
    model = Line()
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    return Trainer(
        model,
        model,
        torch.optim.SGD(learned, lr=rate, momentum=0.9),
        Batches(sizes),
        lambda: {"good": 1.0},
        Plan(epochs=2, patience=9, monitor="good", **plan),
        folder,
    )


def weight(made: Trainer) -> Tensor:
    found = made.kept.weight
    assert isinstance(found, Tensor)
    return found.detach().clone()


def test_a_step_is_the_mean_of_its_batches_the_last_one_of_those_that_are_left(tmp_path: Path) -> None:
    made = trainer(tmp_path, accumulate=2)
    made.objective.dropout = nn.Identity()
    made.run(lambda at, row: None)
    assert made.at.step == 2 * made.steps_an_epoch == 6
    here, speed = torch.zeros(3), torch.zeros(3)
    for number in (1, 2):
        shown = torch.cat(list(Batches((1,) * 5).epoch(number)))
        for group in (shown[:2], shown[2:4], shown[4:]):
            gradient = 2 * (here - group).mean(dim=0) / 3
            speed = 0.9 * speed + gradient
            here = here - 0.1 * speed
    torch.testing.assert_close(weight(made), here)


def test_one_that_stopped_inside_an_epoch_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(place: int, total: int) -> None:
        seen.append(place)
        if len(seen) == 9:
            raise Stopped

    def run(made: Trainer, beat: Any = None) -> list[Any]:
        made.run(lambda at, row: None, beat)
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in made.at.rows]

    plan = {"accumulate": 2, "save_every": 2, "warmup": 3, "schedule": "cosine", "average": 0.9}
    torch.manual_seed(0)
    whole = trainer(tmp_path / "whole", **plan)
    rows = run(whole)
    torch.manual_seed(0)
    seen: list[int] = []
    with pytest.raises(Stopped):
        run(trainer(tmp_path / "broken", **plan), stop)
    torch.manual_seed(7)
    again = trainer(tmp_path / "broken", **plan)
    assert again.resume()
    assert (again.at.epoch, again.at.place) == (1, 2)
    assert run(again) == rows
    assert torch.equal(weight(again), weight(whole))
    assert rows[0]["size"] == 1.0


def test_frozen_weights_are_neither_saved_nor_asked_for(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.run(lambda at, row: None)
    for name in (checkpoint.LAST, checkpoint.BEST):
        tensors, _ = checkpoint.load(tmp_path / name)
        assert not [each for each in tensors if each.endswith("given")]
    assert torch.equal(made.kept.given, torch.ones(3))  # type: ignore[arg-type]
    assert trainer(tmp_path).resume()
    tensors, state = checkpoint.load(tmp_path / checkpoint.LAST)
    checkpoint.save(
        tmp_path / checkpoint.LAST, {k: v for k, v in tensors.items() if "weight" not in k}, state
    )
    with pytest.raises(RuntimeError, match="another model"):
        trainer(tmp_path).resume()
