"""The kinds of features that encoders make: what each reads from its inputs, and how that becomes values.

One function a kind, registered under its name; `materialize` writes what it gives, `estimate` times it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from featurestore import schema
from ingest.document import documents
from ingest.encode.tokens import tokens
from ingest.fuse.reading import Reading
from ingest.pipeline import Encoded, Int64, encode_images, encode_texts, encode_tokens, fused
from ingest.resolve import names

if TYPE_CHECKING:
    from featurestore.recipe import Recipe
    from featurestore.tables import Tables


@dataclass(frozen=True)
class Job:
    """Inputs of one feature, and what makes values of them.

    inputs: a row for each, columns as of `read_inputs`. tally: what to tell of it afterwards, counted.
    """

    tables: Tables
    recipe: Recipe
    encoder: Any
    inputs: pa.Table
    tally: Counter[str] = field(default_factory=Counter)

    @property
    def dim(self) -> int:
        assert self.recipe.dim is not None
        return self.recipe.dim


Compute = Callable[[Job], Iterator[Encoded]]
_kinds: dict[str, Compute] = {}


def computes(kind: str) -> Callable[[Compute], Compute]:
    """Register how the values of a kind of feature are made."""

    def add(compute: Compute) -> Compute:
        _kinds[kind] = compute
        return compute

    return add


def compute(job: Job) -> Iterator[Encoded]:
    """Values and errors, some rows of `job.inputs` at a time and in any order, until all rows were given."""
    return _kinds[job.recipe.kind](job)


@computes("embed_image")
def _images(job: Job) -> Iterator[Encoded]:
    return encode_images(job.encoder, job.tables, job.inputs[schema.IMAGE_SHA256].to_pylist(), job.dim)


@computes("embed_text")
def _texts(job: Job) -> Iterator[Encoded]:
    found = documents(job.inputs, names(job.recipe), labels=bool(job.recipe.options["labels"]))
    full, texts, blank = _with_any(found)
    yield blank
    for encoded in encode_texts(job.encoder, texts, job.dim):
        yield encoded.of(full)


@computes("embed_tokens")
def _tokens(job: Job) -> Iterator[Encoded]:
    cut = tokens(job.inputs, names(job.recipe), job.recipe.options)
    job.tally["tokens beyond max_tokens were dropped"] += cut.dropped
    full, texts, blank = _with_any(cut.tokens)
    yield blank
    for encoded in encode_tokens(job.encoder, texts, job.dim):
        had = sum(len(texts[place]) for place in encoded.places)
        job.tally["tokens had no vector and were left out"] += had - len(encoded.vectors)
        yield encoded.of(full)


@computes("fuse")
def _fused(job: Job) -> Iterator[Encoded]:
    reading = Reading(job.tables, job.recipe.upstream, job.inputs[schema.ITEM_ID])
    for start in range(0, len(job.inputs), job.encoder.batch_size):
        places = np.arange(start, min(start + job.encoder.batch_size, len(job.inputs)))
        yield fused(places, job.encoder.fuse(reading.take(places)))


T = TypeVar("T", str, list[str])


def _with_any(found: Sequence[T]) -> tuple[Int64, list[T], Encoded]:
    """(places of the rows that say something, what these say, the others): a list may hold nothing but NULLs."""
    there = np.asarray([bool(each) for each in found], np.bool_)
    blank = Encoded(empty=np.flatnonzero(~there))
    return np.flatnonzero(there), [each for each in found if each], blank
