"""`materialize`: compute every cell that is missing or stale, and nothing else.

Features in the order of their graph; for each: its recipe (`ingest.resolve`), one plan, inputs read by column, vectors
in batches, one commit for some thousands of rows. What cannot be computed for one item becomes that cell's error; a
fault of the program or a full disk is raised, and what was committed before it stays. A call with nothing to do loads
neither a model library nor lancedb.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore import features as cells
from featurestore import journal, schema
from featurestore.errors import BadInput
from featurestore.files import sha256_text
from featurestore.schema import State, Status
from ingest import resolve
from ingest.cells import Groups, Progress, Silent, Sink
from ingest.compute import Job, compute
from ingest.describe.cost import Budget
from ingest.describe.run import Describing
from ingest.encode import base
from ingest.encode.models import Models
from ingest.fitting import fit_transform

if TYPE_CHECKING:
    from featurestore.definitions import FeatureDef
    from featurestore.recipe import Recipe
    from featurestore.store import Store

__all__ = ["FeatureReport", "MaterializeReport", "Progress", "fit_transform", "materialize"]

COMMIT_ROWS = 4096
_WAITING = pa.array([State.MISSING, State.STALE, State.FAILED, State.BLOCKED], pa.string())
READ_ROWS = 200_000  # cells whose inputs are in memory at once


@dataclass(frozen=True)
class FeatureReport:
    """What was done for one feature.

    skipped: cells left alone (blocked, failed for good, or beyond `limit`, `sample` or `max_cost`). cost: of the
    answers, in the currency of the prices; None for a feature without a price.
    """

    feature: str
    recipe: str | None
    ok: int = 0
    no_input: int = 0
    error: int = 0
    skipped: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    cost: float | None = None

    @property
    def computed(self) -> int:
        return self.ok + self.no_input + self.error

    @property
    def rate(self) -> float:
        """Cells a second that went through the encoder."""
        return (self.ok + self.error) / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"computed": self.computed, "rate": self.rate}


@dataclass(frozen=True)
class MaterializeReport:
    features: list[FeatureReport]
    seconds: float

    @property
    def computed(self) -> int:
        return sum(f.computed for f in self.features)

    @property
    def errors(self) -> int:
        return sum(f.error for f in self.features)

    def to_dict(self) -> dict[str, Any]:
        return {
            "features": [f.to_dict() for f in self.features],
            "computed": self.computed,
            "errors": self.errors,
            "seconds": self.seconds,
        }


def materialize(
    store: Store,
    features: Sequence[str] | str | None = None,
    *,
    failed: bool = False,
    limit: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    max_cost: float | None = None,
    yes: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    commit_rows: int = COMMIT_ROWS,
    wait: float | None = None,
    progress: Progress | None = None,
    ended: Callable[[FeatureReport], None] | None = None,
) -> MaterializeReport:
    """Compute what is not current.

    features: these and what they read; None for all. failed: cells that failed for good are tried again too.
    limit: at most so many cells a feature. sample: only so many of the items that wait, drawn by `seed`, the same for
    every feature. max_cost: where a feature has a price, stop asking once so much was spent, over all features; yes:
    ask whatever it costs. One of the two is needed where there is a price. device: auto, cpu, cuda, cuda:1, mps.
    batch_size: rows an encoder takes at once, None for the encoder's own; it is halved where memory does not suffice.
    wait: seconds to wait for another writer. ended: called with the report of each feature when it is done, so that
    what was done before an error is known.

    Raises BadInput for a definition that cannot be meant, ModelUnavailable, Conflict for a store being written;
    NotFitted for a feature of kind fuse that has no fit, once all others are computed.
    """
    begun = time.monotonic()
    if min(n for n in (commit_rows, batch_size, limit, sample) if n is not None) < 1:
        raise BadInput(
            "commit_rows, batch_size, limit and sample are 1 or more",
            remedy="leave them out for the defaults",
        )
    if max_cost is not None and not max_cost > 0:
        raise BadInput(
            f"max_cost = {max_cost} buys nothing", remedy="an amount above 0, in the prices' currency"
        )
    wanted = [features] if isinstance(features, str) else None if features is None else list(features)
    chosen = Chosen(failed, limit, sample, seed)
    budget = Budget(max_cost, agreed=yes)
    run = _Run(store, chosen, budget, device, batch_size, commit_rows, progress or Silent())
    with store.lock("materialize", wait):
        ordered = store.definitions.ordered(wanted)
        for definition in ordered:
            resolve.check(store, definition)
        ordered = resolve.fusions_last(store, ordered)
        reports = []
        try:
            for definition in ordered:
                reports.append(run.feature(definition))
                if ended is not None:
                    ended(reports[-1])
        finally:
            run.progress.done()
            if run.loaded:
                release_models()
    return MaterializeReport(reports, time.monotonic() - begun)


def release_models() -> None:
    """Give models back: training in the same process needs the memory."""
    from ingest.encode import clip, sentence, timm_image

    for module in (clip, sentence, timm_image):
        module.load_library.cache_clear()


@dataclass
class _Run:
    """One call of `materialize`."""

    store: Store
    chosen: Chosen
    budget: Budget
    device: str
    batch_size: int | None
    commit_rows: int
    progress: Progress
    loaded: bool = False

    def feature(self, definition: FeatureDef) -> FeatureReport:
        begun = time.monotonic()
        recipe = resolve.active(self.store, definition)
        if definition.kind == resolve.IMPORTED or not self.store.tables.exists(schema.ITEMS):
            return FeatureReport(definition.name, recipe.short if recipe else None)
        notes: tuple[str, ...] = ()
        if recipe is None:
            self.loaded = True
            recipe, notes = resolve.resolve(self.store, definition, device=self.device)
        plan = self.store.plan(definition.name)
        todo = self.chosen.of(plan)
        left = len(plan) - len(todo) - int(pc.sum(pc.equal(plan["state"], State.CURRENT)).as_py() or 0)
        if not len(todo):
            report = FeatureReport(definition.name, recipe.short, skipped=left, notes=notes)
            if notes:  # making the recipe wrote something
                self._record(report)
            return report
        self.progress.start(definition.name, len(todo))
        sink = Sink(self.store, definition.name, recipe, self.commit_rows, self.progress)
        tools = base.Tools(
            Models(self.store.root), self.store.artifacts, self.device, self.batch_size, definition.model
        )
        describing = None
        if definition.kind == schema.DESCRIBE:
            describing = Describing(self.store, definition, recipe, tools, self.budget)
            describing.begin(len(todo))
            sink.on_commit = describing.spool.committed
        tally: Counter[str] = Counter()
        for start in range(0, len(todo), READ_ROWS):
            self._compute(definition, recipe, todo.slice(start, READ_ROWS), sink, tools, describing, tally)
        sink.flush()
        self.progress.done()
        notes += tuple(f"{count:,} {what}" for what, count in tally.items() if count)
        if describing is not None:
            notes += describing.end(whole=self.chosen.all_of(plan))
        report = FeatureReport(
            definition.name,
            recipe.short,
            ok=sink.counts[Status.OK],
            no_input=sink.counts[Status.NO_INPUT],
            error=sink.counts[Status.ERROR],
            skipped=left + len(todo) - sum(sink.counts.values()),
            seconds=time.monotonic() - begun,
            notes=notes,
            cost=describing.cost if describing is not None else None,
        )
        self._record(report)
        return report

    def _record(self, report: FeatureReport) -> None:
        journal.record(self.store.root, "materialize", **report.to_dict(), device=self.device)

    def _compute(
        self,
        definition: FeatureDef,
        recipe: Recipe,
        todo: pa.Table,
        sink: Sink,
        tools: base.Tools,
        describing: Describing | None,
        tally: Counter[str],
    ) -> None:
        """Compute the cells of `todo`; equal inputs are computed once. tally: what to tell of it, counted."""
        if describing is not None:
            self.loaded = True
            groups = Groups(todo)
            describing.compute(groups, read_inputs(self.store, recipe, groups.first), sink)
            return
        empty = pc.invert(todo["has_input"])
        sink.no_input(todo.filter(empty))
        todo = todo.filter(todo["has_input"])
        if not len(todo):
            return
        groups = Groups(todo)
        self.loaded = True
        inputs = read_inputs(self.store, recipe, groups.first)
        encoder = base.maker(definition.kind, definition.encoder).load(recipe, tools)
        for encoded in compute(Job(self.store.tables, recipe, encoder, inputs, tally)):
            sink.add(groups, encoded)


@dataclass(frozen=True)
class Chosen:
    """Which of the cells that wait are computed now; see `materialize`."""

    failed: bool = False
    limit: int | None = None
    sample: int | None = None
    seed: int = 0

    def of(self, plan: pa.Table) -> pa.Table:
        todo = cells.work(plan, failed=self.failed)
        if self.sample is not None and self.sample < len(todo):
            drawn = [sha256_text(f"{self.seed}:{item}") for item in todo[schema.ITEM_ID].to_pylist()]
            order = np.argsort(np.asarray(drawn))[
                : self.sample
            ]  # by hash: the same items whatever the feature
            todo = todo.take(pa.array(np.sort(order)))
        return todo if self.limit is None else todo.slice(0, self.limit)

    def all_of(self, plan: pa.Table) -> bool:
        """Whether no other cell waits, for another call or for a feature above."""
        return len(self.of(plan)) == int(pc.sum(pc.is_in(plan["state"], _WAITING)).as_py() or 0)


def read_inputs(store: Store, recipe: Recipe, ids: pa.ChunkedArray) -> pa.Table:
    """The columns and upstream texts that a recipe reads, one row for each of `ids` in their order.

    Upstream vectors are not among them: they are read some thousands at a time.
    """
    if recipe.kind == schema.FUSE:
        return pa.table({schema.ITEM_ID: ids})
    columns = recipe.columns + ([schema.IMAGE_SHA256] if schema.IMAGE in recipe.inputs else [])
    scan = store.tables.dataset(schema.ITEMS).to_batches(columns=[schema.ITEM_ID, *columns])
    wanted = pa.array(ids.to_pylist(), pa.string())
    batches = [batch.filter(pc.is_in(batch[schema.ITEM_ID], wanted)) for batch in scan]
    table = pa.Table.from_batches(batches)
    place = pc.index_in(wanted, pa.array(table[schema.ITEM_ID].to_pylist(), pa.string()))
    return resolve.joined(store, table.take(place), recipe)
