"""How preferences are made: options, checked and resolved to a recipe; and what a release says of an item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from featurestore import schema
from featurestore.errors import BadInput, did_you_mean
from featurestore.preferences import KIND
from featurestore.recipe import COLUMN, FEATURE, Recipe
from featurestore.schema import ValueKind
from ingest.describe import base, checks, prompts, recipes
from ingest.describe.base import DescribeOptions, PromptedOptions, ReadingOptions
from ingest.document import documents
from ingest.encode.base import typed
from recommender.msr.states import Shape

if TYPE_CHECKING:
    from featurestore.release import Release
    from ingest.describe.prompts import Prompt
    from ingest.encode.models import Models

WRITTEN, LISTED = (
    "msr-preference",
    "msr-list",
)  # the prompts of describers that ask a model, and of `template`
CUT = " ..."
_OURS = ("variant", "block", "last", "item_words", "labels")  # options of a recipe that say what is shown


class PreferenceOptions(BaseModel):
    """How to make preferences: `PreferenceOptions.of(backend="template")`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    backend: str = Field(description="the describer: template, transformers or openai")
    model: str | None = Field(None, description="hub id or folder; what an endpoint calls it")
    prompt: str | None = Field(
        None, description="shipped prompt, or a file (a relative path starts at the store)"
    )
    block: int = Field(3, ge=1, description="events that one step reads")
    last: int | None = Field(None, ge=1, description="events of a user that are read at most, the latest")
    direct: bool = Field(False, description="one prompt over all events instead of steps")
    summary: str | None = Field(
        None, description="feature of texts that tells of an item beside its title; none: the text columns"
    )
    item_words: int = Field(60, ge=1, description="an item's text is cut to so many words")
    labels: bool = Field(True, description="write each column's name before its value")
    options: dict[str, JsonValue] = Field({}, description="of the describer, as in features.toml")

    @classmethod
    def of(cls, **given: Any) -> PreferenceOptions:
        """Raises BadInput, with the nearest name for an unknown option."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            option = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise BadInput(
                    f"preferences have no option '{option}'", remedy=did_you_mean(option, cls.model_fields)
                ) from None
            raise BadInput(
                f"preferences: {option} = {first.get('input')!r}: {first['msg']}", remedy="correct the value"
            ) from None

    @property
    def shape(self) -> Shape:
        return Shape(None if self.direct else self.block, self.last)


def typed_options(options: PreferenceOptions) -> DescribeOptions:
    """The describer's own options. Raises BadInput for an unknown describer, or one that reads no texts."""
    known = [name for name in base.known() if issubclass(base.maker(name).options, ReadingOptions)]
    if options.backend not in known:
        raise BadInput(
            f"preferences are not made by '{options.backend}'", remedy=did_you_mean(options.backend, known)
        )
    for taken in ("prompt", "slots", "labels"):
        if taken in options.options:
            raise BadInput(
                f"preferences: '{taken}' is none of the describer's options here",
                remedy=f"give {taken} by itself" if taken != "slots" else "remove it",
            )
    maker = base.maker(options.backend)
    if maker.needs_model and options.model is None:
        raise BadInput(
            f"preferences: '{options.backend}' needs a model",
            remedy="name one: --model ID, a hub id, a folder, or what the endpoint calls it",
        )
    default = WRITTEN if issubclass(maker.options, PromptedOptions) else LISTED
    given = {**options.options, "prompt": options.prompt or default, "labels": options.labels}
    return typed("preferences", maker.name, maker.options, given)


