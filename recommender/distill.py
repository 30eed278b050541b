"""Self-distillation from similar users, as LLM-ESR learns by: a user's vector is drawn towards the mean vector of users
whose histories read alike.

Liu et al., NeurIPS 2024 (arXiv 2405.20646), section 3.3. Theirs embeds a text that lists a user's history; here a user
is the mean of the (whitened) vectors of what the user took in training, which needs no further model. Theirs computes
the teachers' vectors anew for each batch, N + 1 times the work; here they come from a memory of what the model last
said of each user (He et al. 2020 keep theirs so), empty until a user was met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ingest.fuse.scaling import Scaling
from ingest.fuse.stored import Stored, Vectors
from recommender.splits import Split

Int64 = npt.NDArray[np.int64]
BLOCK = 1024  # users compared with all others at a time


def user_means(split: Split, features: Mapping[str, Stored], names: Sequence[str]) -> npt.NDArray[np.float32]:
    """(n_users, R) float32, unit length: the mean whitened vector of each user's training items."""
    parts = []
    for name in names:
        stored = features[name]
        means = Vectors(stored.means, stored.present)
        with torch.no_grad():
            scaled = Scaling(means, "whiten", 128)(torch.from_numpy(means.values)).numpy()
        parts.append(scaled * stored.present[:, None])
    table = np.concatenate(parts, axis=1)
    ends, starts = split.train_end, split.log.offsets[:-1]
    found = np.zeros((len(starts), table.shape[1]), dtype=np.float32)
    for user in np.flatnonzero(ends > starts):
        found[user] = table[split.log.items[starts[user] : ends[user]]].mean(axis=0)
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return found


def similar_users(vectors: npt.NDArray[np.float32], count: int) -> Int64:
    """(n, count) int64: the most similar other users of each by cosine, nearest first."""
    count = min(count, len(vectors) - 1)
    unit = torch.from_numpy(vectors)
    nearest = []
    for start, stop in pairwise([*range(0, len(unit), BLOCK), len(unit)]):
        scores = unit[start:stop] @ unit.T
        scores[torch.arange(stop - start), torch.arange(start, stop)] = -torch.inf
        nearest.append(scores.topk(count, dim=1).indices)
    return torch.cat(nearest).numpy()


class SimilarUsers(nn.Module):
    """Mean squared distance of users' vectors to the mean of their similar users' (no gradient to those), over those of
    a batch who have one that was met before.

    neighbours: (n_users, N). width: of a user's vector.
    """

    def __init__(self, neighbours: Int64, width: int) -> None:
        super().__init__()
        self.register_buffer("neighbours", torch.from_numpy(neighbours), persistent=False)
        self.register_buffer("memory", torch.zeros(len(neighbours), width))
        self.register_buffer("met", torch.zeros(len(neighbours), dtype=torch.bool))

    neighbours: Tensor
    memory: Tensor
    met: Tensor

    def forward(self, vectors: Tensor, users: Int64) -> Tensor:
        """vectors: (B, d) of users (B,), who differ from each other."""
        rows = torch.from_numpy(users).to(vectors.device)
        near = self.neighbours[rows]
        known = self.met[near]
        taught = known.any(dim=1)
        weight = known / known.sum(dim=1, keepdim=True).clamp_min(1)
        teacher = torch.einsum("bn,bnd->bd", weight, self.memory[near])
        apart = (vectors - teacher).square().mean(dim=1)
        loss = (apart * taught).sum() / taught.sum().clamp_min(1)
        with torch.no_grad():
            self.memory[rows] = vectors.detach()
            self.met[rows] = True
        return loss
