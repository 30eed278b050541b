"""Item towers: what an item is to the model. A backbone knows none of this; it gets vectors.

A tower answers `forward(rows (k,)) -> (k, d)`, `all_items() -> (n, d)` and has `out_dim`. Two decisions.
Stored vectors stay frozen and are scaled once, by statistics of the catalogue that are kept with the weights,
so an item that came later is scaled as training's were. And `embed` makes the vector of an item from its
features alone; to have that mean something, a tower with ids drops them at random while it learns, and items
that training never saw never had one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from featurestore.errors import BadInput
from recommender.backbones.layers import Dropout
from recommender.config import ID, Config

Float32 = npt.NDArray[np.float32]
INIT_STD = 0.02  # of id vectors


@dataclass(frozen=True)
class Vectors:
    """One stored feature over a list of items.

    values: (n, D) float32; a row whose `present` is false is not read. present: (n,) bool.
    """

    values: Float32
    present: npt.NDArray[np.bool_]

    @classmethod
    def aligned(cls, ids: Any, values: Any, wanted: Any) -> Vectors:
        """Rows of `values` (m, D), which belong to `ids` (m,), in the order of `wanted` (n,); others are absent."""
        if np.ndim(values) != 2 or len(ids) != len(values):
            raise BadInput(
                f"{len(ids)} ids and an array of shape {np.shape(values)} are not one vector an item"
            )
        names, asked = np.asarray(ids, dtype=np.str_), np.asarray(wanted, dtype=np.str_)
        order = np.argsort(names, kind="stable")
        place = np.minimum(np.searchsorted(names, asked, sorter=order), max(len(names) - 1, 0))
        row = order[place] if len(names) else np.zeros(len(asked), dtype=np.int64)
        present = names[row] == asked if len(names) else np.zeros(len(asked), dtype=np.bool_)
        result = np.zeros((len(asked), np.shape(values)[1]), dtype=np.float32)
        result[present] = values[row[present]]
        return cls(result, present)


class Tower(Protocol):
    """What a model asks of its items."""

    out_dim: int

    def __call__(self, rows: Tensor) -> Tensor: ...

    def all_items(self) -> Tensor: ...

    def embed(self, features: Mapping[str, Vectors]) -> Tensor: ...


class IdTower(nn.Module):
    """A learned vector for each item, and nothing else."""

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__()
        self.out_dim = width
        self.ids = nn.Embedding(n_items, width)
        nn.init.normal_(self.ids.weight, std=INIT_STD)

    def forward(self, rows: Tensor) -> Tensor:
        result: Tensor = self.ids(rows)
        return result

    def all_items(self) -> Tensor:
        return self.ids.weight

    def embed(self, features: Mapping[str, Vectors]) -> Tensor:
        raise BadInput(
            "this model knows items by their id only, so an item that training never saw has no vector",
            remedy="train with features, for instance --items id+text",
        )


def principal(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (D,), largest first, and directions (D, D), one a column, of centred rows (n, D)."""
    variance, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    variance, directions = variance.flip(0), directions.flip(1)
    # the sign of a direction is free: make its largest part positive, so that machines agree
    biggest = directions.abs().argmax(dim=0)
    return variance, directions * directions.gather(0, biggest[None]).sign()


