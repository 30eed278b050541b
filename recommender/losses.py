"""Next-item losses: each takes what the backbone says (hidden) and the item vectors, and gives one number.

Scores are dot products. Every loss is the mean over the T places that have a target; padding never gets here.

| loss | compares the target with | use it |
|---|---|---|
| `full_softmax` | every item | up to some 100k items: most accurate, and fused it is not slow |
| `sampled_softmax` | m sampled items | larger catalogues |
| `gbce` | m sampled items, one by one | as above, calibrated so that scores are not overconfident |
| `bce` | m sampled items, one by one | to compare with the original SASRec, which has one for every event |
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

CHUNK_SCORES = 1 << 21  # scores alive at a time in the fused softmax: few MB, so that a chunk stays in cache
GRAIN = 32  # chunks are multiples of so many rows: oneDNN keeps code for every shape that it has met


class _FusedSoftmax(torch.autograd.Function):
    """Cross-entropy over all items without keeping a score: in chunks, with the gradients made at once.

    With p = softmax(H W^T) and Y the one-hot targets, dL/dH = (p - Y) W / T and dL/dW = (p - Y)^T H / T. Both
    are as small as H and W, so they are computed while a chunk's p is at hand and only scaled in the backward
    pass.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, items: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        places, count = len(hidden), len(items)
        step = max(GRAIN, min(1024, CHUNK_SCORES // max(count, 1)) // GRAIN * GRAIN)
        need_hidden, need_items = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        low_hidden, low_items = pad(hidden.to(dtype), (0, 0, 0, -places % GRAIN)), items.to(dtype)
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_items = torch.zeros_like(items) if need_items else None
        for first in range(0, places, step):
            part = slice(first, min(first + step, places))
            block = low_hidden[first : first + step]  # the last one ends in rows of zeros, which add nothing
            size = part.stop - first
            wanted = items[targets[part]]
            scores = block @ low_items.T  # (C, n)
            top = scores.amax(dim=1)[:size]
            share = scores.softmax(dim=1)
            # log sum exp = top - log(share of the top item), which is at least 1/n and never underflows
            log_sum = top.to(total.dtype) - share.amax(dim=1)[:size].to(total.dtype).log()
            own = (hidden[part] * wanted).sum(dim=1).to(total.dtype)
            total += (log_sum - own).sum()
            if grad_hidden is not None:
                grad_hidden[part] = (share @ low_items)[:size].to(hidden.dtype) - wanted
            if grad_items is not None:
                grad_items += (share.T @ block).to(items.dtype)
        if grad_items is not None:
            grad_items.index_add_(0, targets, hidden, alpha=-1)
        ctx.places = places
        ctx.save_for_backward(grad_hidden, grad_items)
        return total / places

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_hidden, grad_items = ctx.saved_tensors
        scale = grads[0] / ctx.places
        return (
            None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype),
            None if grad_items is None else grad_items * scale.to(grad_items.dtype),
            None,
            None,
        )


def full_softmax(
    hidden: Tensor, items: Tensor, targets: Tensor, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Mean of -log softmax(hidden @ items.T)[target], over all items, in chunks.

    hidden: (T, d). items: (n, d). targets: (T,) int64.
    dtype: what scores and shares are computed in (torch.bfloat16 is several times faster on a CPU that has
    it; the loss of a target, sums and gradients are kept in the inputs' own type). None: the inputs' own,
    exact.
    """
    result: Tensor = _FusedSoftmax.apply(hidden, items, targets, dtype or hidden.dtype)
    return result


def pair_scores(hidden: Tensor, items: Tensor, targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the targets (T,) and of the negatives (T, m).

    `negatives`: (m,) shared by all places, or (T, m).
    """
    positive = (hidden * items[targets]).sum(dim=1)
    if negatives.dim() == 1:
        return positive, hidden @ items[negatives].T
    return positive, torch.einsum("td,tmd->tm", hidden, items[negatives])


def _hits(targets: Tensor, negatives: Tensor) -> Tensor:
    """(T, m) bool: where a sampled item is the target itself and so no negative."""
    shown: Tensor = negatives if negatives.dim() == 2 else negatives.unsqueeze(0)
    return shown == targets.unsqueeze(1)


def sampled_softmax(
    hidden: Tensor, items: Tensor, targets: Tensor, negatives: Tensor, *, log_expected: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the target against sampled items.

    negatives: (m,) or (T, m) int64. A sampled item that is the target is left out.
    log_expected: (n,) log of how often each item is expected in a sample of m; its scores are lowered by
    that, which makes the sum over the sample an unbiased estimate of the sum over all items (Bengio and
    Senecal 2008; "logQ" in Yi et al., RecSys 2019). The target's own score stays as it is, since it is always
    there.
    """
    positive, negative = pair_scores(hidden, items, targets, negatives)
    if log_expected is not None:
        negative = negative - log_expected[negatives]
    negative = negative.masked_fill(_hits(targets, negatives), -math.inf)
    return (torch.logsumexp(torch.cat([positive.unsqueeze(1), negative], dim=1), dim=1) - positive).mean()


def bce(hidden: Tensor, items: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """Binary cross-entropy: -log s(target) - sum over negatives of log(1 - s(negative)).

    Kang and McAuley, ICDM 2018 (arXiv 1808.09781), with one negative. Theirs is never an item of the user's
    history; ours is any item but the target, which needs no list of what each user took.
    """
    positive, negative = pair_scores(hidden, items, targets, negatives)
    apart = -logsigmoid(-negative).masked_fill(_hits(targets, negatives), 0.0)
    return (-logsigmoid(positive) + apart.sum(dim=1)).mean()


def gbce_beta(rate: float, calibration: float) -> float:
    """The power put on the target's probability: rate * (t * (1 - 1/rate) + 1/rate), with rate = m / (n - 1).

    t = 0 gives 1, plain BCE; t = 1 gives `rate`, fully calibrated. Petrov and Macdonald, RecSys 2023 (arXiv
    2308.07192).
    """
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)


def gbce(
    hidden: Tensor,
    items: Tensor,
    targets: Tensor,
    negatives: Tensor,
    *,
    calibration: float = 0.75,
    catalogue: int | None = None,
) -> Tensor:
    """Generalised BCE of gSASRec: -beta log s(target) - sum of log(1 - s(negative)), over m + 1.

    log s(target)^beta is written beta * log s, which is what it is; the original code reaches the same value
    through a transformed logit in float64. Like theirs, the mean is over the target and its m negatives.

    catalogue: how many items the negatives were drawn from, where `items` holds some of them only.
    """
    count = negatives.shape[-1]
    beta = gbce_beta(min(count / max((catalogue or len(items)) - 1, 1), 1.0), calibration)
    positive, negative = pair_scores(hidden, items, targets, negatives)
    apart = -logsigmoid(-negative).masked_fill(_hits(targets, negatives), 0.0)
    return ((-beta * logsigmoid(positive) + apart.sum(dim=1)) / (count + 1)).mean()
