"""One backbone over several views of an item: each view is a sequence of its own, the weights are shared, and what they
say is put side by side.

LLM-ESR (Liu et al., NeurIPS 2024, arXiv 2405.20646, section 3.2) and our reading of DMESR do so for two views. Between
placing the events and the layers there may be attention across the sequence, as in LLM-ESR.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from recommender.backbones.base import Backbone, Layered
from recommender.backbones.layers import Layout, pad, unpad
from recommender.sequences import Int64

VIEWS = 2


class SequenceAttention(nn.Module):
    """Two sequences of the same events, each read as the other asks: (T, 2, d) -> (T, 2, d).

    A place of the other view asks, and finds a mixture of this view's places: what comes out is of this view, by how
    alike the other one is. So does the published code of LLM-ESR, which adds no residual and masks nothing later; here
    a causal backbone's mixture is of places up to its own. residual: the view itself is added.
    """

    def __init__(self, width: int, heads: int, *, causal: bool, residual: bool) -> None:
        super().__init__()
        self.heads, self.causal, self.residual = heads, causal, residual
        self.query = nn.ModuleList(nn.Linear(width, width) for _ in range(VIEWS))
        self.key_value = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(VIEWS))
        self.outward = nn.ModuleList(nn.Linear(width, width) for _ in range(VIEWS))

    def forward(self, views: Tensor, layout: Layout) -> Tensor:
        found = []
        for own in range(VIEWS):
            other = 1 - own
            asked = self.query[own](views[:, other])
            offered = self.key_value[own](views[:, own])
            mixed = self.outward[own](self._mixed(torch.cat([asked, offered], dim=-1), layout))
            found.append(views[:, own] + mixed if self.residual else mixed)
        return torch.stack(found, dim=1)

    def _mixed(self, packed: Tensor, layout: Layout) -> Tensor:
        """packed: (T, 3 d) query, key and value of each place -> (T, d)."""
        groups = []
        for block, known in zip(pad(packed, layout), layout.lengths, strict=True):
            users, longest, _ = block.shape
            query, key, value = block.view(users, longest, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            seen = None
            if not self.causal:
                seen = (torch.arange(longest, device=block.device) < known[:, None])[:, None, None]
            mixed = scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=self.causal)
            groups.append(mixed.transpose(1, 2).reshape(users, longest, -1))
        return unpad(groups, layout)


class SharedViews(Backbone):
    """`forward(vectors (T, 2 d), lengths) -> (T, 2 d)`: `inner`, of width d, over either half.

    mixer: what happens between the two sequences, once they are placed.
    """

    def __init__(self, inner: Layered, mixer: SequenceAttention | None = None) -> None:
        super().__init__(reads=inner.reads)
        self.inner, self.mixer = inner, mixer

    def forward(self, vectors: Tensor, lengths: Int64) -> Tensor:
        # one view after the other as further users, so that the backbone is called once
        doubled = Layout.of(np.tile(lengths, VIEWS), vectors.device)
        placed = self.inner.place(torch.cat(vectors.chunk(VIEWS, dim=-1)), doubled)
        if self.mixer is not None:
            views = torch.stack(placed.chunk(VIEWS), dim=1)
            placed = torch.cat(self.mixer(views, Layout.of(lengths, vectors.device)).unbind(dim=1))
        return torch.cat(self.inner.encode(placed, doubled).chunk(VIEWS), dim=-1)

    def hide(self, vectors: Tensor, places: Tensor) -> Tensor:
        """As the inner backbone hides, in either view."""
        halves = vectors.chunk(VIEWS, dim=-1)
        return torch.cat([self.inner.hide(half, places) for half in halves], dim=-1)

    def asked(self, vectors: Tensor, lengths: Int64) -> tuple[Tensor, Int64]:
        """As the inner backbone asks, in either view."""
        halves = [self.inner.asked(half, lengths) for half in vectors.chunk(VIEWS, dim=-1)]
        return torch.cat([half for half, _ in halves], dim=-1), halves[0][1]
