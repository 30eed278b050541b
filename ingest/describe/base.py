"""What a describer is, and the register of the ones there are.

As with encoders there are two steps: a *maker* (one a name, in the register) checks a definition's options and
resolves them to everything that changes the output; what it loads is a *describer*, which answers rendered prompts
and knows neither stores nor prompts' files.

One item's failure is a value, a `CellError`, never an exception; a bug is an exception. Answers come in whatever order
they are ready, so that what was paid for can be kept at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from featurestore import schema
from featurestore.errors import BadInput, CellError, did_you_mean

if TYPE_CHECKING:
    from PIL import Image

    from featurestore.recipe import ModelRef, Recipe
    from ingest.encode.base import Tools
    from ingest.encode.models import Models

KIND = schema.DESCRIBE
Finish = Literal["stop", "length", "refused"]  # ended by itself; cut at the limit; withheld by the endpoint


@dataclass(frozen=True)
class Turn:
    """One message of a chat. parts: texts and pictures (RGB) in the order in which the model reads them."""

    role: Literal["system", "user"]
    parts: tuple[str | Image.Image, ...]


@dataclass(frozen=True)
class Request:
    """What is sent for one item. schema: a JSON schema that the answer must satisfy, or None for free text."""

    item_id: str  # for messages only: nothing about the answer may depend on it
    turns: tuple[Turn, ...]
    schema: dict[str, Any] | None = None


@dataclass(frozen=True)
class Answer:
    """What came back, as it came. seconds: the time that this answer took, in a batch its share of it.

    An empty text of a describer that takes no prompt (ocr) says that there is nothing to tell: the cell is `no_input`.
    """

    text: str
    finish: Finish
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float


class Describer(Protocol):
    def describe(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | CellError]]:
        """Answers with the place of their request in `requests`, each place once, as they are ready."""

    def close(self) -> None:
        """Give back memory and connections."""


RUNTIME: dict[str, JsonValue] = {"runtime": True}  # marks an option that does not change the output


class DescribeOptions(BaseModel):
    """Options of a describer: typed, unknown ones refused. Those marked `RUNTIME` are not part of the recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def recipe(self) -> dict[str, Any]:
        """The options that change the output."""
        runtime = {
            name for name, field in type(self).model_fields.items() if field.json_schema_extra == RUNTIME
        }
        return self.model_dump(mode="json", exclude=runtime)


class ReadingOptions(DescribeOptions):
    """Options of a describer that has a prompt. One that has none (ocr) gets the picture in one user turn."""

    prompt: str = Field(
        description="Name of a shipped prompt, or a prompt file beside features.toml.",
        json_schema_extra=RUNTIME,  # the recipe holds what the prompt says, not what it is called
    )
    slots: dict[str, str] = Field(
        default={},
        description="Which feature stands for a {feature:NAME} of the prompt, where it has another name.",
        json_schema_extra=RUNTIME,  # the recipe holds the prompt's slots with what they stand for
    )
    labels: bool = Field(
        default=True, description="Write each column's name before its value where the prompt says {text}."
    )


class PromptedOptions(ReadingOptions):
    """Options of a describer whose model writes what the prompt asks for."""

    max_tokens: int = Field(default=256, ge=1, le=8192, description="Longest answer, in the model's tokens.")
    words: int = Field(
        default=80, ge=5, le=2000, description="Length asked for where the prompt says {words}."
    )
    on_length: Literal["keep", "error"] = Field(
        default="keep",
        description="An answer that was cut at max_tokens is kept, or is that item's error.",
    )
    refusals: list[str] | None = Field(
        default=None,
        description="Regular expressions that tell a refusal by how it opens, in place of ours; [] for none.",
    )
    price_per_million_input: float = Field(
        default=0.0, ge=0, description="Price of a million prompt tokens.", json_schema_extra=RUNTIME
    )
    price_per_million_output: float = Field(
        default=0.0, ge=0, description="Price of a million answer tokens.", json_schema_extra=RUNTIME
    )

    @property
    def priced(self) -> bool:
        return bool(self.price_per_million_input or self.price_per_million_output)


O = TypeVar("O", bound=DescribeOptions)  # noqa: E741


@dataclass(frozen=True)
class Resolved:
    """options: all that changes the output. model: which weights, or which endpoint's model; None for none."""

    options: dict[str, Any]
    model: ModelRef | None = None


class Maker(ABC, Generic[O]):
    """Makes describers of one name. `code_version` is raised when the same recipe would give other texts."""

    name: ClassVar[str]
    options: ClassVar[type[DescribeOptions]]
    code_version: ClassVar[int] = 1
    needs_model: ClassVar[bool] = True
    slow: ClassVar[bool] = (
        True  # worth an estimate of time before it is run on a catalogue, and a spool while it is
    )
    blind: ClassVar[bool] = False  # sees no pictures, whatever its model
    remote: ClassVar[bool] = False  # each answer is made durable by itself, and asking again may give another

    @abstractmethod
    def resolve(self, options: O, model: str | None, models: Models, device: str = "auto") -> Resolved:
        """Raises ModelUnavailable where the model or endpoint cannot be reached, BadInput for what cannot be meant."""

    @abstractmethod
    def load(self, recipe: Recipe, options: O, tools: Tools) -> Describer:
        """The describer of a recipe. options: as the definition has them today, for what is not in the recipe."""


_makers: dict[str, Maker[Any]] = {}


def register(name: str, *, options: type[DescribeOptions]) -> Callable[[type[Maker[Any]]], type[Maker[Any]]]:
    """Put a maker into the register under its name."""

    def add(maker: type[Maker[Any]]) -> type[Maker[Any]]:
        maker.name, maker.options = name, options
        _makers[name] = maker()
        return maker

    return add


def known() -> list[str]:
    return sorted(_makers)


def maker(name: str) -> Maker[Any]:
    """Raises BadInput for an unknown describer, with the nearest known one."""
    if name not in _makers:
        raise BadInput(f"unknown encoder '{name}' for {KIND}", remedy=did_you_mean(name, _makers))
    return _makers[name]
