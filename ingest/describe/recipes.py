"""From the definition of a described feature to its recipe, and whether that still is what is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore import files, schema
from featurestore.definitions import Definitions, FeatureDef
from featurestore.errors import BadInput, DualviewError
from featurestore.recipe import COLUMN, FEATURE, Recipe
from featurestore.schema import ValueKind
from ingest.describe import base, checks, prompts
from ingest.describe.base import DescribeOptions, PromptedOptions, ReadingOptions
from ingest.describe.prompts import WORDS, Prompt
from ingest.describe.reading import READS, Binding, bind
from ingest.encode.base import typed_options

if TYPE_CHECKING:
    from featurestore.artifacts import Artifacts
    from ingest.encode.models import Models

CHECKS = "checks"  # the option of a recipe that says by which rules answers are judged
JUDGING = (CHECKS, "on_length", "refusals")  # options that decide what is kept of an answer, not what it is
PICTURE = prompts.parse("## user\n{image}\n", "of a describer without one")


def options_of(definition: FeatureDef) -> DescribeOptions:
    """The options of a definition, typed. Raises BadInput."""
    maker = base.maker(definition.encoder)
    return typed_options(definition.name, maker.name, maker.options, definition.options)


def prompt_of(root: Path, options: DescribeOptions) -> Prompt:
    """The prompt that a definition names today. root: the store's folder. Raises NotFound, BadInput."""
    return prompts.find(options.prompt, root) if isinstance(options, ReadingOptions) else PICTURE


def prompt_in(recipe: Recipe, artifacts: Artifacts) -> Prompt:
    """The prompt of a recipe, from the artifact that it names."""
    if prompts.ARTIFACT not in recipe.artifacts:
        return PICTURE
    kept = artifacts.path(recipe.artifacts[prompts.ARTIFACT]) / prompts.FILE
    return prompts.parse(kept.read_text(encoding="utf-8"), str(kept))


def checks_of(recipe: Recipe, prompt: Prompt) -> checks.Checks:
    """What the answers of a recipe are held against."""
    maker = base.maker(recipe.encoder)
    refusals: Any = recipe.options.get("refusals")
    return checks.Checks(
        refusals=refusals,
        instructions=prompt.instructions,
        schema=prompt.schema,
        on_length=str(recipe.options.get("on_length", "keep")),
        generated=CHECKS in recipe.options,
        varies=maker.remote,
    )


def check(root: Path, definition: FeatureDef, definitions: Definitions) -> None:
    """Refuse what cannot be meant: encoder, options, prompt, and inputs that do not fit it. Raises BadInput."""
    where = _where(definition)
    maker = base.maker(definition.encoder)
    options = options_of(definition)
    prompt = prompt_of(root, options)
    check_asking(where, definition.encoder, definition.model, options, prompt)
    above = definitions.upstream(definition.name)
    declared = {
        given: [f"{FEATURE}{bare}" if (bare := given.removeprefix(FEATURE)) in above else _plain(given)]
        for given in definition.inputs
    }
    binding = _bound(where, prompt, options, declared)
    if maker.blind and schema.IMAGE in binding.reads:
        raise BadInput(
            f"{where}: encoder '{definition.encoder}' sees no pictures, and the prompt {prompt.source} shows one",
            remedy="name a prompt without {image}",
        )


def check_asking(
    where: str, encoder: str, model: str | None, options: DescribeOptions, prompt: Prompt
) -> None:
    """Refuse a model that is not needed or lacking, and a prompt that asks for more than its describer does."""
    maker = base.maker(encoder)
    if model is not None and not maker.needs_model:
        raise BadInput(f"{where}: encoder '{encoder}' takes no model", remedy="remove model")
    if model is None and maker.needs_model:
        raise BadInput(f"{where}: encoder '{encoder}' needs a model", remedy='write model = "..."')
    if isinstance(options, PromptedOptions):
        checks.compile_refusals(options.refusals or [])
        return
    if prompt.schema is not None:
        raise BadInput(
            f"{where}: the prompt {prompt.source} asks for JSON, and '{encoder}' asks nobody",
            remedy="name a prompt without '## schema'",
        )
    if WORDS in prompt.slots:
        raise BadInput(
            f"{where}: the prompt {prompt.source} asks for a number of words, and '{encoder}' asks nobody",
            remedy=f"leave prompt out for the item's text as it stands, or name one without {{{WORDS}}}",
        )


def draft(
    root: Path, definition: FeatureDef, inputs: Mapping[str, Sequence[str]], models: Models, device: str
) -> Recipe:
    """The recipe of a definition that was checked; nothing is written. inputs: declared -> as in a recipe."""
    maker = base.maker(definition.encoder)
    options = options_of(definition)
    prompt = prompt_of(root, options)
    binding = _bound(_where(definition), prompt, options, inputs)
    resolved = maker.resolve(options, definition.model, models, device)
    own = dict(resolved.options)
    if WORDS not in prompt.slots:
        own.pop(WORDS, None)  # an option that the prompt does not ask for
    if isinstance(options, PromptedOptions):
        own[CHECKS] = checks.VERSION
    artifacts = {prompts.ARTIFACT: prompt.sha256} if isinstance(options, ReadingOptions) else {}
    return Recipe(
        kind=schema.DESCRIBE,
        inputs=tuple(dict.fromkeys(name for names in inputs.values() for name in names)),
        encoder=definition.encoder,
        model=resolved.model,
        options=own | {READS: binding.option},
        value=ValueKind.TEXT,
        artifacts=artifacts,
        code_version=maker.code_version,
        required=binding.required,
    )


def question(recipe: Recipe) -> str:
    """What of a recipe decides its answers: all but how they are judged.

    Recipes with one question send the same for equal input hashes, which hold the very texts of features that are read.
    """
    said: Any = recipe.canonical()
    said["options"] = {key: value for key, value in said["options"].items() if key not in JUDGING}
    said["inputs"] = [name.split("@")[0] for name in recipe.inputs]
    said["required"] = [[name.split("@")[0] for name in group] for group in recipe.required]
    return files.canonical_json(said)


def keep(root: Path, definition: FeatureDef, artifacts: Artifacts) -> dict[str, str]:
    """Keep the prompt as an artifact; returns the files beside features.toml that it came from, with their sha256."""
    options = options_of(definition)
    if not isinstance(options, ReadingOptions):
        return {}
    artifacts.put(prompt_of(root, options).contents)
    if not prompts.is_file(options.prompt):
        return {}
    path = str(Path(options.prompt).expanduser())
    return {path: files.sha256_file(root / path)}


def outdated(root: Path, definition: FeatureDef, recipe: Recipe) -> str | None:
    """Why a recipe is not what is asked for today, as far as prompt and rules go; None if it is."""
    options = options_of(definition)
    if isinstance(options, ReadingOptions):
        try:
            said = prompts.find(options.prompt, root).sha256
        except DualviewError as error:
            return error.message
        if said != recipe.artifacts.get(prompts.ARTIFACT):
            return f"the prompt {options.prompt} says something else now"
    if isinstance(options, PromptedOptions) and recipe.options.get(CHECKS) != checks.VERSION:
        return "answers are judged by other rules now"
    return None


def _bound(
    where: str, prompt: Prompt, options: DescribeOptions, inputs: Mapping[str, Sequence[str]]
) -> Binding:
    return bind(where, prompt, options.slots if isinstance(options, ReadingOptions) else {}, inputs)


def _plain(given: str) -> str:
    return given if given == schema.IMAGE else f"{COLUMN}{given}"


def _where(definition: FeatureDef) -> str:
    return f"features.toml, [features.{definition.name}]"
