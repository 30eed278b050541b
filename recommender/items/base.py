"""What a model asks of its items.

Two decisions. Stored vectors stay frozen and are scaled once, by statistics of the catalogue that are kept with the
weights, so an item that came later is scaled as training's were. And `embed` makes the vector of an item from its
features alone; to have that mean something, a tower with ids drops them at random while it learns, and items
that training never saw never had one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from ingest.fuse.stored import Stored


class Tower(Protocol):
    """`tower(rows (k,)) -> (k, d)`, `all_items() -> (n, d)`, with d = `out_dim`; row i is item i of the vocabulary.

    A tower of two views (`Config.parallel`) has them side by side, each of half the width.
    """

    out_dim: int

    def __call__(self, rows: Tensor) -> Tensor: ...

    def all_items(self) -> Tensor: ...

    def embed(self, features: Mapping[str, Stored]) -> Tensor: ...
