"""The ranker: p(yes) / (p(yes) + p(no)) of candidates, from one forward pass each and nothing generated.

Candidates of a user share everything up to the candidate, so its keys and values are computed once (`cached`). Whether
a model can be continued so is not taken on trust: the first user's answers are compared with plain ones, and where
they differ the ranker says so and goes the plain way.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featurestore.errors import BadInput
from recommender.msr import cache, models
from recommender.msr.config import MsrConfig
from recommender.msr.examples import Candidate, Example
from recommender.msr.prompt import Batch, Inputs, Prompt

if TYPE_CHECKING:
    from recommender.runs import Run

Scores = npt.NDArray[np.float64]
FEWEST = 16  # shared tokens that are worth a pass of their own
CLOSE = {torch.float32: 3e-4, torch.float64: 3e-4}  # of log odds, cached against plain
ROUGHLY = 0.25  # the same in half precision


class SlowRanking(UserWarning):
    """A model's keys and values cannot be shared among candidates."""


class Ranker:
    """Scores candidates of a user. model: with its adapters; prompt: how it is asked.

    batch: candidates in memory at once. cached: share the user's part; the scores are the same.
    """

    def __init__(self, model: Any, prompt: Prompt, *, batch: int = 32, cached: bool = True) -> None:
        self.model, self.prompt, self.batch, self.cached = model, prompt, batch, cached
        self.device: torch.device = next(model.parameters()).device
        self._checked = False

    @classmethod
    def open(
        cls,
        source: Run | str | Path,
        *,
        adapter: str | Path | None = None,
        zero_shot: bool = False,
        config: MsrConfig | None = None,
        device: str = "auto",
        batch: int = 32,
        cached: bool = True,
    ) -> Ranker:
        """A ranker of a run, or of a model.

        source: a Run of kind "msr" (or its folder), which brings its model, adapters and options; or a model's folder
        or hub id. adapter: folder of adapters to put on the model (adapter_config.json, adapter_model.safetensors).
        zero_shot: a run's model without its adapters. config: options of the question (length, answers, max_pixels,
        dtype); by default the run's, or the defaults.

        Raises NotFound, BadInput for a run of another kind, ModelUnavailable where the model is gone or another one.
        """
        loaded = models.open_model(source, adapter=adapter, zero_shot=zero_shot, config=config, device=device)
        return cls(loaded.model, loaded.prompt, batch=batch, cached=cached)

    def score(self, preference: str, candidates: Sequence[Candidate]) -> Scores:
        """(n,) float64 p(yes) / (p(yes) + p(no)) of each candidate, in the order given.

        preference: the user's, as of before what is asked about. A candidate's score does not depend on the others.
        Raises BadInput where a prompt does not fit even without a preference.
        """
        return _probability(self.log_odds(preference, candidates))

    def score_examples(self, examples: Sequence[Example]) -> Scores:
        """(n,) the same of examples, in their order; neighbours of one user and preference share their part."""
        found = np.empty(len(examples), dtype=np.float64)
        for start, end in _runs_of_one_user(examples):
            group = examples[start:end]
            found[start:end] = self.score(group[0].preference, [e.candidate for e in group])
        return found

    @torch.inference_mode()
    def log_odds(self, preference: str, candidates: Sequence[Candidate]) -> Scores:
        """(n,) log p(yes) - log p(no), which orders candidates whose probabilities are all near 0 or 1."""
        rows = [self.prompt.encode(preference, candidate) for candidate in candidates]
        if not rows:
            return np.empty(0, dtype=np.float64)
        shared = cache.shared_tokens(rows, self.prompt.image_tokens) if len(rows) > 1 else 0
        blind = not self.prompt.image_tokens and any(c.picture is not None for c in candidates)
        if not self.cached or shared < FEWEST or blind:
            return self._plain(rows)
        found = self._continued(rows, shared)
        if not self._checked:
            found = self._compared(rows, found)
        return found

    def _plain(self, rows: Sequence[Inputs]) -> Scores:
        """Each prompt computed whole."""
        return np.concatenate([self._odds(self.prompt.collate(some)) for some in self._chunks(rows)])

    def _continued(self, rows: Sequence[Inputs], shared: int) -> Scores:
        """The first `shared` tokens computed once, each prompt's rest after them."""
        with arithmetic(self.model):
            first = {"input_ids": rows[0]["input_ids"][:, :shared].to(self.device)}
            begun = self.model(**first, use_cache=True, logits_to_keep=1).past_key_values
        parts = [self._odds(self.prompt.collate(some), begun, shared) for some in self._chunks(rows)]
        return np.concatenate(parts)

    def _odds(self, batch: Batch, begun: Any = None, shared: int = 0) -> Scores:
        more: dict[str, Any] = {"use_cache": False}
        if begun is not None:
            more = {"past_key_values": cache.widened(begun, len(batch.last), self.device), "use_cache": True}
            if (places := cache.positions(self.model, batch, shared, self.device)) is not None:
                more["position_ids"] = places
        with arithmetic(self.model), finely(self.model, [self.prompt.yes, self.prompt.no]):
            logits = at_last(self.model, cache.after(batch, shared, self.device), batch.last - shared, **more)
        pair = logits[:, [self.prompt.yes, self.prompt.no]].double().cpu().numpy()
        odds: Scores = pair[:, 0] - pair[:, 1]
        return odds

    def _compared(self, rows: Sequence[Inputs], found: Scores) -> Scores:
        """`found` if plain answers to the shortest and the longest prompt are the same; plain ones for good if not."""
        lengths = [row["input_ids"].shape[1] for row in rows]
        places = sorted({int(np.argmin(lengths)), int(np.argmax(lengths)), 0, len(rows) - 1})[:3]
        plain = self._plain([rows[place] for place in places])
        close = CLOSE.get(self.model.dtype, ROUGHLY)
        off = np.abs(plain - found[places]) / np.maximum(1.0, np.abs(plain))
        self._checked = True
        if not (off <= close).all():
            self.cached = False
            warnings.warn(
                f"{type(self.model).__name__} cannot be continued from a shared beginning (log odds are off by "
                f"{off.max():.2g}): each candidate is computed whole, which is slower",
                SlowRanking,
                stacklevel=4,
            )
            return self._plain(rows)
        return found

    def _chunks(self, rows: Sequence[Inputs]) -> Iterator[Sequence[Inputs]]:
        return (rows[start : start + self.batch] for start in range(0, len(rows), self.batch))


