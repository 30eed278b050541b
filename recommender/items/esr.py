"""LLM-ESR's dual view: an item is its stored vectors through an adapter beside its id, each a sequence of its own.

Liu et al., NeurIPS 2024 (arXiv 2405.20646), section 3.2: the semantic view is a frozen embedding through two linear
layers (`adapter=bottleneck`); the collaborative view is an id that begins as a PCA of it. The backbone is shared;
attention between the two sequences is `backbones.views`, self-distillation from similar users `recommender.distill`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ingest.fuse.stored import Stored
from recommender.items.features import FeaturesTower
from recommender.items.ids import SharedIds


class EsrTower(nn.Module):
    """[semantic; collaborative], each of half the width.

    An item that training never saw has no collaborative half.
    """

    def __init__(self, semantic: FeaturesTower, ids: SharedIds) -> None:
        super().__init__()
        self.semantic, self.ids = semantic, ids
        self.out_dim = 2 * semantic.out_dim

    def forward(self, rows: Tensor) -> Tensor:
        return torch.cat([self.semantic(rows), self.ids.weighted(rows)], dim=-1)

    def all_items(self) -> Tensor:
        return torch.cat([self.semantic.all_items(), self.ids.weighted()], dim=-1)

    def embed(self, features: Mapping[str, Stored]) -> Tensor:
        semantic = self.semantic.embed(features)
        return torch.cat([semantic, torch.zeros_like(semantic)], dim=-1)
