"""GRU4Rec: a recurrent network over a user's events.

Hidasi, Karatzoglou, Baltrunas and Tikk, ICLR 2016, arXiv 1511.06939. Theirs steps through many sessions side by side,
one event a step, with losses of its own (BPR, TOP1) over the other sessions' items. Ours reads whole packed sequences
and learns from every event of them by the losses that all backbones share, so that a table compares the networks alone.
The normalisation at the end is ours, and is that of SASRec: without it the GRU's tanh bounds the scores, and learning
takes several times the epochs.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from recommender.backbones.base import Layered
from recommender.backbones.layers import Dropout, Layout, pad, unpad


class GRU4Rec(Layered):
    """`forward(vectors (T, d), lengths (B,)) -> (T, d)`: at each event, a vector to score items with.

    hidden: width of the recurrent layers; where it is not `width`, a linear map leads back.
    """

    def __init__(
        self, width: int, *, length: int, layers: int = 1, hidden: int | None = None, dropout: float = 0.2
    ) -> None:
        super().__init__(reads=length)
        hidden = hidden or width
        self.scale = math.sqrt(width)  # id vectors begin small
        self.drop = Dropout(dropout)
        self.layers = nn.ModuleList(
            nn.GRU(hidden if above else width, hidden, batch_first=True) for above in range(layers)
        )
        self.outward = nn.Linear(hidden, width) if hidden != width else nn.Identity()
        self.last = nn.LayerNorm(width)
        self.reset()

    def reset(self) -> None:
        for name, weight in self.layers.named_parameters():
            if "weight_hh" in name:
                for gate in weight.data.chunk(3):  # reset, update, candidate
                    nn.init.orthogonal_(gate)
            elif "weight_ih" in name:
                nn.init.xavier_uniform_(weight)
            else:
                nn.init.zeros_(weight)

    def place(self, vectors: Tensor, layout: Layout) -> Tensor:
        result: Tensor = self.drop(vectors * self.scale)
        return result

    def encode(self, hidden: Tensor, layout: Layout) -> Tensor:
        # Padding stands after the events, which a network that reads forwards has left behind by then. Padded
        # groups of like lengths take a third of the time of torch's PackedSequence on a CPU (9,000 events).
        for layer in self.layers:
            hidden = self.drop(unpad([layer(group)[0] for group in pad(hidden, layout)], layout))
        result: Tensor = self.last(self.outward(hidden))
        return result
