"""Attention between two sets of tokens of an item, the coarse and the fine, either way."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """Multi-head attention of queries (n, Q, d) to other tokens (n, K, d), masked: (n, Q, d).

    Vaswani et al. 2017, section 3.2. residual: the query is added. norm: LayerNorm at the end. A row whose tokens are
    all masked has no place here: it would be nothing divided by nothing.
    """

    def __init__(
        self, width: int, heads: int, *, residual: bool = True, norm: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.residual = heads, residual
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.outward = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)

    def forward(self, queries: Tensor, others: Tensor, there: Tensor) -> Tensor:
        """there: (n, K) bool, which of the others are read; or (n, Q, K), for each query apart."""
        n, asking, width = queries.shape
        size = width // self.heads
        query = self.query(queries).view(n, asking, self.heads, size).transpose(1, 2)
        key, value = (
            self.key_value(others).view(n, others.shape[1], 2, self.heads, size).permute(2, 0, 3, 1, 4)
        )
        seen = there[:, None, None] if there.dim() == 2 else there[:, None]
        scores = (query @ key.transpose(-1, -2) / math.sqrt(size)).masked_fill(~seen, -math.inf)
        mixed = (self.drop(scores.softmax(dim=-1)) @ value).transpose(1, 2).reshape(n, asking, width)
        found = self.outward(mixed)
        result: Tensor = self.norm(queries + found if self.residual else found)
        return result


class Pool(nn.Module):
    """Tokens (n, K, d), which of them are there (n, K) -> (n, d): their mean, or a gated sum.

    "gated": weights are a softmax over w . tanh(W t), as in Yang et al., NAACL 2016, equations 5 to 7.
    """

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.gate = (
            nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1, bias=False))
            if kind == "gated"
            else None
        )

    def forward(self, tokens: Tensor, there: Tensor) -> Tensor:
        if self.gate is None:
            weight = there.to(tokens.dtype)
            weight = weight / weight.sum(dim=1, keepdim=True)
        else:
            weight = self.gate(tokens).squeeze(-1).masked_fill(~there, -math.inf).softmax(dim=1)
        return torch.einsum("nk,nkd->nd", weight, tokens)
