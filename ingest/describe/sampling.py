"""Drawing tokens so that an answer depends on what was asked and on a seed, and on nothing else in its batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from featurestore.files import canonical_json, sha256_text

if TYPE_CHECKING:
    from ingest.describe.base import Request


def request_seed(request: Request, seed: int) -> int:
    """From what is asked, never from whom it is asked for: the same question gets the same answer."""
    said: list[Any] = [seed]
    for turn in request.turns:
        for part in turn.parts:
            if isinstance(part, str):
                said.append([turn.role, part])
            else:
                pixels = hashlib.sha256(part.convert("RGB").tobytes()).hexdigest()
                said.append([turn.role, part.size, pixels])
    return int(sha256_text(canonical_json(said))[:15], 16)


def draws(temperature: float, top_p: float, seeds: Sequence[int]) -> list[Any]:
    """Processors of logits after which the largest one is a draw; none at temperature 0. seeds: one a row."""
    if temperature == 0:
        return []
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    narrowed = [TopPLogitsWarper(top_p)] if top_p < 1 else []
    return [TemperatureLogitsWarper(temperature), *narrowed, gumbel(seeds)]


def gumbel(seeds: Sequence[int]) -> Callable[[Any, Any], Any]:
    """Gumbel-max: the place of the largest of logits + Gumbel noise is a draw from their softmax.

    Gumbel noise is -log of an exponential draw (Gumbel, 1954; Maddison et al., A* Sampling, 2014).
    """
    import torch

    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(_: Any, logits: Any) -> Any:  # logits: (n, vocabulary)
        noise = torch.empty(logits.shape, dtype=torch.float32)
        for row, generator in zip(noise, generators, strict=True):
            row.exponential_(generator=generator)
        return logits.float() - noise.log_().to(logits.device)

    return draw