def draft(
    root: Any, release: Release, options: PreferenceOptions, models: Models, device: str = "auto"
) -> tuple[Recipe, Prompt]:
    """The recipe over a release's texts, and its prompt; nothing is written. root: the store's folder.

    Raises BadInput for what cannot be meant, NotFound for a prompt or feature that is not there, ModelUnavailable.
    """
    own = typed_options(options)
    prompt = recipes.prompt_of(root, own)
    if prompts.ITEMS not in prompt.slots:
        raise BadInput(
            f"the prompt {prompt.source} does not show what the user took",
            remedy=f"write {{{prompts.ITEMS}}} into it, or leave prompt out for {WRITTEN}",
        )
    if options.shape.variant == "recurrent" and prompts.PREFERENCE not in prompt.slots:
        raise BadInput(
            f"the prompt {prompt.source} does not show what was said of the user before",
            remedy=f"write {{{prompts.PREFERENCE}?}} into it, or ask for everything at once: direct",
        )
    if (slot := prompt.slots.get(prompts.PREFERENCE)) is not None and not slot.optional:
        raise BadInput(
            f"the prompt {prompt.source} wants a preference from before, which a user's first block has not",
            remedy=f"make it optional: {{{prompts.PREFERENCE}?}}",
        )
    recipes.check_asking("preferences", options.backend, options.model, own, prompt)
    maker = base.maker(options.backend)
    resolved = maker.resolve(own, options.model, models, device)
    said = dict(resolved.options)
    if prompts.WORDS not in prompt.slots:
        said.pop(prompts.WORDS, None)
    if isinstance(own, PromptedOptions):
        said[recipes.CHECKS] = checks.VERSION
    shape = options.shape
    ours = (shape.variant, shape.block, shape.last, options.item_words, options.labels)
    recipe = Recipe(
        kind=KIND,
        inputs=_inputs(release, options.summary),
        encoder=options.backend,
        model=resolved.model,
        options=said | dict(zip(_OURS, ours, strict=True)),
        value=ValueKind.TEXT,
        artifacts={prompts.ARTIFACT: prompt.sha256},
        code_version=maker.code_version,
    )
    return recipe, prompt


def shape_of(recipe: Recipe) -> Shape:
    block, last = recipe.options["block"], recipe.options["last"]
    assert isinstance(block, int | None)
    assert isinstance(last, int | None)
    return Shape(block, last)


def item_texts(release: Release, recipe: Recipe) -> dict[str, str]:
    """item id -> what is said of it, "" for nothing. Raises NotFound for a feature that the release does not hold."""
    catalogue = release.catalogue
    columns = {column: catalogue[column] for column in recipe.columns if column in catalogue.column_names}
    for name, _ in recipe.upstream:
        columns[f"{FEATURE}{name}"] = catalogue[_column(release, name)]
    told = documents(pa.table(columns), list(columns), labels=bool(recipe.options["labels"]))
    most = recipe.options["item_words"]
    assert isinstance(most, int)
    return {
        item: shortened(text, most)
        for item, text in zip(catalogue[schema.ITEM_ID].to_pylist(), told, strict=True)
    }


def shortened(text: str, words: int) -> str:
    """A text's first so many words, its lines kept; a mark says where it was cut.

    >>> shortened("a lamp of\\nbrass", 3)
    'a lamp of ...'
    """
    lines: list[str] = []
    left = words
    for line in text.split("\n"):
        said = line.split()
        if len(said) > left:
            kept = " ".join(said[:left])
            return "\n".join([*lines, kept] if kept else lines) + CUT
        left -= len(said)
        lines.append(line)
    return "\n".join(lines)


def listed(texts: list[str]) -> str:
    """Texts as a list, one entry each; those that say nothing are left out."""
    return "\n".join("- " + text.replace("\n", "\n  ") for text in texts if text)


def _inputs(release: Release, summary: str | None) -> tuple[str, ...]:
    if summary is not None:
        recipe = release.facts(summary)["recipe_id"]
        _column(release, summary)
        return f"{COLUMN}{schema.TITLE}", f"{FEATURE}{summary}@{recipe}"
    fields = release.catalogue.schema
    features = {facts.get("column") for facts in release.manifest["features"].values()}
    return tuple(f"{COLUMN}{name}" for name in schema.text_columns(fields) if name not in features)


def _column(release: Release, feature: str) -> str:
    """The catalogue's column of a feature. Raises NotFound, and BadInput for one that holds no texts."""
    facts = release.facts(feature)
    if "column" not in facts:
        raise BadInput(
            f"feature '{feature}' holds vectors, not texts", remedy="a feature of kind describe, published"
        )
    return str(facts["column"])
