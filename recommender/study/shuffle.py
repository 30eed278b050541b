"""Does a model use a feature at all? Its vectors exchanged among the items answer that.

What a shuffled feature keeps is everything but which item a vector belongs to: the same vectors, the same items
without one. A model that does no worse with it did not use what it says.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

import numpy as np

from ingest.fuse.stored import Stored

SEED = 2026


def shuffled(features: Mapping[str, Stored], names: Iterable[str]) -> dict[str, Stored]:
    """`features` with those of `names` exchanged among the items that have them, each by a permutation of its own.

    The permutation depends on the feature's name and on how many items have it, never on a cell's seed.
    """
    chosen = set(names)
    return {name: _exchanged(found, name) if name in chosen else found for name, found in features.items()}


def _exchanged(feature: Stored, name: str) -> Stored:
    random = np.random.default_rng((SEED, zlib.crc32(name.encode())))
    source, rows = np.arange(len(feature)), np.flatnonzero(feature.present)
    source[rows] = random.permutation(rows)
    return feature.take(source)
