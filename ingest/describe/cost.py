"""What answers cost: counted as they come, and bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurestore.errors import BadInput
from ingest.describe.base import Answer, DescribeOptions, PromptedOptions, Request

if TYPE_CHECKING:
    from featurestore.errors import CellError

PICTURE_TOKENS = 1_500  # of a picture where nobody says: a common upper bound of endpoints
CHARACTERS = 3  # of a text that make a token at least, where nobody says
CAREFUL_CHUNK = 16  # requests at once while there is a bound
MILLION = 1_000_000


@dataclass
class Budget:
    """What one call of `materialize` may spend, over all its features. limit: None for no bound, if that was agreed.

    Costs are in the currency of the prices. Usage that an endpoint does not report is taken at its upper bound.
    """

    limit: float | None = None
    agreed: bool = False
    cost: float = 0.0
    answers: int = 0
    _input: float = 0.0
    _output: float = 0.0
    _longest: int = 0
    _before: float = 0.0

    def begin(self, feature: str, options: DescribeOptions, cells: int) -> None:
        """Count by the prices of this feature from here on. Raises BadInput where nobody agreed to spend money."""
        prices = options if isinstance(options, PromptedOptions) else None
        if prices is not None and prices.priced and self.limit is None and not self.agreed:
            raise BadInput(
                f"feature '{feature}' has a price, and {cells:,} cells wait to be asked about",
                remedy="see what it would cost with --dry-run; then --max-cost AMOUNT, or --yes for whatever it costs",
            )
        self._input = prices.price_per_million_input if prices else 0.0
        self._output = prices.price_per_million_output if prices else 0.0
        self._longest = prices.max_tokens if prices else 0
        self.answers, self._before = 0, self.cost

    def count(self, request: Request, answer: Answer | CellError) -> None:
        if not isinstance(answer, Answer):
            return
        asked = answer.prompt_tokens if answer.prompt_tokens is not None else most_tokens(request)
        said = answer.completion_tokens if answer.completion_tokens is not None else self._longest
        self.cost += (asked * self._input + said * self._output) / MILLION
        self.answers += 1

    @property
    def of_feature(self) -> float | None:
        """What the feature at hand has cost so far, None if it has no price."""
        return self.cost - self._before if self._input or self._output else None

    def spent(self) -> bool:
        """Whether nothing more may be asked of the feature at hand."""
        return self.limit is not None and bool(self._input or self._output) and self.cost >= self.limit

    @property
    def room(self) -> int:
        """How many requests may be sent at once: at least 1, as many as what is left will pay for."""
        if self.limit is None or not (self._input or self._output):
            return MILLION
        if not self.answers:
            return 1  # the first one tells what one costs
        each = (self.cost - self._before) / self.answers
        left = self.limit - self.cost
        return max(1, min(CAREFUL_CHUNK, int(left / each) if each else CAREFUL_CHUNK))


def most_tokens(request: Request) -> int:
    """An upper bound of a request's tokens where the endpoint does not count them."""
    parts = [part for turn in request.turns for part in turn.parts]
    return sum(len(p) // CHARACTERS + 1 if isinstance(p, str) else PICTURE_TOKENS for p in parts)
