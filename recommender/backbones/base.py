"""What is asked of every backbone."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from torch import Tensor, nn

from recommender.backbones.layers import Layout
from recommender.sequences import Int64


class Backbone(nn.Module):
    """`forward(vectors (T, d), lengths (B,)) -> (T, d)` over packed sequences, and the answer after each of them.

    reads: the latest events of a user that an answer is made from. Longer histories are the caller's to cut.
    """

    def __init__(self, reads: int) -> None:
        super().__init__()
        self.reads = reads

    def asked(self, vectors: Tensor, lengths: Int64) -> tuple[Tensor, Int64]:
        """The sequences whose last place answers what comes after these. Here, the sequences themselves."""
        return vectors, lengths

    def hide(self, vectors: Tensor, places: Tensor) -> Tensor:
        """The vectors (T, d) with what stands at `places` (m,) int64 taken away. Only some backbones can."""
        raise TypeError(f"{type(self).__name__} learns from what comes next and hides nothing")

    def answer(self, vectors: Tensor, lengths: Int64) -> Tensor:
        """(B, d): what to score the item after each sequence with."""
        shown, counts = self.asked(vectors, lengths)
        result: Tensor = self(shown, counts)[np.cumsum(counts) - 1]
        return result


class Layered(Backbone):
    """A backbone in two steps, so that something may come in between."""

    @abstractmethod
    def place(self, vectors: Tensor, layout: Layout) -> Tensor:
        """What its layers begin with, (T, d): vectors enlarged, with positions where it has any, and dropout."""

    @abstractmethod
    def encode(self, hidden: Tensor, layout: Layout) -> Tensor:
        """Its layers over what was placed. (T, d) -> (T, d)."""

    def forward(self, vectors: Tensor, lengths: Int64) -> Tensor:
        layout = Layout.of(lengths, vectors.device)
        return self.encode(self.place(vectors, layout), layout)
