"""What a trainer minimises: `objective(batch) -> {"loss": ..., named terms}`.

The trainer knows nothing else of a model.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recommender import losses
from recommender.config import Config
from recommender.model import SequentialModel
from recommender.sequences import Batch

TYPES = {"float32": None, "bfloat16": torch.bfloat16}


class Objective(Protocol):
    """An nn.Module that turns a batch into named numbers, "loss" among them."""

    def __call__(self, batch: Batch) -> dict[str, Tensor]: ...


class NextItem(nn.Module):
    """At every event of every history, the next item, by the loss that the configuration names.

    counts: (n_items,) training events, for sampling negatives by popularity.
    """

    def __init__(self, model: SequentialModel, config: Config, counts: npt.NDArray[np.int64]) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.n_items = len(counts)
        shares = torch.from_numpy(np.maximum(counts, 0).astype(np.float64)) ** config.negative_power
        self.uniform = config.negative_power == 0
        self.register_buffer("shares", (shares / shares.sum()).float(), persistent=False)

    shares: Tensor

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        hidden, table = self.model(batch.history)
        return {"loss": self._loss(hidden, table, batch.targets)}

    def _loss(self, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        config = self.config
        if config.loss == "softmax":
            return losses.full_softmax(hidden, table, targets, dtype=TYPES[config.head])
        negatives = self.sample(len(targets), targets.device)
        if config.loss == "sampled_softmax":
            expected = (self.shares * config.negatives).log() if config.logq else None
            return losses.sampled_softmax(hidden, table, targets, negatives, log_expected=expected)
        if config.loss == "bce":
            return losses.bce(hidden, table, targets, negatives)
        return losses.gbce(hidden, table, targets, negatives, calibration=config.calibration)

    def sample(self, places: int, device: torch.device) -> Tensor:
        """Item rows, (m,) or (places, m), drawn with replacement from torch's generator."""
        shape = (self.config.negatives,) if self.config.share_negatives else (places, self.config.negatives)
        if self.uniform:
            return torch.randint(self.n_items, shape, device=device)
        return torch.multinomial(self.shares, math.prod(shape), replacement=True).view(shape)
