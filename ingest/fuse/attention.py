"""Attention between two sets of tokens of an item, the coarse and the fine, either way."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """Multi-head attention of queries (n, Q, d) to other tokens (n, K, d), masked: (n, Q, d).

    Vaswani et al. 2017, section 3.2. A row whose tokens are all masked has no place here: it would be nothing divided
    by nothing.
    """

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.outward = nn.Linear(width, width), nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def shares(self, queries: Tensor, others: Tensor, there: Tensor) -> Tensor:
        """(n, H, Q, K): how much of each other token a query reads; 1 in all, before dropout."""
        n, asking, width = queries.shape
        size = width // self.heads
        query = self.query(queries).view(n, asking, self.heads, size).transpose(1, 2)
        key = self.key(others).view(n, others.shape[1], self.heads, size).permute(0, 2, 3, 1)
        seen = there[:, None, None] if there.dim() == 2 else there[:, None]
        scores = (query @ key / math.sqrt(size)).masked_fill(~seen, -math.inf)
        result: Tensor = self.drop(scores.softmax(dim=-1))
        return result

    def forward(self, queries: Tensor, others: Tensor, there: Tensor) -> Tensor:
        """there: (n, K) bool, which of the others are read; or (n, Q, K), for each query apart."""
        n, asking, width = queries.shape
        value = self.value(others).view(n, others.shape[1], self.heads, width // self.heads).transpose(1, 2)
        mixed = self.shares(queries, others, there) @ value
        result: Tensor = self.outward(mixed.transpose(1, 2).reshape(n, asking, width))
        return result

    def pooled(self, weights: Tensor, queries: Tensor, others: Tensor, there: Tensor) -> Tensor:
        """(n, d): sum over queries of weights (n, Q) times what each finds.

        All after the softmax is linear, so that tokens are summed first and one vector an item goes through the rest:
        on a catalogue of some thousand items half the time of `forward`.
        """
        n, _, width = queries.shape
        share = torch.einsum("nq,nhqk->nhk", weights, self.shares(queries, others, there))
        summed = (share @ others).transpose(0, 1)  # (H, n, d)
        value = self.value.weight.view(self.heads, -1, width).transpose(1, 2)
        mixed = (summed @ value).transpose(0, 1).reshape(n, width)
        # the bias counts as often as anything was read: once, but for dropout
        times = share.sum(dim=-1, keepdim=True) * self.value.bias.view(self.heads, -1)
        found = torch.nn.functional.linear(mixed + times.reshape(n, width), self.outward.weight)
        return found + weights.sum(dim=-1, keepdim=True) * self.outward.bias


class Pool(nn.Module):
    """How much each token (n, K, d) of those that are there (n, K) counts: (n, K), 1 in all.

    "mean": all alike. "gated": a softmax over w . tanh(W t), as in Yang et al., NAACL 2016, equations 5 to 7.
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
            return weight / weight.sum(dim=1, keepdim=True)
        scores: Tensor = self.gate(tokens).squeeze(-1)
        return scores.masked_fill(~there, -math.inf).softmax(dim=1)
