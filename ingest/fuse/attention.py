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
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)  # softmax would not see it
        self.value, self.outward = nn.Linear(width, width), nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)
        self.register_load_state_dict_pre_hook(_without_keys_bias)  # type: ignore[no-untyped-call]

    def shares(self, queries: Tensor, others: Tensor, there: Tensor) -> Tensor:
        """(n, H, Q, K): how much of each other token a query reads; 1 in all, before dropout.

        (W_q x + b_q) . W_k y = x . (W_q^T W_k) y + (b_q . W_k) y, so only the side with fewer tokens an item goes
        through a map, that of both.
        """
        n, asking, width = queries.shape
        offering, heads, size = others.shape[1], self.heads, width // self.heads
        query, key = (linear.weight.view(heads, size, width) for linear in (self.query, self.key))
        both = query.transpose(1, 2) @ key / math.sqrt(size)  # (H, d of a query, d of another)
        own = (self.query.bias.view(heads, 1, size) @ key).view(heads, width) / math.sqrt(size)
        if asking <= offering:
            asked = (queries @ both.transpose(0, 1).reshape(width, -1)).view(n, asking * heads, width)
            asked = asked + own.repeat(asking, 1)
            scores = (asked @ others.transpose(1, 2)).view(n, asking, heads, offering)
        else:
            offered = (others @ both.permute(2, 0, 1).reshape(width, -1)).view(n, offering * heads, width)
            scores = (queries @ offered.transpose(1, 2)).view(n, asking, offering, heads)
            scores = (scores + (others @ own.T)[:, None]).transpose(2, 3)
        seen = there[:, None, None] if there.dim() == 2 else there[:, :, None]
        result: Tensor = self.drop(scores.masked_fill(~seen, -math.inf).softmax(dim=-1))
        return result.transpose(1, 2)

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


def _without_keys_bias(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Weights of before keys lost their bias are read: it never changed anything."""
    state.pop(f"{prefix}key.bias", None)


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
