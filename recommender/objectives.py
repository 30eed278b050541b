"""What a trainer minimises: `objective(batch) -> {"loss": ..., named terms}`.

The trainer knows nothing else of a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from ingest.fuse.stored import Stored
from recommender import losses
from recommender.config import Config
from recommender.distill import SimilarUsers, similar_users, user_means
from recommender.items import DualTower
from recommender.model import SequentialModel
from recommender.sequences import Batch, Int64, Packed, ragged_rows
from recommender.splits import Split

TYPES = {"float32": None, "bfloat16": torch.bfloat16}


class StepItems(NamedTuple):
    """The items of a step. table: (k, d) what the tower says of them. read, targets, negatives: rows of it.

    rows: (k,) of the vocabulary, where the table holds some of it only. negatives: (m,), (T, m), or None without any.
    """

    table: Tensor
    read: Tensor
    targets: Tensor
    negatives: Tensor | None
    rows: Tensor | None


class ItemLoss(nn.Module):
    """The loss that the configuration names, of places that each have one right item, and what is learnt beside it.

    counts: (n_items,) training events. An item without any was not there yet, as far as training knows: no step scores
    it, so nothing is learnt against it. As the wrong answer of every step, an item that is to be recommended by its
    features later would be taught to be none. similar: draws similar users together.
    """

    def __init__(
        self,
        model: SequentialModel,
        config: Config,
        counts: npt.NDArray[np.int64],
        similar: SimilarUsers | None = None,
    ) -> None:
        super().__init__()
        self.model, self.config, self.similar = model, config, similar
        there = counts > 0
        self.n_items, self.whole = int(there.sum()), bool(there.all())
        shares = torch.from_numpy(counts.astype(np.float64)) ** config.negative_power
        shares = shares * torch.from_numpy(there)
        self.uniform = config.negative_power == 0
        self.register_buffer("shares", (shares / shares.sum()).float(), persistent=False)
        self.register_buffer("rows", torch.from_numpy(np.flatnonzero(there)), persistent=False)
        self.register_buffer("places", torch.from_numpy(np.cumsum(there) - 1), persistent=False)

    shares: Tensor
    rows: Tensor  # (n_items,) of the items that are scored
    places: Tensor  # of every item, its place in `rows`

    def joint(self, recommending: Tensor, hidden: Tensor, batch: Batch) -> dict[str, Tensor]:
        """L = L_rec + a weight times each further term, with all terms by name.

        hidden: (B, d), what was said at the last place of each user of the batch.
        """
        config, tower = self.config, self.model.tower
        terms = {}
        if isinstance(tower, DualTower) and config.align != "none" and config.align_weight:
            terms["align"] = (config.align_weight, tower.alignment(self._different(batch)))
        if self.similar is not None:
            terms["distill"] = (config.distill_weight, self.similar(hidden, batch.users))
        if not terms:
            return {"loss": recommending}
        whole = recommending
        for weight, term in terms.values():
            whole = whole + weight * term
        return {"loss": whole, "rec": recommending} | {name: term for name, (_, term) in terms.items()}

    def _different(self, batch: Batch) -> Tensor:
        """Rows of different items of a batch, at most so many as are to be aligned, drawn from torch's generator."""
        rows: Tensor = torch.unique(batch.targets)
        if len(rows) > self.config.align_items:
            rows = rows[torch.randperm(len(rows), device=rows.device)[: self.config.align_items]]
        return rows

    def step_items(self, read: Tensor, targets: Tensor) -> StepItems:
        """What a step reads and scores of the catalogue: all of it, or what is read, sought and sampled."""
        if self.config.loss == "softmax":
            table = self.model.tower.all_items()
            if self.whole:
                return StepItems(table, read, targets, None, None)
            table = table.index_select(0, self.rows)  # faster than asking the tower for nearly all rows
            return StepItems(table, self.places[read], self.places[targets], None, self.rows)
        negatives = self.sample(len(targets), targets.device)
        rows, places = torch.unique(torch.cat([read, targets, negatives.flatten()]), return_inverse=True)
        read, targets, sampled = places.split([len(read), len(targets), negatives.numel()])
        return StepItems(self.model.tower(rows), read, targets, sampled.view(negatives.shape), rows)

    def loss(self, hidden: Tensor, table: Tensor, step: StepItems) -> Tensor:
        """hidden: (T, d), for the targets of the step. table: the item side of its items."""
        config = self.config
        if step.negatives is None or step.rows is None:
            return losses.full_softmax(hidden, table, step.targets, dtype=TYPES[config.head])
        if config.loss == "sampled_softmax":
            expected = (self.shares[step.rows] * config.negatives).log() if config.logq else None
            return losses.sampled_softmax(hidden, table, step.targets, step.negatives, log_expected=expected)
        if config.loss == "bce":
            return losses.bce(hidden, table, step.targets, step.negatives)
        return losses.gbce(
            hidden,
            table,
            step.targets,
            step.negatives,
            calibration=config.calibration,
            catalogue=self.n_items,
        )

    def sample(self, places: int, device: torch.device) -> Tensor:
        """Item rows, (m,) or (places, m), drawn with replacement from torch's generator."""
        shape = (self.config.negatives,) if self.config.share_negatives else (places, self.config.negatives)
        if self.uniform:
            drawn = torch.randint(self.n_items, shape, device=device)
            return drawn if self.whole else self.rows[drawn]
        return torch.multinomial(self.shares, math.prod(shape), replacement=True).view(shape)


class NextItem(ItemLoss):
    """At every event of every history, the item that came next."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        step = self.step_items(batch.history.items, batch.targets)
        hidden, table = self.model(Packed(step.read, batch.history.lengths), step.table)
        return self.joint(self.loss(hidden, table, step), hidden[batch.history.last], batch)


class MaskedItem(ItemLoss):
    """Events of each user's window are hidden behind the mask; at each, the item that was there.

    Sun et al., CIKM 2019 (arXiv 1904.06690). The window is the history and the item that came next. As in their
    code (gen_data_fin.py), max(1, round(mask_share x events)) places of a window are hidden, drawn without
    replacement; here at least one event stays in sight. Their code draws ten maskings of a window once and for
    all, and adds one copy with the last event hidden; ours are drawn anew each epoch, with one such copy each.
    """

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        window, hidden = self.cloze(batch)
        step = self.step_items(window.items, window.items[hidden])
        said, table = self.said(Packed(step.read, window.lengths), hidden, step.table)
        recommending = self.loss(said[hidden], table, step)
        # of a window that comes twice, the copy with its last event hidden is what an answer is made from
        return self.joint(recommending, said[window.last[-len(batch.users) :]], batch)

    def said(self, window: Packed, hidden: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """What stands at every place (T, d) with some of them hidden, and the item side of the table (n, d) that the
        window holds rows of.
        """
        shown = self.model.backbone.hide(embedding(window.items, table), hidden)
        return self.model.sides(self.model.backbone(shown, window.lengths), table)

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


def build(
    model: SequentialModel, config: Config, split: Split, features: Mapping[str, Stored] | None = None
) -> ItemLoss:
    """What the model's backbone learns by."""
    similar = None
    if config.tower == "llm-esr" and config.distill_weight:
        alike = similar_users(user_means(split, features or {}, config.features), config.distill_users)
        similar = SimilarUsers(alike, model.tower.out_dim)
    kind = MaskedItem if config.backbone == "bert4rec" else NextItem
    return kind(model, config, split.counts, similar)
