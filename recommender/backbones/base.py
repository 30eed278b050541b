"""What is asked of every backbone."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from recommender.sequences import Int64


class Backbone(nn.Module):
    """`forward(vectors (T, d), lengths (B,)) -> (T, d)` over packed sequences, and the answer after each of them.

    reads: the latest events of a user that an answer is made from. Longer histories are the caller's to cut.
    """

    def __init__(self, reads: int) -> None:
        super().__init__()
        self.reads = reads

    def answer(self, vectors: Tensor, lengths: Int64) -> Tensor:
        """(B, d): what to score the item after each sequence with. Here, what stands at its last event."""
        result: Tensor = self(vectors, lengths)[np.cumsum(lengths) - 1]
        return result
