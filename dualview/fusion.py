"""Fitting a feature of kind `fuse`: today's vectors, or a run, to weights that the feature's recipe names.

A fit reads the store's tables as they are, not a release. It leaves an artifact (content-addressed) and a line in the
lock that says what it saw; `materialize` then fills the feature's table. What was published keeps serving the old one.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from featurestore import journal, schema
from featurestore.errors import BadInput, Conflict
from ingest import resolve
from ingest.encode.models import Models
from ingest.fuse import recipes
from ingest.fuse.reading import Reading

if TYPE_CHECKING:
    from featurestore.definitions import FeatureDef
    from featurestore.recipe import Recipe
    from featurestore.store import Store
    from ingest.fuse.stored import Stored
    from recommender.fusion import Fit
    from recommender.runs import Run

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class FusionReport:
    """What a fit came to. report: how well views agree, a row a pair, before and after, on `held_out` items that were
    not learned from; of a run's weights on items that it knows. events: what a run learned from; None for items alone.
    """

    feature: str
    recipe: str
    before: str | None
    items: int
    learnt: int
    held_out: int
    epochs: int
    best_epoch: int
    seconds: float
    events: dict[str, str] | None
    report: list[dict[str, Any]]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class FusionPlan:
    """What a fit would learn from. recipe: the active one, which it would leave; present: items that have each input.

    run: whose weights would be taken; None for a fit on items alone, by `options`.
    """

    feature: str
    encoder: str
    recipe: str | None
    items: int
    present: dict[str, int]
    run: str | None
    options: dict[str, Any]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def fit_fusion(
    store: Store,
    feature: str,
    *,
    run: str | None = None,
    refit: bool = False,
    device: str = "auto",
    wait: float | None = None,
    progress: Progress | None = None,
) -> FusionReport:
    """Fit a feature of kind fuse: on the store's items alone, or by the weights of `run`. progress: a row an epoch.

    Raises BadInput for inputs that are not computed or not those the run learned from, Conflict where a fit stands and
    `refit` is not asked for, NotFound for an unknown run.
    """
    from ingest.encode.dmesr import ARTIFACT
    from ingest.fuse import apply
    from recommender import fusion

    with store.lock("fit", wait):
        begun = time.monotonic()
        asked = _Asked.of(store, feature, run, refit)
        ids, stored = asked.read()
        notes = asked.waiting()
        if asked.run is not None:
            found = fusion.of_run(asked.run)
        else:
            found = fusion.learn(stored, ids, asked.options, device=device, progress=progress)
        artifact = store.artifacts.put(apply.files_of(found.view, found.coarse, found.fine, found.scale))
        facts = asked.facts(ids, found, notes)
        before = store.recipe(feature)
        recipe = recipes.with_fit(asked.definition, asked.inputs, artifact, facts)
        assert recipe.artifacts == {ARTIFACT: artifact}
        store.lock_recipe(feature, recipe, facts)
        seconds = round(time.monotonic() - begun, 3)
        journal.record(
            store.root,
            "fit",
            feature=feature,
            recipe=recipe.short,
            before=before.short if before else None,
            items=len(ids),
            run=asked.run.name if asked.run is not None else None,
            seconds=seconds,
        )
    return FusionReport(
        feature,
        recipe.short,
        before.short if before else None,
        len(ids),
        found.learnt,
        found.held_out,
        found.epochs,
        found.best_epoch,
        seconds,
        asked.events,
        found.report,
        notes,
    )


def plan_fusion(store: Store, feature: str, *, run: str | None = None, refit: bool = False) -> FusionPlan:
    """What `fit_fusion` would fit on; raises as it does, but for what only learning shows, and writes nothing."""
    asked = _Asked.of(store, feature, run, refit)
    ids, stored = asked.read()
    before = store.recipe(feature)
    return FusionPlan(
        feature,
        asked.definition.encoder,
        before.short if before else None,
        len(ids),
        {name: int(each.present.sum()) for name, each in stored.items()},
        asked.run.name if asked.run is not None else None,
        asked.recorded,
        asked.waiting(),
    )


@dataclass(frozen=True)
class _Asked:
    """A fit that may be made now. above: recipes of the inputs; inputs: as the feature's recipe names them."""

    store: Store
    definition: FeatureDef
    above: dict[str, Recipe]
    inputs: tuple[str, ...]
    run: Run | None

    @classmethod
    def of(cls, store: Store, feature: str, run: str | None, refit: bool) -> _Asked:
        definition = store.definitions.get(feature)
        if definition.kind != schema.FUSE:
            raise BadInput(
                f"feature '{feature}' is of kind {definition.kind}; a run's weights make features of kind fuse alone",
                remedy=f"dualview fit {store.root} {feature}, without --run",
            )
        resolve.check(store, definition)
        shared = recipes.options_of(definition).same_fit
        if shared is not None:
            raise BadInput(
                f"feature '{feature}' uses the fit of '{shared}'",
                remedy=f"dualview fit {store.root} {shared}",
            )
        above = _above(store, definition)
        inputs = recipes.pinned(definition, above)
        if not refit:
            _refuse_second(store, definition, inputs)
        return cls(store, definition, above, inputs, _run(store, definition, above, run))

    @property
    def options(self) -> Any:
        """FuseOptions."""
        return recipes.options_of(self.definition)

    @property
    def events(self) -> dict[str, str] | None:
        """What the run learned from, as the lock tells it."""
        if self.run is None:
            return None
        split = self.run.about["split"]
        return {
            "release": str(self.run.release),
            "split": str(split["name"]),
            "split_hash": self.run.split_hash,
            "run": self.run.name,
        }

    @property
    def recorded(self) -> dict[str, Any]:
        """What the recipe says of the fit: its options, or the run and its split; beside how the view is built."""
        return dict(self.options.asked) if self.run is None else dict(self.events or {})

    def facts(self, ids: Any, found: Fit, notes: tuple[str, ...]) -> dict[str, Any]:
        """What the lock says of the fit."""
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "items": len(ids),
            "items_sha256": hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest(),
            "learnt": found.learnt,
            "held_out": found.held_out,
            "seed": self.run.config.seed if self.run is not None else self.options.seed,
            "asked": self.options.asked,
            "options": self.recorded | asdict(found.view.fusion),
            "width": found.view.fusion.width,
            "best_epoch": found.best_epoch,
            "report": found.report,
            "notes": list(notes),
        } | ({"events": self.events} if self.events else {})

    def read(self) -> tuple[Any, dict[str, Stored]]:
        """(ids (n,) sorted of the live items, each input over them)."""
        import numpy as np

        ids = np.asarray(sorted(resolve.live_ids(self.store)), dtype=np.str_)
        upstream = [(name, recipe.id) for name, recipe in self.above.items()]
        return ids, Reading(self.store.tables, upstream, ids).take(np.arange(len(ids)))

    def waiting(self) -> tuple[str, ...]:
        """What to tell of inputs that were not current."""
        states = {each.name: each for each in self.store.status(read_only=True).features}
        late = {name: states[name].missing + states[name].stale + states[name].blocked for name in self.above}
        return tuple(
            f"{count:,} items' '{name}' was not current: dualview materialize first, for a fit on all"
            for name, count in late.items()
            if count
        )


