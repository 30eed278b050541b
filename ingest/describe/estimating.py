"""How many tokens, how long and how much money the descriptions that wait would take.

A model in this process is tried on a few items. An endpoint is never asked: what its earlier answers to this feature
took is taken for the rest, and before there are any, texts are counted at their upper bound and no time is told.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore import schema
from featurestore.errors import DualviewError
from featurestore.images import Originals
from ingest import materialize
from ingest.describe import base, recipes
from ingest.describe.base import Answer, PromptedOptions, Request
from ingest.describe.cost import MILLION, most_tokens
from ingest.describe.reading import Reader
from ingest.estimate import Usage, Work, estimates
from ingest.pictures import decode

if TYPE_CHECKING:
    from featurestore.recipe import Recipe
    from featurestore.store import Store

SECONDS = 20.0  # of trying, about; one item is tried whatever it takes
QUICK = 200  # items tried of a describer that asks nobody
MOST = 16  # and of a model
COUNTED = 64  # requests whose texts are counted


@dataclass(frozen=True)
class Took:
    """What one answer takes on average: tokens (None where nobody says) and seconds, from `answers` of them."""

    answers: int
    asked: float | None
    said: float | None
    seconds: float


@estimates(schema.DESCRIBE)
def descriptions(work: Work) -> Usage:
    """Questions asked and answers waited for."""
    maker = base.maker(work.definition.encoder)
    options = recipes.options_of(work.definition)
    took, loading = (
        (earlier(work.store, work.definition.name, work.recipe), 0.0) if maker.remote else _tried(work)
    )
    notes: tuple[str, ...] = ()
    if took is None:
        notes = (
            "nothing was sent: tokens are upper bounds; materialize --sample 5 measures tokens and time",
        )
    total = len(work.ids)
    tokens, cost = None, None
    if isinstance(options, PromptedOptions):
        asked, said = (took.asked, took.said) if took is not None else (None, None)
        if asked is None:
            asked = float(np.mean([most_tokens(r) for r in requests(work, COUNTED)] or [0]))
        said = float(options.max_tokens) if said is None else said
        tokens = round(total * (asked + said))
        if options.priced:
            prices = options.price_per_million_input * asked + options.price_per_million_output * said
            cost = total * prices / MILLION
    if took is None:
        return Usage(tokens=tokens, cost=cost, notes=notes)
    beside = getattr(options, "concurrency", 1)
    rate = beside / took.seconds if took.seconds else None
    seconds = loading + total / rate if rate else None
    return Usage(sample=took.answers, rate=rate, seconds=seconds, tokens=tokens, cost=cost, notes=notes)


def requests(work: Work, size: int) -> list[Request]:
    """What would be asked about so many of the items, spread evenly; those whose picture cannot be read left out."""
    prompt = recipes.prompt_of(work.store.root, recipes.options_of(work.definition))
    reader = Reader(work.recipe, prompt)
    inputs = materialize.read_inputs(work.store, work.recipe, work.sample(size))
    originals = Originals(work.store.tables)
    made = []
    for row, said in zip(inputs.to_pylist(), reader.texts(inputs), strict=True):
        sha = row.get(schema.IMAGE_SHA256)
        if reader.missing(said, bool(sha)):
            continue
        try:
            picture = decode(originals.open_bytes(sha)) if sha else None
        except DualviewError:
            continue
        made.append(reader.request(row[schema.ITEM_ID], said, picture))
    return made


def earlier(store: Store, feature: str, recipe: Recipe) -> Took | None:
    """From the answers that this recipe or an earlier one of the feature with the same model has; None without any."""
    names = [recipe.table(feature)]
    known = store.recipe(feature)
    if known is not None and known.kind == schema.DESCRIBE and known.model == recipe.model:
        names.append(known.table(feature))
    for name in names:
        if store.tables.exists(name):
            columns = [schema.PROMPT_TOKENS, schema.COMPLETION_TOKENS, schema.SECONDS]
            rows = store.tables.read(name, columns=columns, filter=f"{schema.SECONDS} IS NOT NULL")
            if len(rows):
                asked, said, seconds = (_mean(rows[column]) for column in columns)
                return Took(len(rows), asked, said, seconds or 0.0)
    return None


def _mean(column: pa.ChunkedArray) -> float | None:
    found = pc.mean(column).as_py()
    return None if found is None else float(found)


def _tried(work: Work) -> tuple[Took | None, float]:
    """(what answers of a model in this process take, seconds that loading it took); None where none can be asked."""
    maker = base.maker(work.definition.encoder)
    asked = requests(work, MOST if maker.slow else QUICK)
    if not asked:
        return None, 0.0
    begun = time.perf_counter()
    describer = maker.load(work.recipe, recipes.options_of(work.definition), work.tools)
    loading = time.perf_counter() - begun
    try:
        begun = time.perf_counter()
        answers = _answers(describer, asked[:1])  # the first one warms up
        each = time.perf_counter() - begun
        size = min(len(asked), max(1, int(SECONDS / each) if each else len(asked)))
        if size > 1:
            begun = time.perf_counter()
            answers = _answers(describer, asked[:size])
            each = (time.perf_counter() - begun) / size
    finally:
        describer.close()
    prompt_tokens = [a.prompt_tokens for a in answers if a.prompt_tokens is not None]
    said = [a.completion_tokens for a in answers if a.completion_tokens is not None]
    tokens = [float(np.mean(counts)) if counts else None for counts in (prompt_tokens, said)]
    return Took(size, tokens[0], tokens[1], each), loading


def _answers(describer: base.Describer, asked: list[Request]) -> list[Answer]:
    return [answer for _, answer in describer.describe(asked) if isinstance(answer, Answer)]
