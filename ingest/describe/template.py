"""`template`: the prompt with the item's own texts filled in, and nobody asked.

With the shipped prompt `text` it gives the item's text as it stands: the baseline that a description has to beat.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from featurestore.errors import CellError
from ingest.describe.base import RUNTIME, Answer, Maker, ReadingOptions, Request, Resolved, register

if TYPE_CHECKING:
    from featurestore.recipe import Recipe
    from ingest.encode.base import Tools
    from ingest.encode.models import Models


class TemplateOptions(ReadingOptions):
    prompt: str = Field(
        default="text",
        description="Name of a shipped prompt, or a prompt file beside features.toml.",
        json_schema_extra=RUNTIME,
    )


@register("template", options=TemplateOptions)
class Template(Maker[TemplateOptions]):
    needs_model: ClassVar[bool] = False
    slow: ClassVar[bool] = False
    blind: ClassVar[bool] = True

    def resolve(
        self, options: TemplateOptions, model: str | None, models: Models, device: str = "auto"
    ) -> Resolved:
        return Resolved(options.recipe())

    def load(self, recipe: Recipe, options: TemplateOptions, tools: Tools) -> Filled:
        return Filled()


class Filled:
    """Answers with what it was asked."""

    def describe(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | CellError]]:
        for place, request in enumerate(requests):
            begun = time.monotonic()
            text = "\n\n".join(part for turn in request.turns for part in turn.parts if isinstance(part, str))
            yield place, Answer(text, "stop", None, None, time.monotonic() - begun)

    def close(self) -> None:
        """Nothing is held."""
