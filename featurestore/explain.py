"""How an answer came about, in words and numbers that can be kept as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from featurestore.query import Asked, Bool, Query
from featurestore.release import Release


def told(release: Release, query: Query, asked: Sequence[Asked], allowed: Bool | None) -> dict[str, Any]:
    """What holds for all of an answer: release, filter, features with recipe, index and route, words."""
    facts: dict[str, Any] = {
        "release": release.name,
        "mode": query.mode,
        "items": release.n_items,
        "items_passing_filter": None if allowed is None else int(allowed.sum()),
        "features": [_feature(release, query, one, allowed) for one in asked],
    }
    if query.unlike:
        facts["beta"] = query.beta
    if query.mode != "vector" and query.text is not None:
        facts["words"] = release.manifest["text"] | {"unknown": release.words.unknown(query.text)}
    return facts


def nothing(query: Query, allowed: Bool | None) -> str:
    """Why an answer is empty."""
    if allowed is not None and not allowed.any():
        return "no item satisfies the filter"
    within = " that satisfies the filter" if allowed is not None else ""
    if query.mode == "keyword":
        return f"no item{within} has a word of the query"
    return f"no other item{within} has a vector to compare"


def listed(words: Sequence[str]) -> str:
    """The first ten words, quoted."""
    return ", ".join(f"'{word}'" for word in words[:10]) + (", ..." if len(words) > 10 else "")


def _feature(release: Release, query: Query, one: Asked, allowed: Bool | None) -> dict[str, Any]:
    facts = release.facts(one.feature)
    return {
        "feature": one.feature,
        "weight": one.weight,
        "recipe": facts["recipe_id"],
        "encoder": facts["recipe"]["encoder"],
        "model": facts["recipe"]["model"],
        "asked_with": list(one.read),
        "could_not_read": list(one.unread),
        "index": facts["index"],
        "route": _route(query, one, allowed),
    }


def _route(query: Query, one: Asked, allowed: Bool | None) -> str:
    """How the index finds its best: "exact" looks at every vector, "gather" at those that the filter leaves, "ivf" at a
    shortlist.
    """
    from featurestore import ann, index

    mask = one.allowed(allowed)
    count = len(one.index) if mask is None else int(np.count_nonzero(mask))
    if mask is not None and count <= index.SELECTIVE * len(one.index):
        return "gather"
    if one.index.exact or query.exact:
        return "exact"
    return "gather" if count <= ann.GATHER_ROWS else "ivf"
