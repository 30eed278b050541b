"""A sequential recommender: an item tower under a backbone. User vector times item vector is the score."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize

from recommender import backbones, items
from recommender.backbones.base import Backbone
from recommender.config import Config
from recommender.events import Bool
from recommender.items import Float32, Scaling, Stored, Tower
from recommender.sequences import Int64, Ints, Packed, pack
from recommender.splits import Split, Which

USERS = 256  # histories at a time when answering


class SequentialModel(nn.Module):
    """`tower` makes item vectors, `backbone` makes of a history's vectors what to score items with.

    The score of item i for hidden h is h . v_i, or cos(h, v_i) / temperature; `user_vectors` and
    `item_vectors` carry that already, so their dot product is the score in either case.
    """

    def __init__(
        self,
        tower: Tower,
        backbone: Backbone,
        *,
        temperature: float | None = None,
    ):
        super().__init__()
        self.tower, self.backbone, self.temperature = tower, backbone, temperature

    def forward(self, history: Packed, table: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Hidden (T, d) at each event, and item vectors (n, d), made once for inputs and scores alike.

        table: what the tower says of items, where `history` holds rows of that; else of all.
        """
        table = self.tower.all_items() if table is None else table
        hidden: Tensor = self.backbone(embedding(history.items, table), history.lengths)
        return self.sides(hidden, table)

    def sides(self, hidden: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """What the backbone and the tower say, as the two whose dot product is the score."""
        return self._hidden_side(hidden), self._item_side(table)

    def _hidden_side(self, hidden: Tensor) -> Tensor:
        return hidden if self.temperature is None else normalize(hidden, dim=-1) / self.temperature

    def _item_side(self, table: Tensor) -> Tensor:
        return table if self.temperature is None else normalize(table, dim=-1)

    @property
    def ranked(self) -> Bool | None:
        """(n_items,) which items it can rank, None: all. An id that no event trained says nothing of its item."""
        tower = self.tower
        if not isinstance(tower, items.IdTower) or isinstance(tower, items.InitTower):
            return None
        trained: Bool = tower.trained.cpu().numpy()
        return None if trained.all() else trained

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @torch.no_grad()
    def item_vectors(self) -> Float32:
        """(n_items, d) float32, row i belongs to item i of the vocabulary."""
        was, _ = self.training, self.eval()
        table = self._item_side(self.tower.all_items())
        self.train(was)
        return table.cpu().numpy().copy()

    @torch.no_grad()
    def new_item_vectors(self, features: Mapping[str, Stored]) -> Float32:
        """(k, d) float32 for items known by their features only, in the space of `item_vectors`."""
        was, _ = self.training, self.eval()
        table = self._item_side(self.tower.embed(features))
        self.train(was)
        return table.cpu().numpy().copy()

    @torch.no_grad()
    def user_vectors(
        self, values: Ints, starts: Int64, ends: Int64, *, table: Tensor | None = None
    ) -> Float32:
        """(u, d) float32: for each history values[start:end] (item rows, oldest first, at least one), what to
        score with.

        table: what `tower.all_items()` gives, where the caller has it at hand.
        """
        was, _ = self.training, self.eval()
        result = np.empty((len(starts), self.tower.out_dim), dtype=np.float32)
        if len(starts):
            table = self.tower.all_items() if table is None else table
            order = np.argsort(ends - starts, kind="stable")  # like lengths together
            for first in range(0, len(order), USERS):
                users = order[first : first + USERS]
                history = pack(values, starts[users], ends[users], self.backbone.reads).to(self.device)
                hidden = self.backbone.answer(embedding(history.items, table), history.lengths)
                result[users] = self._hidden_side(hidden).cpu().numpy()
        self.train(was)
        return result


def build(
    config: Config,
    counts: npt.NDArray[np.int64],
    features: Mapping[str, Stored] | None = None,
    fitted: Mapping[str, Scaling] | None = None,
) -> SequentialModel:
    """A new model. counts: (n_items,) training events. Weights come from torch's generator: seed it first.

    fitted: how each feature is scaled, where the weights to come were trained; else it is fitted to `features`.
    """
    tower = items.build(config, counts, features or {}, fitted)
    backbone = backbones.build(config, tower.out_dim)
    return SequentialModel(tower, backbone, temperature=config.temperature if config.cosine else None)


def scorer(model: SequentialModel, split: Split, which: Which) -> Callable[[Int64], Float32]:
    """`score(users (b,)) -> (b, n_items)` for `evaluate`: scores of all items, from the events before the
    target; -inf for one that the model cannot rank.

    Item vectors are made once, here: change the weights and make a new scorer.
    """
    items, ranked = model.item_vectors(), model.ranked
    unknown = None if ranked is None else np.flatnonzero(~ranked)
    was, _ = model.training, model.eval()
    with torch.no_grad():
        table = model.tower.all_items()
    model.train(was)

    def score(users: Int64) -> Float32:
        starts, ends = split.history(users, which)
        asking = model.user_vectors(split.log.items, starts, ends, table=table)
        scores: Float32 = asking @ items.T
        if unknown is not None:
            scores[:, unknown] = -np.inf
        return scores

    return score
