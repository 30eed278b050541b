"""From a release, or a bare log, to what training reads: a split and the stored vectors of its items."""

from __future__ import annotations

from typing import Any

from featurestore.errors import BadInput
from ingest.fuse.stored import Stored, Tokens, Vectors
from recommender.config import Config
from recommender.events import EventLog, Strings, k_core
from recommender.splits import Split, global_time, hide_items, leave_one_out


def split_of(source: Any, config: Config) -> Split:
    """The split that `config` names. source: a Split (taken as it is), an EventLog, or a Release."""
    if isinstance(source, Split):
        return source
    log = source if isinstance(source, EventLog) else EventLog.from_release(source)
    if config.k_core is not None:
        log = k_core(log, *config.k_core)
    if not len(log):
        asked = f" after the {config.k_core} core" if config.k_core else ""
        raise BadInput(
            f"no interactions are left to learn from{asked}",
            remedy="ingest interactions and publish, or lower k_core",
        )
    split = global_time(log) if config.split == "global-time" else leave_one_out(log)
    return hide_items(split, config.hide_items, config.hide_seed) if config.hide_items else split


def features_of(release: Any, config: Config, item_ids: Strings) -> dict[str, Stored]:
    """The stored vectors that `config.items` names, in the order of `item_ids`."""
    found: dict[str, Stored] = {}
    for name in config.features:
        matrix = release.matrix(name)
        if matrix.offsets is None:
            found[name] = Vectors.aligned(matrix.ids, matrix.values, item_ids)
        else:
            found[name] = Tokens.aligned(matrix.ids, matrix.values, matrix.offsets, item_ids)
    return found
