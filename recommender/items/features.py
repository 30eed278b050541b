"""An item as its stored vectors through adapters, added up; with ids, those added too."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from featurestore.errors import BadInput
from ingest.fuse import adapters
from ingest.fuse.scaling import Scaling, check_width, key
from ingest.fuse.stored import Stored, Tokens
from recommender.items.ids import SharedIds, named


class FeatureTower(nn.Module):
    """A stored vector through an adapter, times a learned scale.

    An item without one has a learned vector of its own.
    """

    def __init__(
        self,
        name: str,
        vectors: Stored,
        width: int,
        *,
        adapter: str = "mlp",
        scaling: str = "whiten",
        scaling_dim: int = 128,
        scale: float = 0.1,
        dropout: float = 0.0,
        fitted: Scaling | None = None,
    ) -> None:
        super().__init__()
        self.name, self.out_dim = name, width
        self.scaling = Scaling(vectors, scaling, scaling_dim) if fitted is None else fitted
        self.adapter = adapters.make(adapter, self.scaling.out_dim, width, dropout)
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.missing = nn.Parameter(torch.zeros(width))
        # not kept with the weights: a release owns them
        self.register_buffer("stored", self._scaled(vectors), persistent=False)
        self.register_buffer("present", torch.from_numpy(vectors.present.copy()), persistent=False)

    stored: Tensor
    present: Tensor

    def _scaled(self, vectors: Stored) -> Tensor:
        if isinstance(vectors, Tokens):
            raise BadInput(
                f"feature '{self.name}' has several vectors an item; this tower takes one",
                remedy="train on a feature of one vector an item, or with --set tower=dmesr",
            )
        values = torch.from_numpy(vectors.means)
        if not torch.isfinite(values).all():
            raise BadInput(f"feature '{self.name}' has vectors with NaN or infinite values")
        with torch.no_grad():
            scaled: Tensor = self.scaling(values.to(self.scaling.mean.device))
        return scaled

    def _through(self, stored: Tensor, present: Tensor) -> Tensor:
        return torch.where(present[:, None], self.scale * self.adapter(stored), self.missing)

    def forward(self, rows: Tensor) -> Tensor:
        return self._through(self.stored[rows], self.present[rows])

    def all_items(self) -> Tensor:
        return self._through(self.stored, self.present)

    def embed(self, features: Mapping[str, Stored]) -> Tensor:
        vectors = named(features, self.name)
        check_width(self.name, vectors, self.scaling)
        present = torch.from_numpy(vectors.present.copy()).to(self.missing.device)
        return self._through(self._scaled(vectors), present)


class FeaturesTower(nn.Module):
    """Several features, added; with ids, those added too, as much of each as `SharedIds` says."""

    def __init__(self, features: list[FeatureTower], ids: SharedIds | None = None) -> None:
        super().__init__()
        self.out_dim = features[0].out_dim
        self.features = nn.ModuleDict({key(tower.name): tower for tower in features})
        self.ids = ids

    @property
    def towers(self) -> list[FeatureTower]:
        return cast("list[FeatureTower]", list(self.features.values()))

    @staticmethod
    def _add(parts: Iterable[Tensor]) -> Tensor:
        return functools.reduce(torch.add, parts)

    def forward(self, rows: Tensor) -> Tensor:
        content = self._add(tower(rows) for tower in self.towers)
        return content if self.ids is None else content + self.ids.weighted(rows)

    def all_items(self) -> Tensor:
        content = self._add(tower.all_items() for tower in self.towers)
        return content if self.ids is None else content + self.ids.weighted()

    def embed(self, features: Mapping[str, Stored]) -> Tensor:
        return self._add(tower.embed(features) for tower in self.towers)
