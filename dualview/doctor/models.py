"""The models that a store's features name: whether each can be had right now, and is the one its recipe names."""

from __future__ import annotations

from dualview.doctor import Finding
from dualview.store import Store
from featurestore.definitions import FeatureDef
from featurestore.errors import BadInput, ModelUnavailable
from ingest.encode import base
from ingest.encode.models import Models


def examine(store: Store) -> list[Finding]:
    return [_model(store, feature) for feature in store.definitions if feature.model is not None]


def _model(store: Store, feature: FeatureDef) -> Finding:
    assert feature.model is not None
    models, recipe = Models(store.root), store.recipe(feature.name)
    about = f"model of {feature.name}"
    try:
        maker = base.maker(feature.kind, feature.encoder)
        options = base.check_options(feature.name, maker, feature.options)
        place = models.reach(
            maker.repository(options, feature.model, models),
            recipe.model.revision if recipe and recipe.model else None,
        )
    except ModelUnavailable as error:
        return Finding(about, "problem", error.message, error.remedy)
    except BadInput as error:
        return Finding(about, "problem", error.message, error.remedy)
    if recipe and recipe.model and not models.unchanged(feature.model, recipe.model):
        says = f"{feature.model} holds other weights than those that the stored vectors were made with"
        return Finding(
            about, "note", says, f"dualview materialize {store.root} makes them anew, or put the old back"
        )
    return Finding(about, "ok", f"{feature.model}: {place}")
