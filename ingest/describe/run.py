"""Cells of a described feature computed: questions out, answers into the spool, judged, into the table.

Equal inputs are asked about once. Requests go to the describer in chunks of bounded memory; with a bound on cost the
chunks are small, so that every answer which is paid for is kept and the bound is passed by one chunk at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore import schema
from featurestore.errors import CellError, DualviewError
from featurestore.images import Originals
from featurestore.schema import Status
from ingest.describe import base, checks, recipes, stored
from ingest.describe.base import Answer, Request
from ingest.describe.cost import Budget
from ingest.describe.reading import Reader
from ingest.describe.spool import Spool
from ingest.pictures import decode
from ingest.pipeline import WORKERS, cell_error

if TYPE_CHECKING:
    from featurestore.definitions import FeatureDef
    from featurestore.recipe import Recipe
    from featurestore.store import Store
    from ingest.cells import Groups, Sink
    from ingest.encode.base import Tools

CHUNK = 256  # requests that a describer is given at once
CHUNK_PIXELS = 64_000_000  # and pixels in them: 192 MB


class Describing:
    """One feature of one call of `materialize`. budget: what may still be spent."""

    def __init__(
        self, store: Store, definition: FeatureDef, recipe: Recipe, tools: Tools, budget: Budget
    ) -> None:
        self._feature = definition.name
        self._store, self._recipe, self._tools, self._budget = store, recipe, tools, budget
        self._maker = base.maker(definition.encoder)
        self._options = recipes.options_of(definition)
        prompt = recipes.prompt_in(recipe, store.artifacts)
        self._reader = Reader(recipe, prompt)
        self._checks = recipes.checks_of(recipe, prompt)
        self.spool = Spool(store.root, definition.name, recipe, each=self._maker.remote)
        self._table = recipe.table(definition.name)
        self.replayed = 0  # answers that an interrupted run had left
        self.shared = 0  # answers that a cell with an equal input had

    def begin(self, cells: int) -> None:
        """Raises BadInput where money would be spent that nobody agreed to. cells: how many wait."""
        waiting = {input_hash: as_stored(answer) for input_hash, answer in self.spool.items()}
        there = stored.answers(self._store.tables, self._table, waiting)
        # committed, then killed; an answer to a question that was asked again is another, with another time
        self.spool.drop([hash_ for hash_, _, answer in there if answer == waiting[hash_]])
        self._budget.begin(self._feature, self._options, cells)

    def end(self, whole: bool) -> tuple[str, ...]:
        """What to tell when all is committed. whole: nothing waits any more, so no spooled answer is of use."""
        notes = []
        if whole and not self._budget.spent():
            self.spool.clear()
        if self.replayed:
            notes.append(f"{self.replayed:,} answers of an interrupted run were taken over")
        if self.shared:
            notes.append(
                f"{self.shared:,} inputs equal one that was answered before, and were not asked about"
            )
        if self._budget.spent():
            notes.append(f"stopped: {self._budget.cost:.4f} of {self._budget.limit} was spent")
        return tuple(notes)

    @property
    def cost(self) -> float | None:
        """Of this feature's answers in this call, None without a price."""
        return self._budget.of_feature

    def compute(self, groups: Groups, inputs: pa.Table, sink: Sink) -> None:
        """Answer the cells of `groups`. inputs: what the first item of each says."""
        said = self._reader.texts(inputs)
        shas = _shas(inputs)
        ask: list[int] = []
        for place, (texts, sha) in enumerate(zip(said, shas, strict=True)):
            missing = self._reader.missing(texts, sha is not None)
            if missing:
                lacks = CellError(checks.MISSING, f"the item has no {', no '.join(missing)}")
                sink.put(groups.rows(np.asarray([place]))[0], Status.NO_INPUT, error=lacks)
            elif (known := self.spool.get(groups.hashes[place])) is not None:
                self.replayed += 1
                self._settle(groups, place, known, sink)
            else:
                ask.append(place)
        ask = self._unanswered(ask, groups, sink) if self._maker.slow else ask
        if not ask or self._budget.spent():
            return
        items = inputs[schema.ITEM_ID].to_pylist()
        describer = self._maker.load(self._recipe, self._options, self._tools)
        try:
            for places, requests, errors in self._chunks(ask, items, said, shas):
                for place, error in errors.items():
                    self._settle(groups, place, error, sink)
                for number, answer in describer.describe(requests):
                    self._budget.count(requests[number], answer)
                    if isinstance(answer, Answer) and self._maker.slow:
                        self.spool.append(groups.hashes[places[number]], answer)
                    self._settle(groups, places[number], answer, sink)
                if self._budget.spent():
                    return
        finally:
            describer.close()

    def _unanswered(self, ask: list[int], groups: Groups, sink: Sink) -> list[int]:
        """Those of `ask` that no cell has an answer to yet; the others are given that one."""
        hashes = {groups.hashes[place] for place in ask}
        there = stored.answers(self._store.tables, self._table, hashes)
        known = {hash_: answer for hash_, status, answer in there if status == Status.OK}
        for place in ask:
            if (answer := known.get(groups.hashes[place])) is not None:
                self.shared += 1
                self._settle(groups, place, answer, sink)
        return [place for place in ask if groups.hashes[place] not in known]

    def _chunks(
        self, ask: Sequence[int], items: list[str], said: list[dict[str, str]], shas: list[str | None]
    ) -> Iterator[tuple[list[int], list[Request], dict[int, CellError]]]:
        """(places, their requests, errors of places whose picture cannot be read), as much at once as may be."""
        originals = Originals(self._store.tables)

        def request(place: int) -> Request | CellError:
            sha = shas[place]
            try:
                picture = decode(originals.open_bytes(sha)) if sha is not None else None
            except DualviewError as error:
                return cell_error(error)
            return self._reader.request(items[place], said[place], picture)

        with ThreadPoolExecutor(WORKERS, thread_name_prefix="pictures") as pool:
            start = 0
            while start < len(ask):
                places: list[int] = []
                requests: list[Request] = []
                errors: dict[int, CellError] = {}
                pixels = 0
                most = min(CHUNK, self._budget.room)
                while start < len(ask) and len(requests) < most and pixels < CHUNK_PIXELS:
                    some = ask[start : start + min(WORKERS, most - len(requests))]
                    start += len(some)
                    for place, made in zip(some, pool.map(request, some), strict=True):
                        if isinstance(made, CellError):
                            errors[place] = made
                        else:
                            places.append(place)
                            requests.append(made)
                            pixels += sum(
                                p.width * p.height
                                for t in made.turns
                                for p in t.parts
                                if not isinstance(p, str)
                            )
                yield places, requests, errors

    def _settle(self, groups: Groups, place: int, answer: Answer | CellError, sink: Sink) -> None:
        """Judge an answer and hand its cells over."""
        rows = groups.rows(np.asarray([place]))[0]
        if isinstance(answer, CellError):
            sink.put(rows, Status.ERROR, error=answer)
            return
        status, text, error = self._checks.settle(answer)
        values = pa.repeat(pa.scalar(text, pa.string()), len(rows)) if text is not None else None
        self.spool.put(groups.hashes[place])
        sink.put(rows, status, values=values, error=error, more=answer_columns(answer, len(rows)))


def answer_columns(answer: Answer, rows: int) -> dict[str, pa.Array]:
    """What is kept of an answer beside its text, the same for each of `rows` cells."""
    values = answer_values(answer)
    return {
        field.name: pa.repeat(pa.scalar(values[field.name], field.type), rows)
        for field in schema.ANSWER_FIELDS
    }


def answer_values(answer: Answer) -> dict[str, str | int | float | None]:
    """What is kept of an answer beside its text, by column."""
    return {
        schema.RAW: checks.storable(answer.text),
        schema.FINISH_REASON: answer.finish,
        schema.PROMPT_TOKENS: answer.prompt_tokens,
        schema.COMPLETION_TOKENS: answer.completion_tokens,
        schema.SECONDS: answer.seconds,
    }


def as_stored(answer: Answer) -> Answer:
    """An answer as a table gives it back."""
    return replace(answer, text=checks.storable(answer.text))


def _shas(inputs: pa.Table) -> list[str | None]:
    if schema.IMAGE_SHA256 not in inputs.column_names:
        return [None] * len(inputs)
    found: list[str | None] = pc.cast(inputs[schema.IMAGE_SHA256], pa.string()).to_pylist()
    return [sha or None for sha in found]
