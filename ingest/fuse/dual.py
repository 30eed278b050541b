"""The dual view of DMESR (arXiv 2602.13715): coarse and fine tokens of an item in, two fused views of it out.

The abstract says that coarse-grained semantics a multimodal model wrote and fine-grained semantics of the original text
are merged by bidirectional cross-attention into two fused representations. All else is ours, each part an option: a
feature of one vector an item is a coarse token, one of several vectors gives fine tokens; every feature has an adapter
of its own; each side attends to the other, c~ = norm(pool(C + attention(C to F))) and f~ = norm(pool(F + attention(F to
C))), where the weights of a gated pool are told by the tokens before attention.

Attention over a single token has nothing to choose from: its softmax is 1 and it is a linear map. Where a side has one
token for most items, the module says so when it is made.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from featurestore.errors import BadInput
from ingest.fuse import adapters
from ingest.fuse.attention import CrossAttention, Pool
from ingest.fuse.scaling import Scaling, check_width, key
from ingest.fuse.stored import Stored, Tokens

Attend = Literal["both", "coarse", "fine", "none"]
HALF = 0.5


class OneToken(UserWarning):
    """Attention over one token an item is a linear map."""


@dataclass(frozen=True)
class Fusion:
    """How a dual view is built.

    width: of either view. attend: which sides attend to the other; "none" leaves both as they were, so that the two
    views are their tokens pooled. token_dropout: share of tokens that are hidden, anew in each step.
    """

    width: int
    heads: int = 2
    adapter: str = "bottleneck"
    attend: Attend = "both"
    residual: bool = True
    norm: bool = True
    pooling: Literal["mean", "gated"] = "mean"
    dropout: float = 0.0
    token_dropout: float = 0.0
    scaling: str = "whiten"
    scaling_dim: int = 128


class Placed(NamedTuple):
    """Scaled vectors (m, R) of a feature, item after item, and their places (m,) among n x K. The row of each item's
    tokens (n, K), 0 where there is none, and which are there (n, K).
    """

    scaled: Tensor
    places: Tensor
    rows: Tensor
    there: Tensor


class Source(nn.Module):
    """One stored feature: how it is scaled, its adapter, and its tokens over the items given when it was made."""

    def __init__(self, name: str, stored: Stored, fusion: Fusion, fitted: Scaling | None = None) -> None:
        super().__init__()
        self.name = name
        self.scaling = Scaling(stored, fusion.scaling, fusion.scaling_dim) if fitted is None else fitted
        self.adapter = adapters.make(fusion.adapter, self.scaling.out_dim, fusion.width, fusion.dropout)
        placed = self.place(stored)
        # not kept with the weights: a release owns them
        for name, tensor in placed._asdict().items():
            self.register_buffer(name, tensor, persistent=False)

    scaled: Tensor
    places: Tensor
    rows: Tensor
    there: Tensor

    @property
    def most(self) -> int:
        """Tokens of the item that has most."""
        return int(self.rows.shape[1])

    @torch.no_grad()
    def place(self, stored: Stored) -> Placed:
        """Raises BadInput for vectors of another size than those it was made with, or that are no numbers."""
        check_width(self.name, stored, self.scaling)
        known = stored.known
        if not np.isfinite(known).all():
            raise BadInput(f"feature '{self.name}' has vectors with NaN or infinite values")
        counts = stored.counts if isinstance(stored, Tokens) else stored.present.astype(np.int64)
        most = max(int(counts.max(initial=0)), 1)
        there = np.arange(most) < counts[:, None]
        rows = np.where(there, (np.cumsum(counts) - counts)[:, None] + np.arange(most), 0)
        values = (
            known if len(known) else np.zeros((1, stored.width), np.float32)
        )  # row 0 stands at places that none fills
        device = self.scaling.mean.device
        scaled = self.scaling(torch.from_numpy(np.ascontiguousarray(values)).to(device))
        places = np.flatnonzero(there)
        return Placed(scaled, *(torch.from_numpy(array).to(device) for array in (places, rows, there)))

    def forward(self, items: Tensor | None = None, placed: Placed | None = None) -> tuple[Tensor, Tensor]:
        """Tokens (n, K, d) and which are there (n, K): of all items, of `items` (k,) rows, or of others, `placed`."""
        scaled, places, rows, there = placed or Placed(self.scaled, self.places, self.rows, self.there)
        if items is not None:
            rows, there = rows[items], there[items]
            places = there.flatten().nonzero().squeeze(1)
            scaled = scaled[rows.flatten()[places]]
        # each vector is adapted once and goes to its place; a place that none fills is zeros
        adapted = self.adapter(scaled)
        spread = adapted.new_zeros(there.numel(), adapted.shape[1])
        tokens = spread.index_copy(0, places, adapted[: len(places)])
        return tokens.view(*there.shape, adapted.shape[1]), there


class Side(nn.Module):
    """The tokens of several sources next to each other; an item without any has a learned one."""

    def __init__(self, sources: Sequence[Source], width: int) -> None:
        super().__init__()
        self.sources = list(sources)  # a plain list: the dual view owns them
        self.missing = nn.Parameter(torch.zeros(width))

    @property
    def single(self) -> float:
        """Share of items with one token at most."""
        counts = torch.stack([source.there.sum(dim=1) for source in self.sources]).sum(dim=0)
        return float((counts <= 1).double().mean())

    def forward(self, found: Mapping[str, tuple[Tensor, Tensor]], hidden: float) -> tuple[Tensor, Tensor]:
        """found: what each source gave. hidden: share of tokens that are as if they were not there."""
        own = [found[source.name] for source in self.sources]
        tokens, there = own[0]
        if len(own) > 1:
            tokens, there = (torch.cat(parts, dim=1) for parts in zip(*own, strict=True))
        if hidden > 0:
            there = there & (torch.rand(there.shape, device=there.device) >= hidden)
        none = ~there.any(dim=1)
        if not none.any():
            return tokens, there
        first = torch.zeros_like(there)
        first[:, 0] = none
        return torch.where(first[..., None], self.missing, tokens), there | first


@dataclass(frozen=True)
class Views:
    """coarse, fine: (n, d), the two fused views of each item."""

    coarse: Tensor
    fine: Tensor

    @property
    def joint(self) -> Tensor:
        """(n, 2 d)."""
        return torch.cat([self.coarse, self.fine], dim=-1)


class DualView(nn.Module):
    """Two fused views of each item.

    stored: the features by name, over the same n items. coarse, fine: which of them are on which side. A side without
    any reads the other side's tokens, so that a catalogue without descriptions, or without text, has two views still.
    fitted: scalings of one that was fitted before.

    Warns `OneToken` where a side that is attended to has one token at most for more than half of the items.
    """

    def __init__(
        self,
        stored: Mapping[str, Stored],
        coarse: Sequence[str],
        fine: Sequence[str],
        fusion: Fusion,
        fitted: Mapping[str, Scaling] | None = None,
    ) -> None:
        super().__init__()
        if not coarse and not fine:
            raise BadInput(
                "a dual view needs at least one feature", remedy="name features, for instance text"
            )
        if fusion.width % fusion.heads:
            raise BadInput(f"a view of width {fusion.width} cannot be shared by {fusion.heads} heads")
        self.fusion, self.out_dim = fusion, 2 * fusion.width
        names = [*coarse, *(name for name in fine if name not in coarse)]
        by_name = {name: Source(name, stored[name], fusion, (fitted or {}).get(name)) for name in names}
        self.sources = nn.ModuleDict({key(name): source for name, source in by_name.items()})
        self.views = tuple(name for name in coarse if by_name[name].most == 1)
        self.coarse = Side([by_name[name] for name in coarse or fine], fusion.width)
        self.fine = Side([by_name[name] for name in fine or coarse], fusion.width)
        self._warn()
        self.to_fine, self.to_coarse = (
            CrossAttention(fusion.width, fusion.heads, dropout=fusion.dropout)
            if fusion.attend in ("both", asking)
            else None
            for asking in ("coarse", "fine")
        )
        self.pool_coarse, self.pool_fine = (Pool(fusion.width, fusion.pooling) for _ in range(2))
        self.norm_coarse, self.norm_fine = (
            nn.LayerNorm(fusion.width) if fusion.norm else nn.Identity() for _ in range(2)
        )

    @property
    def _sources(self) -> list[Source]:
        return cast("list[Source]", list(self.sources.values()))

    def warn_of_alignment(self) -> None:
        """Say so where there are no two coarse views that could be aligned."""
        if len(self.views) < 2:
            there = "one coarse view" if self.views else "no coarse view"
            warnings.warn(
                f"{there}: nothing to align; give items a second feature of one vector each, or set align=none",
                OneToken,
                stacklevel=2,
            )

    def _warn(self) -> None:
        read = {"both": "coarse fine", "coarse": "fine", "fine": "coarse", "none": ""}[self.fusion.attend]
        for side in read.split():
            given: Side = getattr(self, side)
            if given.single > HALF:
                share = "an item" if given.single == 1 else f"in {given.single:.0%} of the items"
                names = ", ".join(source.name for source in given.sources)
                warnings.warn(
                    f"the {side} side has one token {share} ({names}): attention to it has nothing to choose from "
                    "there and is a linear map; give that side several features, or one of several vectors an item "
                    "(kind embed_tokens), in shorter parts (chunk_words)",
                    OneToken,
                    stacklevel=3,
                )

    def placed(self, stored: Mapping[str, Stored]) -> dict[str, Placed]:
        """Other items' features, scaled as those it was made with. Raises BadInput where one is not given."""
        for source in self._sources:
            if source.name not in stored:
                raise BadInput(
                    f"this model needs the feature '{source.name}' of an item",
                    remedy="publish a release that has it",
                )
        return {source.name: source.place(stored[source.name]) for source in self._sources}

    def forward(self, items: Tensor | None = None, placed: Mapping[str, Placed] | None = None) -> Views:
        """The views of all items (n, d), of the rows `items`, or of others that `placed` holds."""
        hidden = self.fusion.token_dropout if self.training else 0.0
        found = {source.name: source(items, (placed or {}).get(source.name)) for source in self._sources}
        coarse, coarse_there = self.coarse(found, hidden)
        fine, fine_there = self.fine(found, hidden)
        coarse_weight = self.pool_coarse(coarse, coarse_there)
        fine_weight = self.pool_fine(fine, fine_there)
        one = torch.einsum("nk,nkd->nd", coarse_weight, coarse)
        other = torch.einsum("nk,nkd->nd", fine_weight, fine)
        if self.to_fine is not None:
            asked = self.to_fine.pooled(coarse_weight, coarse, fine, fine_there)
            one = one + asked if self.fusion.residual else asked
        if self.to_coarse is not None:
            answered = self.to_coarse.pooled(fine_weight, fine, coarse, coarse_there)
            other = other + answered if self.fusion.residual else answered
        return Views(self.norm_coarse(one), self.norm_fine(other))

    def aligned(
        self, items: Tensor | None = None, placed: Mapping[str, Placed] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The coarse views that are to agree, (n, V, d), and which are there (n, V). V may be less than 2."""
        found = [
            source(items, (placed or {}).get(source.name))
            for source in self._sources
            if source.name in self.views
        ]
        if not found:
            tokens, there = self._sources[0](items, (placed or {}).get(self._sources[0].name))
            return tokens[:, :0], there[:, :0]
        return torch.cat([t for t, _ in found], dim=1), torch.cat([there for _, there in found], dim=1)
