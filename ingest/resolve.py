"""From a definition in features.toml to the active recipe: columns pinned, model known by hash, transform fitted.

A recipe stays active until its definition, the code's version, the model folder's content or a recipe that it reads
has changed. New or edited items never change it: `text` keeps meaning the columns that there were when it was resolved,
and a fitted transform keeps its fit until `dualview fit --refit`. To find that nothing changed takes no model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from featurestore import schema
from featurestore.definitions import DOCUMENT, FeatureDef
from featurestore.errors import BadInput, did_you_mean
from featurestore.recipe import COLUMN, FEATURE, Recipe, table_name
from featurestore.schema import State, ValueKind
from ingest.describe import base as describers
from ingest.describe import recipes, stored
from ingest.document import documents
from ingest.encode import base
from ingest.encode.models import Models
from ingest.fuse import recipes as fused

if TYPE_CHECKING:
    from featurestore.store import Store

IMPORTED = schema.IMPORTED
FIT_ROWS = 200_000  # texts a fit looks at, spread evenly over the ids


def check(store: Store, definition: FeatureDef) -> None:
    """Refuse a definition whose kind, encoder, options or inputs cannot be meant. Raises BadInput."""
    if definition.kind == IMPORTED:
        return
    if definition.kind == schema.DESCRIBE:
        recipes.check(store.root, definition, store.definitions)
        return
    if definition.kind == schema.FUSE:
        fused.check(definition, store.definitions)
        return
    where = f"features.toml, [features.{definition.name}]"
    if definition.kind not in base.kinds():
        raise BadInput(
            f"{where}: unknown kind '{definition.kind}'",
            remedy=did_you_mean(definition.kind, [*base.kinds(), schema.DESCRIBE, IMPORTED]),
        )
    maker = base.maker(definition.kind, definition.encoder)
    base.check_options(definition.name, maker, definition.options)
    if definition.model is not None and not maker.needs_model:
        raise BadInput(f"{where}: encoder '{definition.encoder}' takes no model", remedy="remove model")
    if maker.value is ValueKind.VECTORS and definition.index != "auto":
        raise BadInput(
            f"{where}: {definition.kind} gives several vectors an item, which have no index",
            remedy="remove index",
        )
    if definition.kind == "embed_image":
        if definition.inputs != [schema.IMAGE]:
            raise BadInput(f"{where}: embed_image reads the picture", remedy='inputs = ["image"]')
    elif schema.IMAGE in definition.inputs:
        raise BadInput(
            f"{where}: {definition.kind} reads no pictures", remedy='inputs = ["text"], or names of columns'
        )


def active(store: Store, definition: FeatureDef, models: Models | None = None) -> Recipe | None:
    """The locked recipe if it is still what is asked for, else None; see `outdated`."""
    return store.recipe(definition.name) if outdated(store, definition, models) is None else None


def outdated(store: Store, definition: FeatureDef, models: Models | None = None) -> str | None:
    """Why the locked recipe is not what is asked for today, or None if it is.

    Looks at names, sizes and times of files, and into a model's folder only where those changed.
    """
    locked = store.locked().get(definition.name)
    reason = store.outdated(definition.name)
    if locked is None or reason is not None:
        return reason or "never resolved"
    recipe = locked.recipe
    if definition.kind == IMPORTED:
        return None
    described = definition.kind == schema.DESCRIBE
    maker = (
        describers.maker(definition.encoder) if described else base.maker(definition.kind, definition.encoder)
    )
    if maker.code_version != recipe.code_version:
        return f"its code is of version {maker.code_version} now, the recipe of {recipe.code_version}"
    if described and (other := recipes.outdated(store.root, definition, recipe)):
        return other
    if definition.kind == schema.FUSE:
        return fused.outdated(store, definition, recipe)
    if fitted(definition) and not recipe.artifacts and any(texts(store, recipe, rows=1)):
        return "it was fitted on a catalogue without a word, which has some now"
    if recipe.model is not None and definition.model is not None:
        models = models or Models(store.root)
        if not models.unchanged(definition.model, recipe.model):
            return f"the model folder '{recipe.model.id}' holds other files now"
    return None


class Judgement:
    """What `status` cannot know from the ground: why the active recipe of a feature is not what is asked for, None
    where nothing speaks against it. As light as `outdated`.
    """

    def __init__(self, store: Store, *, read_only: bool = False) -> None:
        self._store = store
        self._models = Models(store.root, read_only=read_only)

    def __call__(self, definition: FeatureDef) -> str | None:
        try:
            check(self._store, definition)
            if self._store.tables.exists(schema.ITEMS) and definition.kind != IMPORTED:
                _check_columns(self._store, definition)
            return outdated(self._store, definition, self._models)
        except BadInput as error:
            return f"cannot be computed: {error.message}; {error.remedy}"


def draft(
    store: Store,
    definition: FeatureDef,
    recipes_above: Mapping[str, Recipe],
    models: Models,
    device: str = "auto",
) -> Recipe:
    """The recipe of a definition, but for what a fit would add; nothing is written.

    recipes_above: of the features that it reads. Raises BadInput, ModelUnavailable.
    """
    check(store, definition)
    if definition.kind == schema.FUSE:
        return fused.draft(store, definition, recipes_above)
    inputs = _inputs(store, definition, recipes_above)
    if definition.kind == schema.DESCRIBE:
        return recipes.draft(store.root, definition, inputs, models, device)
    maker = base.maker(definition.kind, definition.encoder)
    options = base.check_options(definition.name, maker, definition.options)
    resolved = maker.resolve(options, definition.model, models, device)
    return Recipe(
        kind=definition.kind,
        inputs=tuple(name for names in inputs.values() for name in names),
        encoder=definition.encoder,
        model=resolved.model,
        options=resolved.options,
        value=maker.value,
        dim=resolved.dim or 1,
        code_version=maker.code_version,
    )


def resolve(
    store: Store, definition: FeatureDef, *, device: str = "auto", refit: bool = False
) -> tuple[Recipe, tuple[str, ...]]:
    """Make and lock the recipe of a definition, fitting where its encoder is fitted; what it reads is resolved already.

    refit: fit anew even where all but the fit is as it was. Returns the recipe and notes for the user. The caller holds
    the writer's lock. Raises BadInput, ModelUnavailable.
    """
    recipe = draft(store, definition, store.recipes(), Models(store.root), device)
    if definition.kind == schema.DESCRIBE:
        prompt = recipes.keep(store.root, definition, store.artifacts)
        judged = stored.judge_again(store, definition.name, recipe)
        store.lock_recipe(definition.name, recipe, files=prompt)
        return recipe, (f"{judged:,} cells were judged by the new rules; nobody was asked",) if judged else ()
    if definition.kind == schema.FUSE:
        weights = fused.fit_of(store, definition, recipe.inputs)
        store.lock_recipe(definition.name, recipe, fused.facts_of(definition, weights))
        return recipe, ()
    if not fitted(definition):
        store.lock_recipe(definition.name, recipe)
        return recipe, ()
    before = store.locked().get(definition.name)
    if (
        not refit
        and before is not None
        and before.recipe.artifacts
        and _but_fit(before.recipe) == _but_fit(recipe)
    ):
        store.lock_recipe(definition.name, before.recipe, before.fitted, before.files)
        return before.recipe, ()  # features.toml says the same in other words
    maker = base.maker(definition.kind, definition.encoder)
    corpus = list(texts(store, recipe, rows=FIT_ROWS))
    fit = maker.fit(corpus, recipe.options)
    artifacts = {maker.artifact: store.artifacts.put(fit.files)} if fit.files else {}
    recipe = recipe.model_copy(update={"dim": fit.dim, "artifacts": artifacts})
    ids = live_ids(store)
    facts = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "items": len(ids),
        "items_sha256": hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest(),
        "texts": len(corpus),
        "notes": list(fit.notes),
    }
    store.lock_recipe(definition.name, recipe, facts)
    return recipe, (*fit.notes, *_too_early(store, definition.name, recipe, len(corpus)))


def _but_fit(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"dim": 1, "artifacts": {}})


def _too_early(store: Store, feature: str, recipe: Recipe, texts: int) -> Iterator[str]:
    """A word on each feature that a fit read before it was whole: the fit stays as it is."""
    for name, _ in recipe.upstream:
        states = store.plan(name)["state"]
        left = len(states) - int(pc.sum(pc.equal(states, State.CURRENT)).as_py() or 0)
        if left:
            count = f"{texts:,} {'text' if texts == 1 else 'texts'}"
            yield (
                f"fitted on {count} while {left:,} cells of '{name}' were not there; once they are: "
                f"dualview fit {store.root} {feature} --refit"
            )


def fitted(definition: FeatureDef) -> bool:
    """Whether `resolve` learns something from the catalogue; weights of kind fuse are trained apart."""
    if definition.kind in (IMPORTED, schema.DESCRIBE, schema.FUSE):
        return False
    return base.maker(definition.kind, definition.encoder).fitted


def fusions_last(store: Store, ordered: Sequence[FeatureDef]) -> list[FeatureDef]:
    """The features in an order in which those that wait for a fit, and what reads them, come after all others."""
    waiting: set[str] = set()
    for definition in ordered:
        above = set(store.definitions.upstream(definition.name))
        unfitted = definition.kind == schema.FUSE and outdated(store, definition) is not None
        if unfitted or above & waiting:
            waiting.add(definition.name)
    return sorted(ordered, key=lambda definition: definition.name in waiting)


LIVE = f"{schema.DELETED} IS NOT TRUE"


def texts(store: Store, recipe: Recipe, *, rows: int, condition: str | None = None) -> Iterator[str]:
    """Documents of live items that have any text, in order of id; at most `rows`, spread evenly."""
    tables = store.tables
    condition = f"{LIVE} AND {condition}" if condition else LIVE
    table = tables.read(schema.ITEMS, columns=[schema.ITEM_ID, *recipe.columns], filter=condition)
    table = joined(store, table.sort_by(schema.ITEM_ID), recipe)
    found = [text for text in documents(table, names(recipe), labels=bool(recipe.options["labels"])) if text]
    step = max(1.0, len(found) / rows)
    for place in range(min(rows, len(found))):
        yield found[int(place * step)]


def names(recipe: Recipe) -> list[str]:
    """Columns of `joined` that make a document, in the order of the recipe's inputs."""
    return [name.removeprefix(COLUMN).split("@")[0] for name in recipe.inputs]


