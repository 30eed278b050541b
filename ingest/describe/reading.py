"""What a prompt reads of an item: its slots matched with a feature's inputs, and filled in.

An input that a slot names (`{image}`, `{title}`, `{column:NAME}`, `{feature:NAME}`) goes there; all other inputs make
the document that `{text}` stands for, as they do for `embed_text`. So prompt and `inputs` have to agree: a slot without
its input and an input that no slot reads are refused, but for optional slots, which may have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from featurestore import schema
from featurestore.definitions import DOCUMENT
from featurestore.errors import BadInput, did_you_mean
from featurestore.recipe import COLUMN, FEATURE
from ingest.describe.base import Request
from ingest.describe.prompts import TEXT, WORDS, Prompt
from ingest.document import documents, texts

if TYPE_CHECKING:
    from PIL import Image

    from featurestore.recipe import Recipe

READS = "reads"  # the option of a recipe that says what each slot stands for


@dataclass(frozen=True)
class Binding:
    """reads: slot -> inputs it is filled from. required: groups of inputs, of each of which one must be there."""

    reads: dict[str, list[str]]
    required: tuple[tuple[str, ...], ...]

    @property
    def option(self) -> dict[str, list[str]]:
        """For a recipe's options: columns of `resolve.joined` for each slot; without hashes, which the inputs have."""
        return {
            key: [_name(name) for name in inputs] for key, inputs in self.reads.items() if key != schema.IMAGE
        }


def bind(
    where: str, prompt: Prompt, slots: Mapping[str, str], inputs: Mapping[str, Sequence[str]]
) -> Binding:
    """Match slots with inputs.

    slots: the option of that name. inputs: name as declared -> what it is in a recipe ("image", "column:NAME",
    "feature:NAME" with or without its recipe). Raises BadInput for what does not fit together.
    """
    _check_slots(where, prompt, slots, inputs)
    reads: dict[str, list[str]] = {}
    taken: set[str] = set()
    for key in prompt.slots:
        if key not in (TEXT, WORDS):
            given = _input_of(key, slots, inputs)
            reads[key] = list(inputs[given]) if given is not None else []
            taken |= {given} if given is not None else set()
    there = {name for filled in reads.values() for name in filled}
    rest = [given for given in inputs if given not in taken]
    left = [name for given in rest for name in inputs[given] if given != schema.IMAGE and name not in there]
    if TEXT in prompt.slots:
        reads[TEXT] = list(dict.fromkeys(left))
        rest = [given for given in rest if given == schema.IMAGE]
    if rest:
        raise BadInput(
            f"{where}: the prompt {prompt.source} does not read {', '.join(rest)}",
            remedy=f"remove it from inputs, or write {_slot_for(rest[0])} into a prompt of your own",
        )
    for key, filled in reads.items():
        if not filled and not prompt.slots[key].optional:
            raise BadInput(
                f"{where}: the prompt {prompt.source} reads {{{_shown(key)}}}, which is not among the inputs",
                remedy=_remedy(key, inputs),
            )
    required = tuple(tuple(filled) for key, filled in reads.items() if not prompt.slots[key].optional)
    return Binding(reads, required)


def _check_slots(
    where: str, prompt: Prompt, slots: Mapping[str, str], inputs: Mapping[str, Sequence[str]]
) -> None:
    """The prompt asks about items; the option `slots` names features that it reads, and inputs."""
    if prompt.of_users:
        raise BadInput(
            f"{where}: the prompt {prompt.source} asks about a user, not about an item",
            remedy="name another prompt; users are described by dualview preferences",
        )
    asked = [key.removeprefix(FEATURE) for key in prompt.slots if key.startswith(FEATURE)]
    above = [given.removeprefix(FEATURE) for given, names in inputs.items() if names[0].startswith(FEATURE)]
    for name, stands in slots.items():
        if name not in asked:
            raise BadInput(
                f"{where}: slots names '{name}', and the prompt {prompt.source} has no {{feature:{name}}}",
                remedy=did_you_mean(name, asked),
            )
        if stands.removeprefix(FEATURE) not in above:
            raise BadInput(
                f"{where}: slots says {name} = '{stands}', which is no feature among the inputs",
                remedy=did_you_mean(stands, above),
            )


def _input_of(key: str, slots: Mapping[str, str], inputs: Mapping[str, Sequence[str]]) -> str | None:
    """The declared input that a slot stands for."""
    if key.startswith(FEATURE):
        name = key.removeprefix(FEATURE)
        wanted = FEATURE + slots.get(name, name).removeprefix(FEATURE)
    else:
        wanted = key
    return next((given for given, names in inputs.items() if [_bare(n) for n in names] == [wanted]), None)


def _bare(name: str) -> str:
    return name.split("@")[0] if name.startswith(FEATURE) else name


def _name(name: str) -> str:
    return _bare(name).removeprefix(COLUMN)


def _shown(key: str) -> str:
    return schema.TITLE if key == f"{COLUMN}{schema.TITLE}" else key


def _slot_for(given: str) -> str:
    return "{" + (given if given in (schema.IMAGE, DOCUMENT, schema.TITLE) else f"column:{given}") + "}"


def _remedy(key: str, inputs: Mapping[str, Sequence[str]]) -> str:
    if key.startswith(FEATURE):
        name = key.removeprefix(FEATURE)
        above = [
            given.removeprefix(FEATURE) for given, names in inputs.items() if names[0].startswith(FEATURE)
        ]
        said = f'inputs = [..., "{name}"]'
        return (
            f'slots = {{ {name} = "{above[0]}" }}, or {said}'
            if above
            else f"{said}, or say in slots which it is"
        )
    given = key.removeprefix(COLUMN)
    return f'add "{given}" to inputs' + (", or names of columns" if key == TEXT else "")


@dataclass(frozen=True)
class Reader:
    """Fills a recipe's prompt for items."""

    recipe: Recipe
    prompt: Prompt

    def texts(self, inputs: pa.Table) -> list[dict[str, str]]:
        """What each slot of texts says, for each row of `inputs` (columns as of `read_inputs`); "" for nothing."""
        reads = self.recipe.options[READS]
        assert isinstance(reads, dict)
        filled: dict[str, list[str]] = {}
        for key, names in reads.items():
            assert isinstance(names, list)
            columns = [str(name) for name in names]
            if key == TEXT and columns:
                filled[key] = documents(inputs, columns, labels=bool(self.recipe.options["labels"]))
            else:
                filled[key] = texts(inputs[columns[0]]) if columns else [""] * len(inputs)
        if WORDS in self.prompt.slots:
            filled[WORDS] = [str(self.recipe.options[WORDS])] * len(inputs)
        return [dict(zip(filled, row, strict=True)) for row in zip(*filled.values(), strict=True)] or [
            {} for _ in range(len(inputs))
        ]

    def missing(self, said: Mapping[str, str], picture: bool) -> list[str]:
        """The slots that must be filled and are not."""
        there = {key for key, text in said.items() if text} | ({schema.IMAGE} if picture else set())
        must = [
            _shown(key) for key, slot in self.prompt.slots.items() if not slot.optional and key not in there
        ]
        any_ = there - {WORDS}
        return must or ([] if any_ else [_shown(key) for key in self.prompt.slots if key != WORDS])

    def request(self, item_id: str, said: Mapping[str, str], picture: Image.Image | None) -> Request:
        return Request(item_id, self.prompt.render({**said, schema.IMAGE: picture}), self.prompt.schema)
