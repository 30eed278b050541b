"""BERT4Rec: a Transformer that sees both sides of a hidden event, and answers at a mask after the last one.

Sun, Liu, Wu, Pei, Lin, Ou and Jiang, CIKM 2019, arXiv 1904.06690; training is `objectives.MaskedItem`. The layers are
SASRec's without the causal mask. Where this differs from the paper and its code (github.com/FeiSun/BERT4Rec):

- Normalisation comes before each part instead of after it, and positions count from the end, as in our SASRec; the
  place that answers is then the same one in training and afterwards.
- What stands at a mask meets the item vectors as it is. Theirs goes through one more dense layer with GELU, and each
  item has a bias; a bias is nothing that an index of vectors or an item unseen in training could have.
- A hidden event is always shown as the mask, as in their code's defaults; the 80/10/10 of BERT is not used.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from recommender.backbones.base import Layered
from recommender.backbones.layers import Layout
from recommender.backbones.sasrec import SASRec
from recommender.sequences import Int64


class BERT4Rec(Layered):
    """`forward(vectors (T, d), lengths (B,)) -> (T, d)`: every place sees its whole sequence, its own event included.

    So a place may be asked for its item only after `hide` took it away. length: the longest sequence, the mask
    included: an answer is made from length - 1 events. inner: width of the feed-forward part; the paper's is 4 x width.
    """

    def __init__(
        self,
        width: int,
        *,
        length: int,
        layers: int = 2,
        heads: int = 2,
        inner: int | None = None,
        dropout: float = 0.2,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__(reads=length - 1)
        self.encoder = SASRec(
            width,
            length=length,
            layers=layers,
            heads=heads,
            inner=inner or 4 * width,
            dropout=dropout,
            attention_dropout=attention_dropout,
            causal=False,
        )
        self.mask = nn.Parameter(torch.empty(width).normal_(std=0.02))

    def place(self, vectors: Tensor, layout: Layout) -> Tensor:
        return self.encoder.place(vectors, layout)

    def encode(self, hidden: Tensor, layout: Layout) -> Tensor:
        return self.encoder.encode(hidden, layout)

    def hide(self, vectors: Tensor, places: Tensor) -> Tensor:
        """The vectors (T, d) with the mask instead of what stands at `places` (m,) int64."""
        return vectors.index_copy(0, places, self.mask.expand(len(places), -1))

    def asked(self, vectors: Tensor, lengths: Int64) -> tuple[Tensor, Int64]:
        """The sequences with a mask after each, which is what answers; none of them is longer than `reads`."""
        events = len(vectors)
        rows = np.insert(np.arange(events), np.cumsum(lengths), events)  # the mask is row `events`
        shown = torch.cat([vectors, self.mask[None]])[torch.from_numpy(rows).to(vectors.device)]
        return shown, lengths + 1
