"""Sequence models: vectors of a user's events in, at each event a vector to score items with out.

A backbone knows no item and no table of items: `forward(vectors (T, d), lengths (B,)) -> (T, d)` over packed
sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from recommender.config import Config


def _sasrec(config: Config, width: int) -> nn.Module:
    from recommender.backbones.sasrec import SASRec

    return SASRec(
        width,
        length=config.length,
        layers=config.layers,
        heads=config.heads,
        inner=config.inner or width,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        causal=config.causal,
    )


BUILDERS: dict[str, Callable[[Config, int], nn.Module]] = {"sasrec": _sasrec}


def build(config: Config, width: int) -> nn.Module:
    """The backbone that `config` names, for vectors of `width`."""
    return BUILDERS[config.backbone](config, width)
