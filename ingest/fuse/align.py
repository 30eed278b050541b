"""Contrastive alignment of the views of an item, and measures of how well they agree.

A batch holds each item once: with an item in it twice, one copy would be pushed away from the other.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

LEAST_TEMPERATURE, GREATEST_TEMPERATURE = 0.01, 1.0


class Temperature(nn.Module):
    """What cosines are divided by; learned as a logarithm and held within .01 .. 1, or fixed.

    The logarithm itself is held there, as CLIP's is: with only its use bounded, no gradient would lead back inside.
    """

    def __init__(self, start: float, learned: bool) -> None:
        super().__init__()
        log = torch.tensor(math.log(start))
        if learned:
            self.log = nn.Parameter(log)
        else:
            self.register_buffer("log", log)

    log: Tensor

    def forward(self) -> Tensor:
        with torch.no_grad():
            self.log.clamp_(math.log(LEAST_TEMPERATURE), math.log(GREATEST_TEMPERATURE))
        return self.log.exp()


def info_nce(first: Tensor, second: Tensor, temperature: Tensor | float) -> Tensor:
    """Symmetric InfoNCE: mean of -log softmax over the other view's rows, both ways.

    first, second: (n, d), row i of both is item i; compared by cosine. van den Oord et al. 2018 (arXiv 1807.03748),
    symmetric as in CLIP (Radford et al. 2021, figure 3).
    """
    scores = normalize(first, dim=-1) @ normalize(second, dim=-1).T / temperature
    own = torch.arange(len(scores), device=scores.device)
    return (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2


def soft_target(first: Tensor, second: Tensor, temperature: Tensor | float) -> Tensor:
    """Alignment to how alike items are within the views instead of to the item itself alone.

    With rows x_i, y_i of unit length, L = X Y^T / tau and Q = softmax of tau/2 (X X^T + Y Y^T) by rows:
    1/2 mean_i [CE(Q_i, softmax(L_i)) + CE(Q^T_i, softmax(L^T_i))]; rows of Q^T need not sum to 1. The formula of the
    group's earlier work, which has tau = 1, raw dot products and gradients through Q; unit length and Q as a target are
    ours. Below 1 it tells less and less: Q grows flat while L grows steep, and views are told apart, not together.
    """
    x, y = normalize(first, dim=-1), normalize(second, dim=-1)
    scores = x @ y.T / temperature
    with torch.no_grad():
        target = ((x @ x.T + y @ y.T) * (temperature / 2)).softmax(dim=-1)
    return (cross_entropy(scores, target) + cross_entropy(scores.T, target.T)) / 2


LOSSES = {"infonce": info_nce, "soft": soft_target}


def between_views(
    views: Tensor, present: Tensor, temperature: Tensor | float, kind: str = "infonce"
) -> Tensor:
    """The mean loss over all pairs of views, each over the items that have both.

    views: (n, V, d), different items. present: (n, V) bool. A pair that fewer than two items have is left out; 0 where
    no pair is left.
    """
    found = []
    for a, b in itertools.combinations(range(views.shape[1]), 2):
        both = present[:, a] & present[:, b]
        if int(both.sum()) >= 2:
            found.append(LOSSES[kind](views[both, a], views[both, b], temperature))
    return torch.stack(found).mean() if found else views.sum() * 0.0


# ---- how well views agree


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of the unit vectors of an item's two views; lower is better, 0 .. 4.

    Wang and Isola, ICML 2020 (arXiv 2005.10242), with alpha = 2.
    """
    return float((normalize(first, dim=-1) - normalize(second, dim=-1)).square().sum(dim=-1).mean())


def uniformity(vectors: Tensor) -> float:
    """log of the mean of exp(-2 distance^2) over pairs of items; lower is better, about -4 for spread-out vectors.

    Wang and Isola, ICML 2020, with t = 2.
    """
    unit = normalize(vectors, dim=-1)
    squared = (2 - 2 * unit @ unit.T).clamp_min(0)
    n = len(unit)
    rest = ~torch.eye(n, dtype=torch.bool, device=unit.device)
    return float(torch.logsumexp(-2 * squared[rest], dim=0) - math.log(max(n * (n - 1), 1)))


def recall(first: Tensor, second: Tensor, k: int) -> float:
    """Share of items whose second view is among the k nearest, by cosine, of their first, and the reverse; the mean.

    What is as near as an item's own view counts as nearer: views that are all the same find nothing.
    """
    scores = normalize(first, dim=-1) @ normalize(second, dim=-1).T
    own = scores.diagonal()
    there = ((scores >= own[:, None]).sum(dim=1) <= k).double().mean()
    back = ((scores >= own[None, :]).sum(dim=0) <= k).double().mean()
    return float((there + back) / 2)


def agreement(
    views: Tensor, present: Tensor, names: tuple[str, ...], k: int = 10
) -> list[dict[str, float | str]]:
    """One row a pair of views: items that have both, alignment, uniformity of either, recall@1 and @k.

    views: (n, V, d). present: (n, V) bool.
    """
    rows: list[dict[str, float | str]] = []
    for a, b in itertools.combinations(range(len(names)), 2):
        both = present[:, a] & present[:, b]
        if int(both.sum()) < 2:
            continue
        x, y = views[both, a], views[both, b]
        rows.append(
            {
                "views": f"{names[a]} ~ {names[b]}",
                "items": len(x),
                "alignment": alignment(x, y),
                "uniformity": (uniformity(x) + uniformity(y)) / 2,
                "recall@1": recall(x, y, 1),
                f"recall@{k}": recall(x, y, k),
            }
        )
    return rows
