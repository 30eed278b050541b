"""Learned vectors of items by their id: alone, and as part of a tower that reads features too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from featurestore.errors import BadInput
from ingest.fuse.scaling import principal
from ingest.fuse.stored import Stored

INIT_STD = 0.02  # of id vectors


class IdTower(nn.Module):
    """A learned vector for each item, and nothing else.

    counts: (n,) training events. `trained`: (n,) which items have any; to read another is to read zeros.
    """

    def __init__(self, counts: npt.NDArray[np.int64], width: int) -> None:
        super().__init__()
        self.out_dim = width
        self.ids = nn.Embedding(len(counts), width)
        nn.init.normal_(self.ids.weight, std=INIT_STD)
        with torch.no_grad():  # no step moves what it does not read: they stay zeros
            self.ids.weight[torch.from_numpy(counts == 0)] = 0
        self.register_buffer("trained", torch.from_numpy(counts > 0), persistent=False)

    trained: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        result: Tensor = self.ids(rows)
        return result

    def all_items(self) -> Tensor:
        return self.ids.weight

    def embed(self, features: Mapping[str, Stored]) -> Tensor:
        raise BadInput(
            "this model knows items by their id only, so an item that training never saw has no vector",
            remedy="train with features, for instance --items id+text",
        )


class Principal(nn.Module):
    """(n, D1 + D2 + ...) features side by side -> (n, width): their leading principal directions.

    A feature that an item lacks is as the mean of those that have it, so that lacking it is no direction; where an item
    has several vectors of one, their mean stands. One scale for all, so that the numbers spread as random id vectors
    do; directions that are not there are zeros.
    """

    def __init__(self, stored: Sequence[Stored], width: int) -> None:
        super().__init__()
        there = np.any([each.present for each in stored], axis=0)
        if not there.any():
            raise BadInput(
                "no item has any of the features that ids are to begin from",
                remedy="materialize and publish them, or leave them out of --items",
            )
        means = [each.means.sum(axis=0, dtype=np.float64) / max(each.present.sum(), 1) for each in stored]
        mean = torch.from_numpy(np.concatenate(means))
        centred = self._centred(stored, mean)[torch.from_numpy(there)]
        _, directions = principal(centred)
        matrix = torch.zeros(len(mean), width, dtype=torch.float64)
        kept = min(width, len(mean))
        matrix[:, :kept] = directions[:, :kept]
        spread = (centred @ matrix[:, :kept]).std().clamp_min(1e-12)
        self.register_buffer("mean", mean.float())
        self.register_buffer("matrix", (matrix / spread * INIT_STD).float())

    mean: Tensor
    matrix: Tensor

    @staticmethod
    def _centred(stored: Sequence[Stored], mean: Tensor) -> Tensor:
        """(n, sum of D), zeros where an item lacks a feature."""
        joined = torch.from_numpy(np.concatenate([each.means for each in stored], axis=1)).to(mean)
        if joined.shape[1] != len(mean):
            raise BadInput(
                f"features have {joined.shape[1]} numbers an item; the model learnt from {len(mean)}",
                remedy="use the release that the run names, or train again on this one",
            )
        there = np.concatenate(
            [np.repeat(each.present[:, None], each.width, axis=1) for each in stored], axis=1
        )
        return (joined - mean) * torch.from_numpy(there).to(mean.device)

    def forward(self, stored: Sequence[Stored]) -> Tensor:
        return self._centred(stored, self.mean) @ self.matrix


class InitTower(IdTower):
    """LLMInit: ids that begin as a PCA of the features and are learned from there.

    Harte et al., RecSys 2023 ("LLM2BERT4Rec"), and Hu et al. 2024 ("SAID") begin so. An item that came later has the
    vector that it would have begun with.
    """

    def __init__(
        self,
        names: Sequence[str],
        stored: Mapping[str, Stored],
        counts: npt.NDArray[np.int64],
        width: int,
    ) -> None:
        given = [stored[name] for name in names]
        super().__init__(counts, width)
        self.names = tuple(names)
        self.start = Principal(given, width)
        with torch.no_grad():
            self.ids.weight.copy_(self.start(given))

    def embed(self, features: Mapping[str, Stored]) -> Tensor:
        result: Tensor = self.start([named(features, name) for name in self.names])
        return result


def named(features: Mapping[str, Stored], name: str) -> Stored:
    """Raises BadInput where a feature that a model reads is not given."""
    if name not in features:
        raise BadInput(
            f"this model needs the feature '{name}' of an item", remedy="publish a release that has it"
        )
    return features[name]


class SharedIds(nn.Embedding):
    """Id vectors (n, width) that are a part of an item's vector: `weighted` gives as much of each as is used.

    counts: (n,) training events. An item without any has no id. With the gate "count" an id weighs c / (c + k) with a
    learned k, so that an item seen rarely rests on its features. While learning, a share `dropout` of items lose it.
    """

    def __init__(
        self, counts: npt.NDArray[np.int64], width: int, *, dropout: float = 0.0, gate: str = "none"
    ) -> None:
        super().__init__(len(counts), width)
        nn.init.normal_(self.weight, std=INIT_STD)
        self.dropout = dropout
        self.gate = nn.Parameter(torch.tensor(0.0)) if gate == "count" else None
        self.register_buffer("counts", torch.from_numpy(counts.astype(np.float32)))

    counts: Tensor

    def start_from(self, stored: Sequence[Stored]) -> None:
        """Begin as a PCA of the features side by side, at the spread of random ids; items without any keep theirs."""
        start = Principal(stored, self.embedding_dim)(stored)
        there = torch.from_numpy(np.any([each.present for each in stored], axis=0))
        with torch.no_grad():
            self.weight.copy_(torch.where(there[:, None], start, self.weight))

    def share(self, counts: Tensor) -> Tensor:
        """(n, 1): how much of the id of items with these counts is used."""
        weight = (counts > 0).float()
        if self.gate is not None:
            weight = counts / (counts + torch.nn.functional.softplus(self.gate))
        if self.training and self.dropout > 0:
            weight = weight * (torch.rand_like(weight) >= self.dropout)
        return weight[:, None]

    def weighted(self, rows: Tensor | None = None) -> Tensor:
        """(k, width) of these rows, (n, width) of all."""
        if rows is None:
            return self.share(self.counts) * self.weight
        return self.share(self.counts[rows]) * self.weight[rows]
