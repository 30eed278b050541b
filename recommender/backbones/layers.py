"""Small parts of backbones: moving between packed and padded layout, and a dropout that is fast on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recommender.sequences import Int64, ragged_rows

TIGHT = 0.7  # users are padded together while the shortest has at least this share of the longest's events


@dataclass(frozen=True)
class Group:
    """Users of similar length, padded on the right to (users, longest) places."""

    users: int
    longest: int


@dataclass(frozen=True)
class Layout:
    """How T packed places become padded groups and come back.

    lengths: for each group (users,) int64, the events of each of its users, longest first.
    padded: (P,) int64, the packed place that each padded place shows (place 0 where it is padding).
    packed: (T,) int64, the padded place of each packed one.
    from_end: (T,) int64, how many events of the same user follow.
    """

    groups: list[Group]
    lengths: list[Tensor]
    padded: Tensor
    packed: Tensor
    from_end: Tensor

    @classmethod
    def of(cls, lengths: Int64, device: torch.device) -> Layout:
        starts = np.cumsum(lengths) - lengths
        total = int(lengths.sum())
        order = np.argsort(-lengths, kind="stable")
        sorted_lengths = lengths[order]
        groups: list[Group] = []
        packed = np.empty(total, dtype=np.int64)
        shown: list[Int64] = []
        first = base = 0
        while first < len(order):
            longest = int(sorted_lengths[first])
            after = int(np.searchsorted(-sorted_lengths, -TIGHT * longest, side="right"))
            users = order[first:after]
            rows = ragged_rows(starts[users], lengths[users])
            places = ragged_rows(np.arange(len(users), dtype=np.int64) * longest, lengths[users])
            block = np.zeros(len(users) * longest, dtype=np.int64)
            block[places] = rows
            packed[rows] = places + base
            shown.append(block)
            groups.append(Group(len(users), longest))
            base += len(block)
            first = after
        within = np.arange(total, dtype=np.int64) - np.repeat(starts, lengths)
        from_end = np.repeat(lengths, lengths) - 1 - within
        padded = np.concatenate(shown) if shown else np.empty(0, dtype=np.int64)
        known = torch.split(torch.from_numpy(sorted_lengths).to(device), [group.users for group in groups])
        arrays = (torch.from_numpy(array).to(device) for array in (padded, packed, from_end))
        return cls(groups, list(known), *arrays)


class _Pad(torch.autograd.Function):
    """(T, c) -> (P, c). What is shown at padding is never read, so no gradient comes back from there."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, padded: Tensor, packed: Tensor) -> Tensor:
        ctx.save_for_backward(packed)
        return values.index_select(0, padded)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (packed,) = ctx.saved_tensors
        return grads[0].index_select(0, packed), None, None


def pad(values: Tensor, layout: Layout) -> list[Tensor]:
    """(T, c) packed -> one (users, longest, c) for each group, padding after the events.

    It must stay unread.
    """
    flat: Tensor = _Pad.apply(values, layout.padded, layout.packed)
    parts = torch.split(flat, [group.users * group.longest for group in layout.groups])
    return [
        part.view(group.users, group.longest, -1) for part, group in zip(parts, layout.groups, strict=True)
    ]


class _Unpad(torch.autograd.Function):
    """(P, c) -> (T, c); padding gets a zero gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, packed: Tensor) -> Tensor:
        ctx.save_for_backward(packed)
        ctx.places = len(values)
        return values.index_select(0, packed)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (packed,) = ctx.saved_tensors
        whole = grads[0].new_zeros(ctx.places, *grads[0].shape[1:])
        return whole.index_copy_(0, packed, grads[0]), None


def unpad(groups: list[Tensor], layout: Layout) -> Tensor:
    """The reverse of `pad`."""
    flat = torch.cat([group.reshape(-1, group.shape[-1]) for group in groups])
    result: Tensor = _Unpad.apply(flat, layout.packed)
    return result


class Dropout(nn.Module):
    """Dropout with 16 random bits a value: on a CPU several times faster than torch's, which draws a float
    for each.

    The rate is rounded to a multiple of 1/65536; the scale is that of the rounded rate, so the mean is kept.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.cut = round(rate * 65536)

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.cut == 0:
            return values
        return values * self.mask(values.numel(), values.device, values.dtype).view(values.shape)

    def mask(self, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """(count,): 0 with probability `rate`, else 1 / (1 - rate)."""
        words = torch.empty(-(-count // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
        kept = words.view(torch.int16)[:count] >= self.cut - 32768
        return kept.to(dtype).mul_(65536 / (65536 - self.cut))
