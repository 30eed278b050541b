"""What a cell shows its model: items as candidates, and what is told of users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import BadInput, NotFound
from featurestore.files import canonical_json, sha256_text
from recommender.msr.material import Material, material
from recommender.msr.models import resolve
from recommender.msr.pairs import Pairs, draw_pairs
from recommender.msr.study.preparing import opened, recipe_id

if TYPE_CHECKING:
    from recommender.events import EventLog
    from recommender.msr.config import MsrConfig
    from recommender.msr.study.grid import MsrCell, MsrStudy


def options_of(store: Any, release: Any, cell: MsrCell, device: str = "auto") -> MsrConfig:
    """The arm's options with the seed, and for its preference the recipe of it."""
    arm = cell.arm
    assert arm is not None
    more: dict[str, Any] = {"seed": cell.seed or 0}
    if arm.preference is not None:
        more["preference"] = recipe_id(store, release, arm.preference, device)
    options: MsrConfig = arm.options.model_copy(update=more)  # type: ignore[assignment]
    return options


def material_of(store: Any, release: Any, log: EventLog, config: MsrConfig) -> Material:
    from ingest.describe.transformers_vlm import sees

    return material(store, release, log, config, sees=sees(resolve(store.root, config.model).folder))


def shown(given: Material, pairs: Pairs) -> dict[str, Any]:
    """picture: whether items show theirs. items, users: sha256 of what is shown of candidates and told of users."""
    return {
        "picture": given.shelf.pictured,
        "items": of_items(given, pairs),
        "users": of_users(given, pairs),
    }


def of_items(given: Material, pairs: Pairs) -> str:
    items = np.unique(np.concatenate([each.items.ravel() for each in pairs.parts.values()]))
    return sha256_text(canonical_json([given.shelf[item].facts for item in items.tolist()]))


def of_users(given: Material, pairs: Pairs) -> str:
    told = [one.text for each in pairs.parts.values() for one in given.tell(each)]
    return sha256_text(canonical_json(told))


def differs(study: MsrStudy, cell: MsrCell, then: Mapping[str, Any]) -> list[str]:
    """What today's release shows otherwise than `then`, in words."""
    store, release, log = opened(study)
    pairs = draw_pairs(log, cell.pairs)
    told = []
    try:
        given = material_of(store, release, log, options_of(store, release, cell))
        if of_items(given, pairs) != then["items"]:
            told.append("candidates are shown otherwise")
        if of_users(given, pairs) != then["users"]:
            told.append("other things are told of users")
    except (NotFound, BadInput) as error:  # a text, a summary, or preferences that were not made anew
        told.append(error.message)
    return told
