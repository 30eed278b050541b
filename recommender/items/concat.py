"""An item as its id beside its features: two halves of one vector, which the backbone reads as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from featurestore.errors import BadInput
from ingest.fuse import adapters
from ingest.fuse.scaling import Scaling, check_width, key
from ingest.fuse.stored import Stored, Vectors
from recommender.items.ids import SharedIds, named


class ConcatTower(nn.Module):
    """[id; adapter([text; image; ...])]: the scaled features side by side through one adapter, beside the id.

    Without ids the whole width is the features'. A feature that an item lacks is zeros, which is its mean; one of
    several vectors an item counts as their mean.
    """

    def __init__(
        self,
        names: Sequence[str],
        stored: Mapping[str, Stored],
        width: int,
        ids: SharedIds | None,
        *,
        adapter: str = "mlp",
        scaling: str = "whiten",
        scaling_dim: int = 128,
        scale: float = 0.1,
        dropout: float = 0.0,
        fitted: Mapping[str, Scaling] | None = None,
    ) -> None:
        super().__init__()
        self.names, self.out_dim, self.ids = tuple(names), width, ids
        self.sources = nn.ModuleDict()
        for name in names:
            found = (fitted or {}).get(name) or Scaling(single(stored[name]), scaling, scaling_dim)
            self.sources[key(name)] = nn.ModuleDict({"scaling": found})
        inward = sum(self._scaling(name).out_dim for name in names)
        own = width - (ids.embedding_dim if ids is not None else 0)
        self.adapter = adapters.make(adapter, inward, own, dropout)
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.register_buffer("stored", self._scaled(stored), persistent=False)

    stored: Tensor

    def _scaling(self, name: str) -> Scaling:
        return cast("Scaling", cast("nn.ModuleDict", self.sources[key(name)])["scaling"])

    @torch.no_grad()
    def _scaled(self, features: Mapping[str, Stored]) -> Tensor:
        parts = []
        for name in self.names:
            vectors, scaling = single(named(features, name)), self._scaling(name)
            check_width(name, vectors, scaling)
            values = torch.from_numpy(vectors.means).to(scaling.mean.device)
            if not torch.isfinite(values).all():
                raise BadInput(f"feature '{name}' has vectors with NaN or infinite values")
            there = torch.from_numpy(vectors.present.copy()).to(scaling.mean.device)
            parts.append(scaling(values) * there[:, None])
        return torch.cat(parts, dim=1)

    def _beside(self, stored: Tensor, ids: Tensor | None) -> Tensor:
        content: Tensor = self.scale * self.adapter(stored)
        if self.ids is None:
            return content
        if ids is None:
            ids = content.new_zeros(len(content), self.ids.embedding_dim)
        return torch.cat([ids, content], dim=-1)

    def forward(self, rows: Tensor) -> Tensor:
        return self._beside(self.stored[rows], None if self.ids is None else self.ids.weighted(rows))

    def all_items(self) -> Tensor:
        return self._beside(self.stored, None if self.ids is None else self.ids.weighted())

    def embed(self, features: Mapping[str, Stored]) -> Tensor:
        return self._beside(self._scaled(features), None)


def single(stored: Stored) -> Vectors:
    """One vector an item: what is stored, or the mean of several."""
    return stored if isinstance(stored, Vectors) else Vectors(np.asarray(stored.means), stored.present)
