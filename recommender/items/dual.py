"""DMESR's item: two fused views (`ingest.fuse.dual`), side by side or summed, and its id added."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ingest.fuse.align import Temperature, between_views
from ingest.fuse.dual import DualView, Views
from ingest.fuse.stored import Stored
from recommender.items.ids import SharedIds


class DualTower(nn.Module):
    """[c~; f~] + id, of width 2 d; or c~ + f~ + id, of width d. Each view has a learned scale.

    `alignment` is the contrastive loss between an item's coarse views, for items that a batch holds.
    """

    def __init__(
        self,
        view: DualView,
        ids: SharedIds | None,
        temperature: Temperature,
        *,
        side_by_side: bool = True,
        scale: float = 0.1,
        align: str = "infonce",
    ) -> None:
        super().__init__()
        self.view, self.ids, self.temperature, self.align = view, ids, temperature, align
        self.side_by_side = side_by_side
        self.out_dim = (2 if side_by_side else 1) * view.fusion.width
        self.scale = nn.Parameter(torch.full((2,), float(scale)))

    def _joined(self, views: Views) -> Tensor:
        coarse, fine = self.scale[0] * views.coarse, self.scale[1] * views.fine
        return torch.cat([coarse, fine], dim=-1) if self.side_by_side else coarse + fine

    def forward(self, rows: Tensor) -> Tensor:
        content = self._joined(self.view(rows))
        return content if self.ids is None else content + self.ids.weighted(rows)

    def all_items(self) -> Tensor:
        content = self._joined(self.view())
        return content if self.ids is None else content + self.ids.weighted()

    def embed(self, features: Mapping[str, Stored]) -> Tensor:
        return self._joined(self.view(placed=self.view.placed(features)))

    def alignment(self, rows: Tensor) -> Tensor:
        """The loss over these items, rows (k,) that differ from each other."""
        tokens, there = self.view.aligned(rows)
        return between_views(tokens, there, self.temperature(), self.align)
