"""What `materialize` would compute, and how long it would take; nothing is written and no lock is taken.

Recipes that are not resolved yet are drafted, so that cells are counted as they would be. Time is measured: a small
sample of the very inputs that wait goes through the very encoder, and the rest is taken to be like it. A transform that
would have to be fitted first is fitted on a sample, in a temporary folder.

A kind of feature says what its inputs take through an `Estimator`, registered under the kind's name.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore import features as cells
from featurestore import schema
from featurestore.artifacts import Artifacts
from featurestore.errors import ModelUnavailable
from featurestore.schema import State
from ingest import materialize, resolve
from ingest.cells import Groups
from ingest.compute import Job, compute
from ingest.describe import recipes
from ingest.encode import base
from ingest.encode.models import Models
from ingest.fuse.recipes import NotFitted

if TYPE_CHECKING:
    from featurestore.definitions import FeatureDef
    from featurestore.recipe import Recipe
    from featurestore.store import Store

WARM = 16  # inputs that go through an encoder before it is timed
SAMPLE = 256  # at most so many are timed
SECONDS = 2.0  # at most about so long
FIT_SAMPLE = 2_000  # texts that a fit is tried on


@dataclass(frozen=True)
class Usage:
    """What computing all waiting inputs would take, judged by `sample` of them that were really computed.

    rate: inputs a second. seconds: for all of them, loading the model included; None where it cannot be told. tokens,
    and cost in US dollars: of a model that is paid by the token, None for any other.
    """

    sample: int = 0
    rate: float | None = None
    seconds: float | None = None
    tokens: int | None = None
    cost: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Work:
    """Inputs of one feature that wait to be computed. ids: one item for each distinct input."""

    store: Store
    definition: FeatureDef
    recipe: Recipe
    ids: pa.ChunkedArray
    tools: base.Tools

    def sample(self, size: int) -> pa.ChunkedArray:
        """So many of the ids, spread evenly."""
        places = np.unique(np.linspace(0, len(self.ids) - 1, min(size, len(self.ids))).astype(np.int64))
        return self.ids.take(pa.array(places))


class Estimator(Protocol):
    def __call__(self, work: Work) -> Usage:
        """What the work would take. Writes nothing; raises ModelUnavailable where it cannot be tried."""


_estimators: dict[str, Estimator] = {}


def estimates(kind: str) -> Callable[[Estimator], Estimator]:
    """Register what says how much the inputs of a kind of feature take."""

    def add(estimator: Estimator) -> Estimator:
        _estimators[kind] = estimator
        return estimator

    return add


@dataclass(frozen=True)
class FeatureEstimate:
    """What would be done for one feature.

    recipe: its short hash, None while a fit or an unreachable model decides it. resolve: why the recipe would be made
    anew, None where it stands. missing, stale, failed: cells that would be computed; blocked: cells that wait for a
    feature which would be computed before. inputs: distinct inputs among the cells, each computed once.
    """

    feature: str
    recipe: str | None
    resolve: str | None
    missing: int = 0
    stale: int = 0
    failed: int = 0
    blocked: int = 0
    no_input: int = 0
    inputs: int = 0
    usage: Usage = field(default_factory=Usage)

    @property
    def cells(self) -> int:
        return self.missing + self.stale + self.failed

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = asdict(self)
        usage: dict[str, Any] = found.pop("usage")
        return found | {"cells": self.cells} | usage | {"notes": list(self.usage.notes)}


@dataclass(frozen=True)
class MaterializeEstimate:
    features: list[FeatureEstimate]

    @property
    def cells(self) -> int:
        return sum(f.cells for f in self.features)

    @property
    def seconds(self) -> float | None:
        """Of all features, or None where one of them cannot be told."""
        working = [f for f in self.features if f.cells or f.blocked]
        if any(f.usage.seconds is None or f.blocked for f in working):
            return None
        return sum(f.usage.seconds or 0.0 for f in working)

    def to_dict(self) -> dict[str, Any]:
        return {
            "dry_run": True,
            "features": [f.to_dict() for f in self.features],
            "cells": self.cells,
            "seconds": self.seconds,
            "tokens": _total([f.usage.tokens for f in self.features]),
            "cost": _total([f.usage.cost for f in self.features]),
        }


def _total(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def estimate(
    store: Store,
    features: Sequence[str] | str | None = None,
    *,
    failed: bool = False,
    limit: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    device: str = "auto",
    batch_size: int | None = None,
) -> MaterializeEstimate:
    """What `materialize` would do with the same arguments; raises BadInput as it does."""
    from ingest.describe import estimating  # noqa: F401  # registers itself, and reads this module

    wanted = [features] if isinstance(features, str) else None if features is None else list(features)
    ordered = store.definitions.ordered(wanted)
    for definition in ordered:
        resolve.check(store, definition)
    asked = _Asked(store, materialize.Chosen(failed, limit, sample, seed), device, batch_size)
    try:
        return MaterializeEstimate([asked.feature(definition) for definition in ordered])
    finally:
        if asked.loaded:
            materialize.release_models()


@dataclass
class _Asked:
    """One call of `estimate`. recipes: those of the features seen so far, active or drafted."""

    store: Store
    chosen: materialize.Chosen
    device: str
    batch_size: int | None
    recipes: dict[str, Recipe] = field(default_factory=dict)
    loaded: bool = False

    def feature(self, definition: FeatureDef) -> FeatureEstimate:
        models = Models(self.store.root, read_only=True)
        name = definition.name
        reason = resolve.outdated(self.store, definition, models)
        if definition.kind == resolve.IMPORTED or not self.store.tables.exists(schema.ITEMS):
            recipe = self.store.recipe(name) if reason is None else None
            return FeatureEstimate(name, recipe.short if recipe else None, reason)
        unknown = [above for above in self.store.definitions.upstream(name) if above not in self.recipes]
        if unknown:
            return self._untold(name, reason, f"waits for '{unknown[0]}'", blocked=True)
        try:
            recipe = self._recipe(definition, reason, models)
        except (ModelUnavailable, NotFitted) as error:
            return self._untold(name, reason, f"{error.message}; {error.remedy}")
        self.recipes[name] = recipe
        return self._counted(definition, recipe, reason, models)

    def _recipe(self, definition: FeatureDef, reason: str | None, models: Models) -> Recipe:
        active = self.store.recipe(definition.name)
        if reason is None and active is not None:
            return active
        self.loaded = True
        return resolve.draft(self.store, definition, self.recipes, models, self.device)

    def _untold(self, name: str, reason: str | None, note: str, *, blocked: bool = False) -> FeatureEstimate:
        """Of a feature whose recipe cannot be drafted: every item would be computed, nobody knows how fast."""
        items = self.store.tables.dataset(schema.ITEMS).count_rows(f"{schema.DELETED} IS NOT TRUE")
        missing, waiting = (0, items) if blocked else (items, 0)
        return FeatureEstimate(
            name, None, reason, missing=missing, blocked=waiting, usage=Usage(notes=(note,))
        )

    def _counted(
        self, definition: FeatureDef, recipe: Recipe, reason: str | None, models: Models
    ) -> FeatureEstimate:
        standing = self._standing(definition.name, recipe)
        plan = cells.plan(
            self.store.tables, self.recipes | {definition.name: standing or recipe}, definition.name
        )
        todo = self.chosen.of(plan)
        full = todo.filter(todo["has_input"])
        ids = Groups(full).first if len(full) else full[schema.ITEM_ID]
        blocked = _count(plan, State.BLOCKED)
        usage = Usage(notes=("what it reads would be computed first",) if blocked else ())
        unfitted = reason is not None and _to_fit(definition, recipe)
        if len(ids):
            self.loaded = True
            tools = base.Tools(models, self.store.artifacts, self.device, self.batch_size, definition.model)
            usage = self._measured(Work(self.store, definition, recipe, ids, tools))
        elif not blocked:
            usage = Usage(seconds=0.0)
        if standing is not None:
            usage = replace(
                usage, notes=(*usage.notes, "answers are judged by the new rules; nobody is asked")
            )
        return FeatureEstimate(
            definition.name,
            None if unfitted else recipe.short,
            reason,
            missing=_count(todo, State.MISSING),
            stale=_count(todo, State.STALE),
            failed=_count(todo, State.FAILED),
            blocked=blocked,
            no_input=len(todo) - len(full),
            inputs=len(ids),
            usage=usage,
        )

    def _standing(self, name: str, recipe: Recipe) -> Recipe | None:
        """The active recipe of a description, if its cells would be judged anew rather than asked for again."""
        active = self.store.recipe(name)
        if active is None or active == recipe or active.inputs != recipe.inputs:
            return None
        described = active.kind == recipe.kind == schema.DESCRIBE
        return active if described and recipes.question(active) == recipes.question(recipe) else None

    def _measured(self, work: Work) -> Usage:
        try:
            return _estimators[work.definition.kind](work)
        except ModelUnavailable as error:
            return Usage(notes=(f"{error.message}; {error.remedy}",))


def _count(rows: pa.Table, state: State) -> int:
    return int(pc.sum(pc.equal(rows["state"], state)).as_py() or 0)


def _to_fit(definition: FeatureDef, recipe: Recipe) -> bool:
    return resolve.fitted(definition) and not recipe.artifacts


# ---- encoders, timed


@estimates("embed_image")
@estimates("embed_text")
@estimates("embed_tokens")
@estimates("fuse")
def encoded(work: Work) -> Usage:
    """Inputs read and encoded, a fit on a sample before where there is none."""
    maker = base.maker(work.definition.kind, work.definition.encoder)
    with _fitted(work) as (recipe, tools, fitting, notes):
        if maker.fitted and not recipe.artifacts:
            return Usage(seconds=fitting, notes=notes)
        begun = time.perf_counter()
        encoder = maker.load(recipe, tools)
        loading = time.perf_counter() - begun + fitting

        def run(inputs: pa.Table) -> None:
            for _ in compute(Job(work.store.tables, recipe, encoder, inputs)):
                pass

        return _timed(work, run, loading, notes)


@contextmanager
def _fitted(work: Work) -> Iterator[tuple[Recipe, base.Tools, float, tuple[str, ...]]]:
    """(recipe with a fit, tools that find it, seconds that fitting takes, notes)."""
    if not _to_fit(work.definition, work.recipe):
        yield work.recipe, work.tools, 0.0, ()
        return
    maker = base.maker(work.definition.kind, work.definition.encoder)
    corpus = list(resolve.texts(work.store, work.recipe, rows=resolve.FIT_ROWS))
    some = corpus[:: max(1, -(-len(corpus) // FIT_SAMPLE))]
    begun = time.perf_counter()
    fitted = maker.fit(some, work.recipe.options)
    seconds = time.perf_counter() - begun
    notes: tuple[str, ...] = (f"would be fitted on {len(corpus):,} texts first",)
    if len(some) < len(corpus):
        notes = (
            f"would be fitted on {len(corpus):,} texts first; a fit on {len(some):,} took {seconds:.1f} s, "
            "and that of all is not in the estimate",
        )
        seconds = 0.0
    with tempfile.TemporaryDirectory(prefix="dualview-") as folder:
        kept = Artifacts(Path(folder))
        artifacts = {maker.artifact: kept.put(fitted.files)} if fitted.files else {}
        recipe = work.recipe.model_copy(update={"dim": fitted.dim, "artifacts": artifacts})
        yield recipe, replace(work.tools, artifacts=kept), seconds, notes


def _timed(work: Work, run: Callable[[pa.Table], None], loading: float, notes: tuple[str, ...] = ()) -> Usage:
    """Warm up, then time as many inputs as the warm-up says will take about SECONDS."""

    def seconds(ids: pa.ChunkedArray) -> float:
        inputs = materialize.read_inputs(work.store, work.recipe, ids)
        begun = time.perf_counter()
        run(inputs)
        return time.perf_counter() - begun

    total = len(work.ids)
    size = min(WARM, total)
    took = seconds(work.sample(size))
    if total > size:
        size = min(total, SAMPLE, max(size, int(size / took * SECONDS)))
        took = seconds(work.sample(size))
    rate = size / took
    return Usage(sample=size, rate=rate, seconds=loading + total / rate, notes=notes)
