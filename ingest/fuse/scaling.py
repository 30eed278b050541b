"""How a stored vector is scaled before a model reads it: once, by statistics of the catalogue that stay with the
weights, so that an item which came later is scaled as those before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from featurestore.errors import BadInput
from ingest.fuse.stored import Stored


def key(feature: str) -> str:
    """A feature's name as that of a module, in which no dot may stand and which no method of torch's may have."""
    name = feature.replace(".", "-")
    return f"{name}-" if hasattr(nn.ModuleDict(), name) else name


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

    def __init__(self, stored: Stored, kind: str, dim: int) -> None:
        super().__init__()
        known = torch.from_numpy(stored.known).double()
        if kind != "none" and len(known) < 2:
            raise BadInput(
                f"{len(known)} vectors of this feature are there; their scale cannot be told from fewer than two",
                remedy="materialize and publish the feature, or leave it out of --items",
            )
        mean, matrix = torch.zeros(stored.width).double(), torch.eye(stored.width).double()
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


def check_width(feature: str, stored: Stored, scaling: Scaling) -> None:
    """Raises BadInput for vectors of another size than those that a scaling was made of."""
    if stored.width != len(scaling.mean):
        raise BadInput(
            f"feature '{feature}' has vectors of size {stored.width}; the model learnt from {len(scaling.mean)}",
            remedy="use the release that the run names, or train again on this one",
        )


def kept_scalings(weights: Mapping[str, Tensor], features: Iterable[str]) -> dict[str, Scaling]:
    """The scaling of each feature as the weights of a trained model hold it; none for one that was not scaled."""
    found = {}
    for feature in features:
        end = f".{key(feature)}.scaling."
        for name in weights:
            if name.endswith(f"{end}mean"):
                start = name.removesuffix("mean")
                found[feature] = Scaling.kept(weights[f"{start}mean"], weights[f"{start}matrix"])
    return found
