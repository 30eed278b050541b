"""What a trainer minimises: `objective(batch) -> {"loss": ..., named terms}`.

The trainer knows nothing else of a model.
"""

from __future__ import annotations

import math
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from recommender import losses
from recommender.backbones.bert4rec import BERT4Rec
from recommender.config import Config
from recommender.model import SequentialModel
from recommender.sequences import Batch, Int64, Packed, ragged_rows

TYPES = {"float32": None, "bfloat16": torch.bfloat16}


class Objective(Protocol):
    """An nn.Module that turns a batch into named numbers, "loss" among them."""

    def __call__(self, batch: Batch) -> dict[str, Tensor]: ...


class ItemLoss(nn.Module):
    """The loss that the configuration names, of places that each have one right item.

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

    def loss(self, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
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


class NextItem(ItemLoss):
    """At every event of every history, the item that came next."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        hidden, table = self.model(batch.history)
        return {"loss": self.loss(hidden, table, batch.targets)}


class MaskedItem(ItemLoss):
    """Events of each user's window are hidden behind the mask; at each, the item that was there.

    Sun et al., CIKM 2019 (arXiv 1904.06690). The window is the history and the item that came next. As in their
    code (gen_data_fin.py), max(1, round(mask_share x events)) places of a window are hidden, drawn without
    replacement; here at least one event stays in sight. Their code draws ten maskings of a window once and for
    all, and adds one copy with the last event hidden; ours are drawn anew each epoch, with one such copy each.
    """

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        window, hidden = self.cloze(batch)
        found, table = self.at_masks(window, hidden)
        return {"loss": self.loss(found, table, window.items[hidden])}

    def at_masks(self, window: Packed, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """What stands at the hidden places (m, d), and item vectors (n, d), made once for inputs and scores alike."""
        backbone = cast("BERT4Rec", self.model.backbone)
        table = self.model.tower.all_items()
        shown = backbone.hide(embedding(window.items, table), hidden)
        return self.model.sides(backbone(shown, window.lengths)[hidden], table)

    def cloze(self, batch: Batch) -> tuple[Packed, Tensor]:
        """The windows to learn from, and the places (m,) int64 in them to hide, drawn from torch's generator.

        With mask_last "copy" the windows come twice: once hidden at random, once at their last event only.
        """
        window = batch.whole
        if self.config.mask_last == "copy":
            hidden = torch.cat([self._draw(window), window.last + len(window.items)])
            doubled = Packed(window.items.repeat(2), np.tile(window.lengths, 2))
            return doubled, hidden
        return window, self._draw(window)

    def _draw(self, window: Packed) -> Tensor:
        """(m,) int64: places of each sequence, a random share of them; "always" begins with the last one."""
        lengths, device = window.lengths, window.items.device
        keys = torch.rand(len(window.items), device=device)
        if self.config.mask_last == "always":
            keys[window.last] = -1
        owners = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)).to(device)
        order = keys.argsort()
        order = order[owners[order].argsort(stable=True)]  # user after user, each one's events shuffled
        return order[torch.from_numpy(_first(lengths, self.config.mask_share)).to(device)]


def _first(lengths: Int64, share: float) -> Int64:
    """The first places of each sequence of T, so many as are to be hidden: a share, at least 1, never all."""
    counts = np.clip(np.rint(lengths * share).astype(np.int64), 1, lengths - 1)
    return ragged_rows(np.cumsum(lengths) - lengths, counts)


def build(model: SequentialModel, config: Config, counts: npt.NDArray[np.int64]) -> ItemLoss:
    """What the model's backbone learns by."""
    return (MaskedItem if isinstance(model.backbone, BERT4Rec) else NextItem)(model, config, counts)