def at_last(model: Any, inputs: dict[str, Any], last: Tensor, **more: Any) -> Tensor:
    """(n, vocabulary) float32 logits at place last[i] of row i; no others are computed."""
    places, which = torch.unique(last, return_inverse=True)
    logits = model(**inputs, logits_to_keep=places.to(inputs["input_ids"].device), **more).logits
    if logits.shape[1] != len(places):
        raise BadInput(
            f"{type(model).__name__} computes logits at every place, not at those asked for",
            remedy="another model: this one's forward does not take logits_to_keep",
        )
    found: Tensor = logits[torch.arange(len(last)), which].float()
    return found


@contextmanager
def finely(model: Any, tokens: Sequence[int]) -> Iterator[None]:
    """While it lasts, the logits of `tokens` are summed in float32 and those of all others are left out (-inf).

    A logit of 20 in bfloat16 is known to 0.125, so that most of a user's candidates would tie.
    """
    head: Any = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        yield
        return
    weight = head.weight[list(tokens)].float()
    bias = None if head.bias is None else head.bias[list(tokens)].float()

    def forward(states: Tensor) -> Tensor:
        found = torch.full((*states.shape[:-1], head.out_features), -torch.inf, device=states.device)
        with torch.autocast(states.device.type, enabled=False):
            found[..., list(tokens)] = torch.nn.functional.linear(states.float(), weight, bias)
        return found

    before = vars(head).get("forward")  # of its own, where layers are spread over devices
    vars(head)["forward"] = forward
    try:
        yield
    finally:
        del vars(head)["forward"]
        if before is not None:
            vars(head)["forward"] = before


def arithmetic(model: Any) -> AbstractContextManager[Any]:
    """Mixed precision where the model's weights are bfloat16 and the device has it; what training uses too."""
    place = next(model.parameters()).device.type
    if model.dtype != torch.bfloat16 or not torch.amp.is_autocast_available(place):
        return nullcontext()
    return torch.autocast(place, dtype=torch.bfloat16)


def _probability(odds: Scores) -> Scores:
    found: Scores = np.exp(-np.logaddexp(0.0, -odds))
    return found


def _runs_of_one_user(examples: Sequence[Example]) -> Iterator[tuple[int, int]]:
    start = 0
    for place in range(1, len(examples) + 1):
        if place == len(examples) or _who(examples[place]) != _who(examples[start]):
            yield start, place
            start = place


def _who(example: Example) -> tuple[str, str]:
    return example.user, example.preference
