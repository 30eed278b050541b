"""From a stored vector of size R to the width d of a model: (..., R) -> (..., d).

| name | is |
|---|---|
| `linear` | one linear map |
| `bottleneck` | Linear R -> R/2 -> d without an activation: the adapter of LLM-ESR's and LLMEmb's code (Liu et al.) |
| `mlp` | Linear R -> 2d, GELU, dropout, Linear -> d, LayerNorm |
| `moe` | a mixture of 8 parametric whitenings with a noisy gate: the adaptor of UniSRec |
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

ADAPTERS = ("linear", "bottleneck", "mlp", "moe")
EXPERTS = 8  # as in UniSRec's configuration


class MixtureOfWhitenings(nn.Module):
    """sum over experts of g_k (x - b_k) W_k, with g = softmax of a noisy gate: Hou et al., KDD 2022 (arXiv 2206.05941),
    equations 2 to 4. Noise is added while learning only.
    """

    def __init__(self, inward: int, width: int, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.shift = nn.Parameter(torch.zeros(EXPERTS, inward))
        self.experts = nn.Parameter(torch.empty(EXPERTS, inward, width).normal_(std=inward**-0.5))
        self.gate = nn.Parameter(torch.zeros(inward, EXPERTS))
        self.noise = nn.Parameter(torch.zeros(inward, EXPERTS))

    def forward(self, values: Tensor) -> Tensor:
        logits = values @ self.gate
        if self.training:
            logits = logits + torch.randn_like(logits) * (softplus(values @ self.noise) + 1e-2)
        share = logits.softmax(dim=-1)  # (n, K)
        values = self.drop(values)
        # sum_k g_k (x - b_k) W_k, one large product instead of one for each expert
        spread = (share[..., :, None] * values[..., None, :]).flatten(-2)
        moved = torch.einsum("ki,kid->kd", self.shift, self.experts)
        result: Tensor = spread @ self.experts.flatten(0, 1) - share @ moved
        return result


def make(kind: str, inward: int, width: int, dropout: float = 0.0) -> nn.Module:
    """The adapter of that name, from `inward` numbers to `width`. dropout: inside it, where it has an inside."""
    if kind == "linear":
        return nn.Linear(inward, width)
    if kind == "bottleneck":
        return nn.Sequential(
            nn.Linear(inward, max(inward // 2, 1)),
            nn.Dropout(dropout),
            nn.Linear(max(inward // 2, 1), width),
        )
    if kind == "mlp":
        return nn.Sequential(
            nn.Linear(inward, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
            nn.LayerNorm(width),
        )
    if kind == "moe":
        return MixtureOfWhitenings(inward, width, dropout)
    raise ValueError(f"adapter '{kind}' is none of {', '.join(ADAPTERS)}")
