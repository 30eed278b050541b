"""Transforms that learn from the catalogue: fitted again when asked to, and how far the catalogue went since.

The first fit is part of resolving a recipe (`ingest.resolve`); no other comes by itself.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from featurestore import journal, schema
from featurestore.errors import BadInput, Conflict
from ingest.encode.models import Models
from ingest.resolve import FIT_ROWS, LIVE, active, check, draft, fitted, live_ids, names, resolve, texts

if TYPE_CHECKING:
    from featurestore.definitions import FeatureDef
    from featurestore.recipe import Recipe
    from featurestore.store import Store

DRIFT_ROWS = 20_000  # texts looked at for words that a fit does not know


def fit_transform(store: Store, feature: str, refit: bool = False, *, wait: float | None = None) -> Recipe:
    """Fit a feature's transform on today's catalogue: a new artifact, a new recipe, a new table to fill.

    What is published keeps serving the old one. Raises BadInput for an encoder that is not fitted, Conflict where a
    fit exists and `refit` is not asked for.
    """
    with store.lock("fit", wait):
        begun = time.monotonic()
        definition = _fittable(store, feature, refit, Models(store.root))
        before = store.recipe(feature)
        recipe = resolve(store, definition, refit=True)[0]
        facts = store.locked()[feature].fitted or {}
        journal.record(
            store.root,
            "fit",
            feature=feature,
            recipe=recipe.short,
            before=before.short if before else None,
            items=facts.get("items"),
            texts=facts.get("texts"),
            seconds=round(time.monotonic() - begun, 3),
        )
        return recipe


@dataclass(frozen=True)
class FitPlan:
    """What a fit would learn from. recipe: the active one, whose values it would leave behind; None for a first fit."""

    feature: str
    encoder: str
    recipe: str | None
    columns: list[str]
    items: int
    texts: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan_fit(store: Store, feature: str, refit: bool = False) -> FitPlan:
    """What `fit_transform` would fit on; raises as it does, and writes nothing."""
    models = Models(store.root, read_only=True)
    definition = _fittable(store, feature, refit, models)
    recipe = draft(store, definition, store.recipes(), models)
    corpus = sum(1 for _ in texts(store, recipe, rows=FIT_ROWS))
    before = store.recipe(feature)
    return FitPlan(
        feature,
        definition.encoder,
        before.short if before else None,
        names(recipe),
        len(live_ids(store)),
        corpus,
    )


def _fittable(store: Store, feature: str, refit: bool, models: Models) -> FeatureDef:
    """The definition of a feature that may be fitted now."""
    definition = store.definitions.get(feature)
    check(store, definition)
    if definition.kind == schema.FUSE:
        raise BadInput(
            f"feature '{feature}' has weights, which are trained",
            remedy=f"dualview fit {store.root} {feature}",
        )
    if not fitted(definition):
        raise BadInput(
            f"feature '{feature}' has nothing to fit: encoder '{definition.encoder}' learns nothing from the catalogue",
            remedy="dualview materialize computes it",
        )
    if not store.tables.exists(schema.ITEMS):
        raise BadInput("the store has no items to fit on", remedy=f"dualview ingest {store.root} items.csv")
    locked = store.locked().get(feature)
    if locked is not None and locked.recipe.artifacts and not refit and active(store, definition, models):
        when = (locked.fitted or {}).get("at", "earlier")
        raise Conflict(
            f"feature '{feature}' is fitted already ({when}), and a new fit makes every vector anew",
            remedy=f"dualview fit {store.root} {feature} --refit",
        )
    return definition


@dataclass(frozen=True)
class Drift:
    """How far today's catalogue is from the one that a feature was fitted on.

    unknown_words: share of the words, in items added or edited since, that the fit does not know; None for one that
    has no vocabulary.
    """

    items_then: int
    items_now: int
    changed_since: int
    unknown_words: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def drift(store: Store, feature: str) -> Drift | None:
    """See `Drift`; None for a feature that is not fitted. Light: reads the vocabulary and the changed items only."""
    from ingest.encode.tfidf import ARTIFACT, unknown_words

    locked = store.locked().get(feature)
    if locked is None or not locked.fitted:
        return None
    recipe = locked.recipe
    since = f"{schema.UPDATED_AT} > timestamp '{locked.fitted['at'][:19].replace('T', ' ')}'"
    changed = store.tables.dataset(schema.ITEMS).count_rows(f"{LIVE} AND {since}")
    items = len(live_ids(store))
    if recipe.kind == schema.FUSE:
        return Drift(int(locked.fitted["items"]), items, changed, None)
    folder = store.artifacts.path(recipe.artifacts[ARTIFACT]) if ARTIFACT in recipe.artifacts else None
    words = recipe.options.get("terms", "letters") != "letters"  # an encoder of words
    new = list(texts(store, recipe, rows=DRIFT_ROWS, condition=since)) if changed and words else []
    return Drift(int(locked.fitted["items"]), items, changed, unknown_words(new, folder))
