"""Does a model use a feature at all? Its vectors exchanged among the items answer that.

What a shuffled feature keeps is everything but which item a vector belongs to: the same vectors, the same items
without one. A model that does no worse with it did not use what it says.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

SEED = 2026


def shuffled(features: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """`features` with those of `names` exchanged among the items that have them, each by a permutation of its own.

    features: Vectors (values (n, D), present (n,)) or Tokens (values (m, D), offsets (n + 1,)). The permutation depends
    on the feature's name and on how many items have it, never on a cell's seed.
    """
    chosen = set(names)
    return {name: _exchanged(found, name) if name in chosen else found for name, found in features.items()}


def _exchanged(feature: Any, name: str) -> Any:
    random = np.random.default_rng((SEED, zlib.crc32(name.encode())))
    if not hasattr(feature, "offsets"):
        rows = np.flatnonzero(feature.present)
        values = feature.values.copy()
        values[rows] = feature.values[random.permutation(rows)]
        return dataclasses.replace(feature, values=values)
    first, counts = feature.offsets[:-1], np.diff(feature.offsets)
    rows = np.flatnonzero(counts)
    source = np.arange(len(counts))
    source[rows] = random.permutation(rows)
    offsets = np.concatenate([[0], np.cumsum(counts[source])]).astype(feature.offsets.dtype)
    taken = np.repeat(first[source] - offsets[:-1], counts[source]) + np.arange(int(offsets[-1]))
    return dataclasses.replace(feature, values=feature.values[taken], offsets=offsets)
