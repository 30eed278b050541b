"""The recipe of a feature of kind `fuse`: its inputs, the weights of its fit, and what is taken of them. No torch.

`materialize` trains nothing, so a recipe is made only where a fit stands: one of the same inputs by their recipes, with
the options that features.toml asks for. What is merely applied (output, normalised) may change without a new fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from featurestore import schema
from featurestore.definitions import Definitions, FeatureDef, Locked
from featurestore.errors import BadInput, NotFound
from featurestore.recipe import FEATURE, Recipe
from featurestore.schema import ValueKind
from ingest.encode import base
from ingest.encode.dmesr import APPLIED, ARTIFACT, FuseOptions

if TYPE_CHECKING:
    from featurestore.store import Store


class NotFitted(BadInput):
    """No fit stands that a feature could use."""


def options_of(definition: FeatureDef) -> FuseOptions:
    """Raises BadInput for an unknown encoder or option."""
    maker = base.maker(schema.FUSE, definition.encoder)
    return base.typed_options(definition.name, maker.name, FuseOptions, definition.options)


def check(definition: FeatureDef, definitions: Definitions) -> None:
    """Refuse a definition that cannot be meant. Raises BadInput."""
    where = f"features.toml, [features.{definition.name}]"
    options = options_of(definition)
    if definition.model is not None:
        raise BadInput(f"{where}: encoder '{definition.encoder}' takes no model", remedy="remove model")
    if options.width % options.heads:
        raise BadInput(
            f"{where}: a view of width {options.width} cannot be shared by {options.heads} heads",
            remedy="choose heads that divide width",
        )
    if options.output == "aligned" and definition.index != "auto":
        raise BadInput(
            f"{where}: output 'aligned' gives several vectors an item, which have no index",
            remedy="remove index",
        )
    names = _names(definition)
    if len(set(names)) != len(names):
        raise BadInput(f"{where}: 'inputs' lists each feature once", remedy="remove one")
    if options.same_fit is not None:
        _check_shared(definition, options, definitions, where)


def _check_shared(definition: FeatureDef, options: FuseOptions, definitions: Definitions, where: str) -> None:
    try:
        owner = definitions.get(str(options.same_fit))
    except NotFound as error:
        raise BadInput(f"{where}: same_fit: {error.message}", remedy=error.remedy) from None
    if owner.kind != schema.FUSE or "same_fit" in owner.options or owner.name == definition.name:
        raise BadInput(
            f"{where}: same_fit names '{owner.name}', which has no fit of its own",
            remedy="name a feature of kind fuse that is fitted itself",
        )
    if set(_names(owner)) != set(_names(definition)):
        raise BadInput(
            f"{where}: it reads other features than '{owner.name}', whose weights it uses",
            remedy=f"inputs = {list(owner.inputs)}",
        )
    own = [name for name in definition.options if name not in APPLIED]
    if own:
        raise BadInput(
            f"{where}: '{own[0]}' belongs to the fit, which is that of '{owner.name}'",
            remedy=f"set it there; here are {', '.join(APPLIED)}",
        )


def _names(definition: FeatureDef) -> list[str]:
    return [given.removeprefix(FEATURE) for given in definition.inputs]


def pinned(definition: FeatureDef, recipes: Mapping[str, Recipe]) -> tuple[str, ...]:
    """The inputs as a recipe names them. recipes: of the features that it reads, all of them vectors.

    Raises BadInput for one that holds texts, and where there is nothing to fuse.
    """
    names = _names(definition)
    for name in names:
        if recipes[name].value is ValueKind.TEXT:
            raise BadInput(
                f"feature '{definition.name}' fuses vectors, and '{name}' holds texts",
                remedy="declare a feature of kind embed_text or embed_tokens that reads it, and fuse that",
            )
    several = [name for name in names if recipes[name].value is ValueKind.VECTORS]
    if len(names) == 1 and not several:
        raise BadInput(
            f"feature '{definition.name}' has one input of one vector an item, and nothing to fuse it with",
            remedy="name another feature in inputs, or one of several vectors an item (kind embed_tokens)",
        )
    if options_of(definition).output == "aligned" and len(several) == len(names):
        raise BadInput(
            f"feature '{definition.name}' has no coarse input (one vector an item), so none to give aligned",
            remedy='output = "joint", or a further input',
        )
    return tuple(f"{FEATURE}{name}@{recipes[name].id}" for name in names)


def fit_of(store: Store, definition: FeatureDef, inputs: tuple[str, ...]) -> Locked:
    """What the lock holds of the fit that a feature uses: its own, or that of `same_fit`. Raises NotFitted."""
    owner = options_of(definition).same_fit or definition.name
    locked = store.locked().get(owner)
    facts = (locked.fitted if locked is not None else None) or {}
    if locked is None or locked.recipe.kind != schema.FUSE or ARTIFACT not in locked.recipe.artifacts:
        why = "was never fitted"
    elif other := sorted(set(inputs) ^ set(locked.recipe.inputs)):
        name = other[0].removeprefix(FEATURE).split("@")[0]
        why = f"was fitted on other vectors than today's of '{name}'"
    elif not _asks(options_of(store.definitions.get(owner)), facts["asked"]):
        why = "was fitted with other options than features.toml has now"
    else:
        return locked
    run = facts.get("events", {}).get("run")
    raise NotFitted(
        f"feature '{owner}' {why}, and materialize trains nothing",
        remedy=f"dualview fit {store.root} {owner}"
        + (f" (or take a run's weights, as from {run})" if run else ""),
    )


def _asks(options: FuseOptions, asked: Mapping[str, Any]) -> bool:
    """Whether a fit is what options ask for; one that is younger than the fit stands at its default there."""
    try:
        return options.asked == FuseOptions.model_validate(asked).asked
    except ValidationError:
        return False  # an option that there is no more


def draft(store: Store, definition: FeatureDef, recipes: Mapping[str, Recipe]) -> Recipe:
    """The recipe by the fit that stands. Raises BadInput, and NotFitted where none does."""
    inputs = pinned(definition, recipes)
    return made(definition, inputs, fit_of(store, definition, inputs))


def made(definition: FeatureDef, inputs: tuple[str, ...], fit: Locked) -> Recipe:
    return with_fit(definition, inputs, fit.recipe.artifacts[ARTIFACT], fit.fitted or {})


def with_fit(
    definition: FeatureDef, inputs: tuple[str, ...], artifact: str, facts: Mapping[str, Any]
) -> Recipe:
    """The recipe of a feature whose weights are kept under `artifact`. facts: of the fit."""
    options = options_of(definition)
    width = int(facts["width"])
    return Recipe(
        kind=schema.FUSE,
        inputs=inputs,
        encoder=definition.encoder,
        options={"output": options.output, "normalised": options.normalised} | facts["options"],
        value=ValueKind.VECTORS if options.output == "aligned" else ValueKind.VECTOR,
        dim=2 * width if options.output == "joint" else width,
        artifacts={ARTIFACT: artifact},
        code_version=base.maker(schema.FUSE, definition.encoder).code_version,
    )


def facts_of(definition: FeatureDef, fit: Locked) -> dict[str, Any]:
    """What the lock says of the fit of a feature: all that its owner's entry says, events above all."""
    shared = options_of(definition).same_fit
    return dict(fit.fitted or {}) | ({"same_fit": shared} if shared else {})


def outdated(store: Store, definition: FeatureDef, recipe: Recipe) -> str | None:
    """Why the weights of the active recipe are not those it should have, or None. Inputs are as they should be."""
    try:
        fit = fit_of(store, definition, recipe.inputs)
    except NotFitted as error:
        return error.message
    if fit.recipe.artifacts != recipe.artifacts:
        return f"'{options_of(definition).same_fit}', whose fit it uses, was fitted anew"
    return None