class Scaling(nn.Module):
    """(n, D) stored vectors -> (n, R): less the mean, times a matrix, both taken from the catalogue and kept.

    "none": as they are. "standard": unit variance in each dimension. "whiten": the `dim` leading principal
    directions, each with unit variance; directions that hold next to nothing (variance under 1e-6 of the
    first) are left out.
    """

    def __init__(self, vectors: Vectors, kind: str, dim: int) -> None:
        super().__init__()
        known = torch.from_numpy(vectors.values[vectors.present]).double()
        width = vectors.values.shape[1]
        if kind != "none" and len(known) < 2:
            raise BadInput(
                f"{len(known)} items have this feature; its scale cannot be told from fewer than two",
                remedy="materialize and publish the feature, or leave it out of --items",
            )
        mean, matrix = torch.zeros(width, dtype=torch.float64), torch.eye(width, dtype=torch.float64)
        if kind != "none":
            mean = known.mean(dim=0)
            centred = known - mean
        if kind == "standard":
            matrix = torch.diag(1 / centred.std(dim=0, correction=0).clamp_min(1e-6))
        elif kind == "whiten":
            variance, directions = principal(centred)
            kept = int((variance > 1e-6 * variance[0].clamp_min(1e-30)).sum().clamp(1, dim))
            matrix = directions[:, :kept] / variance[:kept].clamp_min(1e-30).sqrt()
        self.out_dim = matrix.shape[1]
        self.register_buffer("mean", mean.float())
        self.register_buffer("matrix", matrix.float())

    mean: Tensor
    matrix: Tensor

    @classmethod
    def kept(cls, mean: Tensor, matrix: Tensor) -> Scaling:
        """One that was fitted before. Vectors that are there now may be others: an item may have been forgotten."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made.out_dim = matrix.shape[1]
        made.register_buffer("mean", mean)
        made.register_buffer("matrix", matrix)
        return made

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) @ self.matrix


class FeatureTower(nn.Module):
    """A stored vector through an adapter, times a learned scale.

    An item without one has a learned vector of its own.
    """

    def __init__(
        self,
        name: str,
        vectors: Vectors,
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
        inward = self.scaling.out_dim
        if adapter == "linear":
            self.adapter: nn.Module = nn.Linear(inward, width)
        else:
            self.adapter = nn.Sequential(
                nn.Linear(inward, 2 * width),
                nn.GELU(),
                Dropout(dropout),
                nn.Linear(2 * width, width),
                nn.LayerNorm(width),
            )
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.missing = nn.Parameter(torch.zeros(width))
        # not kept with the weights: a release owns them
        self.register_buffer("stored", self._scaled(vectors), persistent=False)
        self.register_buffer("present", torch.from_numpy(vectors.present.copy()), persistent=False)

    stored: Tensor
    present: Tensor

    def _scaled(self, vectors: Vectors) -> Tensor:
        values = np.where(vectors.present[:, None], vectors.values, np.float32(0))
        if not np.isfinite(values).all():
            raise BadInput(f"feature '{self.name}' has vectors with NaN or infinite values")
        with torch.no_grad():
            scaled: Tensor = self.scaling(torch.from_numpy(values).to(self.scaling.mean.device))
        return scaled

    def _through(self, stored: Tensor, present: Tensor) -> Tensor:
        return torch.where(present[:, None], self.scale * self.adapter(stored), self.missing)

    def forward(self, rows: Tensor) -> Tensor:
        return self._through(self.stored[rows], self.present[rows])

    def all_items(self) -> Tensor:
        return self._through(self.stored, self.present)

    def embed(self, features: Mapping[str, Vectors]) -> Tensor:
        if self.name not in features:
            raise BadInput(
                f"this model needs the feature '{self.name}' of an item",
                remedy="publish a release that has it",
            )
        vectors = features[self.name]
        width = self.scaling.mean.shape[0]
        if vectors.values.shape[1] != width:
            found = vectors.values.shape[1]
            raise BadInput(
                f"feature '{self.name}' has vectors of size {found}; the model learnt from {width}",
                remedy="use the release that the run names, or train again on this one",
            )
        present = torch.from_numpy(vectors.present.copy()).to(self.missing.device)
        return self._through(self._scaled(vectors), present)


class FeaturesTower(nn.Module):
    """Several features, added; with ids, those added too.

    counts: (n,) training events. An item without any has no id: its vector is its features'. With the gate
    "count" an id weighs c / (c + k) with a learned k, so that an item seen rarely rests on its features.
    """

    def __init__(
        self,
        features: list[FeatureTower],
        counts: npt.NDArray[np.int64],
        *,
        with_ids: bool,
        id_dropout: float = 0.0,
        gate: str = "none",
    ) -> None:
        super().__init__()
        self.out_dim = features[0].out_dim
        self.features = nn.ModuleList(features)
        self.ids = nn.Embedding(len(counts), self.out_dim) if with_ids else None
        self.id_dropout = id_dropout
        self.gate = nn.Parameter(torch.tensor(0.0)) if with_ids and gate == "count" else None
        self.register_buffer("counts", torch.from_numpy(counts.astype(np.float32)))
        if self.ids is not None:
            nn.init.normal_(self.ids.weight, std=INIT_STD)

    counts: Tensor

    def start_from(self, vectors: list[Vectors]) -> None:
        """Set the ids to a PCA of the features side by side, at the spread that random ones have."""
        assert self.ids is not None
        joined = np.concatenate([np.where(v.present[:, None], v.values, 0.0) for v in vectors], axis=1)
        centred = torch.from_numpy(joined).double()
        centred = centred - centred.mean(dim=0)
        _, directions = principal(centred)
        found = centred @ directions[:, : self.out_dim]
        found = found / found.std().clamp_min(1e-12) * INIT_STD
        with torch.no_grad():
            self.ids.weight[:, : found.shape[1]] = found.float()

    def _id_weight(self, counts: Tensor) -> Tensor:
        """(n, 1): how much of the id of items with these counts is used."""
        weight = (counts > 0).float()
        if self.gate is not None:
            weight = counts / (counts + torch.nn.functional.softplus(self.gate))
        if self.training and self.id_dropout > 0:
            weight = weight * (torch.rand_like(weight) >= self.id_dropout)
        return weight[:, None]

    @property
    def towers(self) -> list[FeatureTower]:
        return cast("list[FeatureTower]", list(self.features))

    @staticmethod
    def _add(parts: Iterable[Tensor]) -> Tensor:
        return functools.reduce(torch.add, parts)

    def forward(self, rows: Tensor) -> Tensor:
        content = self._add(tower(rows) for tower in self.towers)
        return content if self.ids is None else content + self._id_weight(self.counts[rows]) * self.ids(rows)

    def all_items(self) -> Tensor:
        content = self._add(tower.all_items() for tower in self.towers)
        return content if self.ids is None else content + self._id_weight(self.counts) * self.ids.weight

    def embed(self, features: Mapping[str, Vectors]) -> Tensor:
        return self._add(tower.embed(features) for tower in self.towers)


def build(
    config: Config,
    counts: npt.NDArray[np.int64],
    features: Mapping[str, Vectors],
    fitted: Mapping[str, Scaling] | None = None,
) -> IdTower | FeaturesTower:
    """The tower that `config.items` names, over items with these training counts (n,).

    fitted: scalings of a model that was trained; without them they are fitted to the features.
    """
    if not config.features:
        return IdTower(len(counts), config.width)
    towers = []
    for name in config.features:
        if name not in features:
            raise BadInput(
                f"items '{config.items}' names the feature '{name}', which was not given",
                remedy=f"given: {', '.join(features) or 'none'}; publish the feature, or train with --items id",
            )
        if len(features[name].values) != len(counts):
            raise BadInput(f"feature '{name}' covers {len(features[name].values)} items of {len(counts)}")
        towers.append(
            FeatureTower(
                name,
                features[name],
                config.width,
                adapter=config.adapter,
                scaling=config.scaling,
                scaling_dim=config.scaling_dim,
                scale=config.feature_scale,
                dropout=config.feature_dropout,
                fitted=(fitted or {}).get(name),
            )
        )
    tower = FeaturesTower(
        towers, counts, with_ids=ID in config.parts, id_dropout=config.id_dropout, gate=config.gate
    )
    if config.id_init == "pca":
        tower.start_from([features[name] for name in config.features])
    return tower