def _above(store: Store, definition: FeatureDef) -> dict[str, Recipe]:
    """The active recipes of the inputs, in the order in which they are declared; all have tables."""
    if not store.tables.exists(schema.ITEMS):
        raise BadInput("the store has no items to fit on", remedy=f"dualview ingest {store.root} items.csv")
    models = Models(store.root, read_only=True)
    found: dict[str, Recipe] = {}
    for name in store.definitions.upstream(definition.name):
        recipe = resolve.active(store, store.definitions.get(name), models)
        if recipe is None or not store.tables.exists(recipe.table(name)):
            names = " ".join(f"-f {each}" for each in store.definitions.upstream(definition.name))
            raise BadInput(
                f"feature '{definition.name}' is fitted on '{name}', which is to be computed first",
                remedy=f"dualview materialize {store.root} {names}",
            )
        found[name] = recipe
    return found


def _refuse_second(store: Store, definition: FeatureDef, inputs: tuple[str, ...]) -> None:
    try:
        fit = recipes.fit_of(store, definition, inputs)
    except recipes.NotFitted:
        return
    when = (fit.fitted or {}).get("at", "earlier")
    raise Conflict(
        f"feature '{definition.name}' is fitted already ({when}), and a new fit makes every vector anew",
        remedy=f"dualview fit {store.root} {definition.name} --refit",
    )


def _run(store: Store, definition: FeatureDef, above: dict[str, Recipe], name: str | None) -> Run | None:
    """The run whose weights are taken: it read the very inputs of the feature, by the same recipes."""
    if name is None:
        return None
    from recommender.fusion import check_dual
    from recommender.runs import promotable

    run = promotable(store.root, name)
    check_dual(run)
    if set(run.config.features) != set(above):
        raise BadInput(
            f"run {run.name} learnt from {', '.join(run.config.features) or 'ids alone'}; feature "
            f"'{definition.name}' reads {', '.join(above)}",
            remedy=f"inputs = {list(run.config.features)}, or a run with --items id+{'+'.join(above)}",
        )
    release = run.opened_release()
    for each, recipe in above.items():
        learnt = str(release.facts(each)["recipe_id"])
        if learnt != recipe.id:
            raise BadInput(
                f"run {run.name} learnt from '{each}' of recipe {learnt[:8]} (release {run.release}); feature "
                f"'{definition.name}' reads '{each}' of recipe {recipe.short}",
                remedy="publish, train on that release, and take that run's weights",
            )
    options = recipes.options_of(definition)
    if "width" in definition.options and options.width != run.config.view_width:
        raise BadInput(
            f"run {run.name} has views of width {run.config.view_width}; feature '{definition.name}' asks for "
            f"{options.width}",
            remedy=f"width = {run.config.view_width}, or leave it out",
        )
    return run
