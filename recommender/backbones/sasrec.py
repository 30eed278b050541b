"""SASRec: a Transformer over a user's events, each seeing only itself and what came before.

Kang and McAuley, ICDM 2018, arXiv 1808.09781. Ours differs where later work agreed on better: normalisation
before each part instead of after it, GELU, and positions counted from the end of the window, so that the
place predicted from is always the same one. `causal=False` lets every event see all others, as some published
code does; figures of the two must not stand in one column, since in training such a model sees the answers of
its own earlier places.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from recommender.backbones.base import Layered
from recommender.backbones.layers import Dropout, Layout, pad, unpad


class Attention(nn.Module):
    """Multi-head self-attention over packed sequences. (T, d) -> (T, d)."""

    def __init__(self, width: int, heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.inward = nn.Linear(width, 3 * width)
        self.outward = nn.Linear(width, width)
        self.drop = Dropout(dropout)

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        groups = []
        for block, known in zip(pad(self.inward(hidden), layout), layout.lengths, strict=True):
            users, longest, _ = block.shape
            query, key, value = block.view(users, longest, 3, self.heads, -1).permute(
                2, 0, 3, 1, 4
            )  # (B, H, L, d/H)
            seen = (
                None
                if self.causal
                else (torch.arange(longest, device=block.device) < known[:, None])[:, None, None]
            )
            if self.training and self.drop.cut:
                mixed = self._dropped(query, key, value, seen)
            else:
                mixed = scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=self.causal)
            groups.append(mixed.transpose(1, 2).reshape(users, longest, -1))
        result: Tensor = self.outward(unpad(groups, layout))
        return result

    def _dropped(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None) -> Tensor:
        """The same with dropout on the weights, which the fused kernel does not have on a CPU."""
        scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
        if seen is None:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(future, -math.inf)
        else:
            scores = scores.masked_fill(~seen, -math.inf)
        result: Tensor = self.drop(scores.softmax(dim=-1)) @ value
        return result


class Block(nn.Module):
    """Pre-norm Transformer layer. (T, d) -> (T, d)."""

    def __init__(
        self, width: int, heads: int, inner: int, dropout: float, attention_dropout: float, causal: bool
    ) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads, attention_dropout, causal)
        self.before_inner = nn.LayerNorm(width)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.drop = Dropout(dropout)

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        hidden = hidden + self.drop(self.attention(self.before_attention(hidden), layout))
        result: Tensor = hidden + self.drop(self.down(self.drop(gelu(self.up(self.before_inner(hidden))))))
        return result


class SASRec(Layered):
    """`forward(vectors (T, d), lengths (B,)) -> (T, d)`: at each event, a vector to score items with.

    length: the longest sequence it can place. Longer ones are the caller's to cut.
    inner: width of the feed-forward part; the paper's is `width`.
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
        causal: bool = True,
    ) -> None:
        super().__init__(reads=length)
        self.scale = math.sqrt(width)
        self.positions = nn.Embedding(length, width)
        self.drop = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(width, heads, inner or width, dropout, attention_dropout, causal) for _ in range(layers)
        )
        self.last = nn.LayerNorm(width)
        self.causal = causal
        self.reset()

    def reset(self) -> None:
        nn.init.normal_(self.positions.weight, std=0.02)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_normal_(part.weight)
                nn.init.zeros_(part.bias)

    def place(self, vectors: Tensor, layout: Layout) -> Tensor:
        result: Tensor = self.drop(vectors * self.scale + self.positions(layout.from_end))
        return result

    def encode(self, hidden: Tensor, layout: Layout) -> Tensor:
        for block in self.blocks:
            hidden = block(hidden, layout)
        result: Tensor = self.last(hidden)
        return result
