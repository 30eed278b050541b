"""`sentence`: text encoders of the sentence-transformers library, from any hub id or local folder.

Prompts come from the options or, where none are given, from the model's own configuration; both are written into the
recipe. The library sorts texts by length, so it is handed many at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from featurestore.errors import BadInput, ModelUnavailable
from ingest.encode.base import (
    BatchSize,
    Maker,
    Resolved,
    Role,
    TextOptions,
    Tools,
    Vectors,
    pick_device,
    register,
)
from ingest.encode.models import TRANSFORMERS, Models, loading, no_bars

if TYPE_CHECKING:
    from featurestore.recipe import Recipe

BATCH, ACCELERATOR_BATCH = 32, 128
SLICE = 16  # batches in one call of the library
PROMPTS = {
    "prompt_document": ("document", "passage", "corpus"),
    "prompt_query": ("query",),
}  # option: names in a model's config


class SentenceOptions(TextOptions):
    prompt_document: str | None = Field(
        default=None,
        description="Written before every item's text; without it, what the model's config says.",
    )
    prompt_query: str | None = Field(
        default=None, description="Written before every query; without it, what the model's config says."
    )
    normalize: bool = Field(default=True, description="Bring vectors to length 1.")
    max_length: int | None = Field(
        default=None, ge=1, description="Tokens a text is cut to; without it, the model's own limit."
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        default="float32", description="Number format of weights and arithmetic."
    )


@register("sentence", kind="embed_text", options=SentenceOptions)
class Sentence(Maker[SentenceOptions]):
    code_version: ClassVar[int] = 1

    def resolve(
        self, options: SentenceOptions, model: str | None, models: Models, device: str = "auto"
    ) -> Resolved:
        if model is None:
            raise BadInput(
                "encoder 'sentence' needs a model",
                remedy='model = "sentence-transformers/all-MiniLM-L6-v2", or a folder',
            )
        found = models.find(model, TRANSFORMERS)
        library, own_length = load_library(str(found.folder), pick_device(device), options.dtype)
        dim = _probe(str(found.folder), library, pick_device(device), options.dtype)
        resolved = options.model_dump(mode="json")
        for option, names in PROMPTS.items():
            if resolved[option] is None:
                resolved[option] = next((library.prompts[n] for n in names if library.prompts.get(n)), "")
        if options.max_length is None:
            resolved["max_length"] = own_length
        elif (most := _positions(library)) is not None and options.max_length > most:
            raise BadInput(
                f"max_length = {options.max_length}: '{model}' reads at most {most} tokens",
                remedy="a smaller number",
            )
        return Resolved(options=resolved, dim=dim, model=found.ref)

    def load(self, recipe: Recipe, tools: Tools) -> SentenceEncoder:
        assert recipe.model is not None
        assert recipe.dim is not None
        folder = tools.models.open(recipe.model, TRANSFORMERS, tools.hint)
        library, _ = load_library(str(folder), pick_device(tools.device), str(recipe.options["dtype"]))
        batch = tools.batch_size or (BATCH if library.device.type == "cpu" else ACCELERATOR_BATCH)
        return SentenceEncoder(library, recipe.options, recipe.dim, batch)


class SentenceEncoder:
    def __init__(self, library: Any, options: dict[str, Any], dim: int, batch_size: int) -> None:
        self.dim = dim
        self.batch_size = batch_size * SLICE
        self._library = library
        self._options = options
        self._rows = BatchSize(batch_size)

    def encode(self, texts: Sequence[str], role: Role = "document") -> Vectors:
        """Prompt, truncation and normalisation as the recipe says. Many texts a call: they are sorted by length."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        call = self._library.encode_document if role == "document" else self._library.encode_query
        self._library.max_seq_length = self._options["max_length"]

        def run(rows: Sequence[Any], batch: int) -> Vectors:
            vectors = call(
                list(rows),
                prompt=self._options[f"prompt_{role}"],
                batch_size=batch,
                normalize_embeddings=self._options["normalize"],
                show_progress_bar=False,
                convert_to_numpy=True,
            )
            return np.asarray(vectors, np.float32)

        return self._rows.run(run, texts)


@lru_cache(maxsize=2)
def load_library(folder: str, device: str, dtype: str) -> tuple[Any, int | None]:
    """(model as the library has it, its own limit of tokens); an encoder sets the limit that its recipe says.

    Kept, for resolving a recipe and computing with it come one after the other.
    """
    library = _load(folder, device, dtype, seed=0)
    return library, library.max_seq_length


def _load(folder: str, device: str, dtype: str, seed: int) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer

    with no_bars(), loading(folder), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return SentenceTransformer(
            folder,
            device=device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"dtype": dtype},
        )


def _probe(folder: str, library: Any, device: str, dtype: str) -> int:
    """Size of the vectors, once it is sure that the model reads text and that all its weights came from the folder.

    The library fills weights that a folder lacks with random numbers. They show in this: another seed, other vectors.
    """
    with loading(folder):
        vector = library.encode(["a red shoe"], show_progress_bar=False)
        again = _load(folder, device, dtype, seed=1).encode(["a red shoe"], show_progress_bar=False)
        if not np.allclose(vector, again, atol=1e-2 * float(np.abs(vector).max())):
            raise ModelUnavailable(
                f"the model in {folder} lacks a part of its weights, and random ones are never used",
                remedy="bring the whole folder, or choose another model",
            )
    return int(vector.shape[1])


def _positions(library: Any) -> int | None:
    """Tokens that the model has positions for, where its configuration says so."""
    config = getattr(getattr(library[0], "auto_model", None), "config", None)
    most = getattr(config, "max_position_embeddings", None)
    return most if isinstance(most, int) and most > 0 else None
