"""The definition of an imported feature: found in features.toml, or appended to it; nothing else in it is touched."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featurestore import definitions as defs
from featurestore.definitions import DOCUMENT, Definitions, FeatureDef
from featurestore.errors import BadInput, Conflict, did_you_mean
from featurestore.recipe import COLUMN, FEATURE, ModelRef, Recipe
from featurestore.schema import IMAGE, IMPORTED, ITEMS, TITLE, attribute_fields, text_columns
from ingest.imported.values import ValueFile

if TYPE_CHECKING:
    from featurestore.store import Store


@dataclass(frozen=True)
class Said:
    """What the caller says of the values. None: as the definition has it, or the file's own origin."""

    model: str | None
    revision: str | None
    inputs: list[str] | None
    note: str


@dataclass(frozen=True)
class Declared:
    """toml: the text of features.toml with the feature in it; None where it is there already."""

    definition: FeatureDef
    recipe: Recipe
    toml: str | None


def declare(store: Store, feature: str, source: ValueFile, said: Said) -> Declared:
    """The definition and recipe of the values in `source`; nothing is written.

    Raises Conflict where features.toml has another definition under this name, BadInput for inputs that the catalogue
    has not and for values of which nothing says what made them.
    """
    path = store.root / defs.FILE
    text = path.read_text(encoding="utf-8")
    there = store.definitions
    found = there.features.get(feature)
    if found is not None:
        _agrees(found, source, said)
        active = store.recipes().get(feature)
        if active is not None and store.outdated(feature) is None and _same(active, source, said):
            return Declared(found, active, None)
    model = _model(source, said, found)
    if model is None and source.origin is None:
        raise BadInput(
            f"nothing says what made the values of '{feature}'",
            remedy="name the model: --model NAME (and --revision REVISION where it has one)",
        )
    if found is not None:
        return Declared(found, _recipe(source, model, _inputs(store, there, found)), None)
    table = _table(feature, source, said, model)
    whole = text.rstrip("\n") + ("\n\n" if text.strip() else "") + table
    try:
        definitions = defs.parse(whole, str(path))
    except BadInput as error:
        raise BadInput(
            f"the feature cannot be added to {path}: {error.message}",
            remedy=error.remedy or "see docs/exchange.md",
        ) from error
    definition = definitions.get(feature)
    recipe = _recipe(source, model, _inputs(store, definitions, definition))
    return Declared(definition, recipe, whole)


def _same(active: Recipe, source: ValueFile, said: Said) -> bool:
    """Whether the active recipe is that of this very file, and nothing else is said of it."""
    kept = {key: active.options.get(key) for key in source.identity}
    model = None if active.model is None else active.model.id
    revision = None if active.model is None else active.model.revision
    return kept == source.identity and said.model in (None, model) and said.revision in (None, revision)


def _model(source: ValueFile, said: Said, found: FeatureDef | None) -> ModelRef | None:
    """As the caller says, else as the file does, else as the definition does."""
    if said.model is not None:
        return ModelRef(id=said.model, revision=said.revision)
    made = (source.origin or {}).get("recipe", {}).get("model")
    if made:
        return ModelRef.model_validate(made)
    known = found.model if found is not None else None
    return None if known is None else ModelRef(id=known, revision=said.revision)


def _agrees(found: FeatureDef, source: ValueFile, said: Said) -> None:
    """Refuse what contradicts the definition that is there."""
    ours: dict[str, tuple[Any, Any]] = {"kind": (found.kind, IMPORTED)}
    if said.inputs is not None:
        ours["inputs"] = (found.inputs, said.inputs)
    if said.model is not None and found.model is not None:
        ours["model"] = (found.model, said.model)
    if found.kind == IMPORTED:
        for key, value in (("dim", source.dim), ("value", str(source.kind))):
            if key in found.options:
                ours[key] = (found.options[key], value)
    for key, (theirs, mine) in ours.items():
        if theirs != mine:
            raise Conflict(
                f"features.toml declares '{found.name}' with {key} = {json.dumps(theirs)}, the import says "
                f"{json.dumps(mine)}",
                remedy=f"import under another name, or edit [features.{found.name}] in features.toml first",
            )


def _table(feature: str, source: ValueFile, said: Said, model: ModelRef | None) -> str:
    """The feature as a table of features.toml. Basic strings of TOML are those of JSON."""
    name = feature if "." not in feature else json.dumps(feature)
    lines = [
        f"[features.{name}]",
        f'kind = "{IMPORTED}"',
        f"inputs = {json.dumps(said.inputs or [DOCUMENT], ensure_ascii=False)}",
        f'encoder = "{IMPORTED}"',
        f'value = "{source.kind}"',
    ]
    if source.dim is not None:
        lines.append(f"dim = {source.dim}")
    if model is not None:
        lines.append(f"model = {json.dumps(model.id, ensure_ascii=False)}")
    if said.note:
        lines.append(f"description = {json.dumps(said.note, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _recipe(source: ValueFile, model: ModelRef | None, inputs: list[str]) -> Recipe:
    """The file's hash is in it: other values are another recipe."""
    options = dict(source.identity)
    if source.origin is not None:
        options["origin"] = source.origin
    return Recipe(
        kind=IMPORTED,
        inputs=tuple(inputs),
        encoder=IMPORTED,
        model=model,
        options=options,
        value=source.kind,
        dim=source.dim,
    )


def _inputs(store: Store, definitions: Definitions, definition: FeatureDef) -> list[str]:
    """The recipe's inputs: columns, the picture, features with their active recipe; "text" spelled out as columns."""
    fields = store.tables.schema(ITEMS)
    above = definitions.upstream(definition.name)
    recipes = store.recipes()
    found: list[str] = []
    for given in definition.inputs:
        name = given.removeprefix(FEATURE)
        if name in above:
            if name not in recipes:
                raise BadInput(
                    f"feature '{name}', from which '{definition.name}' was made, was never computed",
                    remedy=f"dualview materialize {store.root} -f {name}",
                )
            found.append(f"{FEATURE}{name}@{recipes[name].id}")
        elif given == IMAGE:
            found.append(given)
        elif given == DOCUMENT:
            found += [f"{COLUMN}{column}" for column in text_columns(fields)]
        elif given not in fields.names or given.startswith("_"):
            known = [field.name for field in attribute_fields(fields)]
            raise BadInput(
                f"'{definition.name}' is said to be made from '{given}', which the items do not have",
                remedy=did_you_mean(given, [DOCUMENT, IMAGE, TITLE, *known]),
            )
        else:
            found.append(f"{COLUMN}{given}")
    return found
