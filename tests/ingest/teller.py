"""A describer whose every question is seen, for tests of what is asked when."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from featurestore.errors import CellError
from ingest.describe import base
from ingest.describe.base import Answer, Maker, PromptedOptions, Request


def plain(request: Request) -> Answer | CellError:
    """Says what it was asked about: the colour of the picture's middle, and the texts."""
    parts = [p if isinstance(p, str) else colour(p) for p in request.turns[-1].parts]
    return Answer(f"It is {' and '.join(parts)}.", "stop", 10, 5, 0.5)


def colour(picture: Any) -> str:
    middle = np.asarray(picture)[picture.height // 2, picture.width // 2]
    return "#" + "".join(f"{v:02x}" for v in middle)


class Killed(BaseException):
    """Stands for a process that ends."""


class Teller:
    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.chunks: list[int] = []
        self.closed = 0
        self.answer: Callable[[Request], Answer | CellError] = plain

    def describe(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | CellError]]:
        self.chunks.append(len(requests))
        for place in reversed(range(len(requests))):
            self.asked.append(requests[place])
            yield place, self.answer(requests[place])

    def dies_at(self, question: int) -> None:
        """At that question (from 1) the process is killed; those before are answered."""

        def answer(request: Request) -> Answer | CellError:
            if len(self.asked) == question:
                raise Killed
            return plain(request)

        self.answer = answer

    def close(self) -> None:
        self.closed += 1

    @property
    def texts(self) -> list[str]:
        return [" | ".join(p for p in r.turns[-1].parts if isinstance(p, str)) for r in self.asked]


class TellerMaker(Maker[PromptedOptions]):
    name, options = "teller", PromptedOptions
    needs_model: ClassVar[bool] = False

    def __init__(self) -> None:
        self.teller = Teller()

    def resolve(self, options: Any, model: Any, models: Any, device: str = "auto") -> base.Resolved:
        return base.Resolved(options.recipe())

    def load(self, recipe: Any, options: Any, tools: Any) -> Teller:
        return self.teller