def joined(store: Store, table: pa.Table, recipe: Recipe) -> pa.Table:
    """`table` (item_id and columns) with a column `feature:NAME` for each text feature that the recipe reads."""
    for name, recipe_id in recipe.upstream:
        above = store.tables.read(
            table_name(name, recipe_id),
            columns=[schema.ITEM_ID, schema.VALUE],
            filter=f"{schema.STATUS} = '{schema.Status.OK}'",
        )
        place = pc.index_in(table[schema.ITEM_ID], above[schema.ITEM_ID].combine_chunks())
        table = table.append_column(f"{FEATURE}{name}", above[schema.VALUE].take(place))
    return table


def _inputs(
    store: Store, definition: FeatureDef, recipes_above: Mapping[str, Recipe]
) -> dict[str, list[str]]:
    """The recipe's inputs by what they are declared as: "text" spelled out as columns, features with their recipe."""
    found: dict[str, list[str]] = {}
    above = store.definitions.upstream(definition.name)
    fields = _check_columns(store, definition)
    for given in definition.inputs:
        name = given.removeprefix(FEATURE)
        if name in above:
            recipe = recipes_above[name]  # what a feature reads is resolved before it
            if recipe.value is not ValueKind.TEXT:
                raise BadInput(
                    f"feature '{definition.name}' reads '{name}', which holds vectors, not texts",
                    remedy="read a feature of texts, or columns",
                )
            found[given] = [f"{FEATURE}{name}@{recipe.id}"]
        elif given == schema.IMAGE:
            found[given] = [given]
        elif given == DOCUMENT:
            found[given] = [f"{COLUMN}{column}" for column in schema.text_columns(fields)]
        else:
            found[given] = [f"{COLUMN}{given}"]
    return found


def _check_columns(store: Store, definition: FeatureDef) -> pa.Schema:
    """The items' columns; raises BadInput where the definition reads one that they do not have."""
    fields = store.tables.schema(schema.ITEMS)
    if definition.kind == schema.FUSE:
        return fields  # reads features alone
    above = store.definitions.upstream(definition.name)
    for given in definition.inputs:
        if given in (schema.IMAGE, DOCUMENT) or given.removeprefix(FEATURE) in above:
            continue
        if given not in fields.names or given.startswith("_"):
            known = [field.name for field in schema.attribute_fields(fields)]
            raise BadInput(
                f"feature '{definition.name}' reads '{given}', which the items do not have",
                remedy=did_you_mean(given, [DOCUMENT, schema.IMAGE, schema.TITLE, *known]),
            )
    return fields


def live_ids(store: Store) -> list[str]:
    """Ids of the items in today's catalogue, in no order."""
    ids = store.tables.read(schema.ITEMS, columns=[schema.ITEM_ID], filter=LIVE)
    return ids[schema.ITEM_ID].to_pylist()  # type: ignore[no-any-return]
