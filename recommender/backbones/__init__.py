"""Sequence models: vectors of a user's events in, at each event a vector to score items with out.

A backbone knows no item and no table of items: `forward(vectors (T, d), lengths (B,)) -> (T, d)` over packed
sequences, and `answer(vectors, lengths) -> (B, d)` for what comes after them.

| name | is | reads |
|---|---|---|
| `sasrec` | a causal Transformer | `length` events |
| `gru4rec` | a recurrent network | `length` events |
| `bert4rec` | a Transformer that sees both sides, trained to find hidden events | `length` - 1 events, and a mask |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recommender.backbones.base import Backbone, Layered
    from recommender.config import Config


def _sasrec(config: Config, width: int) -> Layered:
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


def _gru4rec(config: Config, width: int) -> Layered:
    from recommender.backbones.gru4rec import GRU4Rec

    return GRU4Rec(
        width, length=config.length, layers=config.layers, hidden=config.hidden, dropout=config.dropout
    )


def _bert4rec(config: Config, width: int) -> Layered:
    from recommender.backbones.bert4rec import BERT4Rec

    return BERT4Rec(
        width,
        length=config.length,
        layers=config.layers,
        heads=config.heads,
        inner=config.inner,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
    )


BUILDERS: dict[str, Callable[[Config, int], Layered]] = {
    "sasrec": _sasrec,
    "gru4rec": _gru4rec,
    "bert4rec": _bert4rec,
}


def build(config: Config, width: int) -> Backbone:
    """The backbone that `config` names, for vectors of `width`; with two views, shared by both halves of them."""
    if not config.parallel:
        return BUILDERS[config.backbone](config, width)
    from recommender.backbones.views import VIEWS, SequenceAttention, SharedViews

    causal = config.backbone != "bert4rec" and config.causal
    mixer = None
    if config.attends_across:
        mixer = SequenceAttention(
            width // VIEWS, config.view_heads, causal=causal, residual=config.across_residual
        )
    return SharedViews(BUILDERS[config.backbone](config, width // VIEWS), mixer)
