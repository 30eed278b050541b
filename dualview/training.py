"""Training from a store: a release and options in, a named run out."""

from __future__ import annotations

import contextlib
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from featurestore import journal
from featurestore.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

    from featurestore.carried import Carried
    from featurestore.release import Release
    from featurestore.store import Store
    from recommender.config import Config
    from recommender.runs import Run

TOLD_APART = ("backbone", "items")  # options with a flag of their own


def fit(
    store: Store | Carried,
    *,
    backbone: str | None = None,
    items: str | None = None,
    release: str = "latest",
    resume: str | None = None,
    device: str = "auto",
    progress: Callable[[dict[str, Any]], None] | None = None,
    **options: Any,
) -> Run:
    """Train a sequential recommender on a release; returns the run, under `STORE/runs/NAME`.

    backbone: "sasrec", "gru4rec" or "bert4rec". items: "id", a feature's name, or several joined by +. options:
    fields of `recommender.config.Config`. resume: name of a run that was stopped; it goes on with its own
    options and release (epochs and patience may be given anew). progress: called with one row an epoch.

    Raises BadInput for an unknown option or feature, NotFound for an unknown release or run, Conflict for a run that is
    resumed on a release other than its own.
    """
    from recommender import fit as trainer
    from recommender.runs import allot

    begun = time.monotonic()
    source, config, folder = _asked(store, backbone, items, release, resume, options)
    place = folder or allot(store.root, config.slug)
    try:
        run = trainer.fit(source, config, place, device=device, progress=progress)
    except BaseException:
        if folder is None:
            with contextlib.suppress(OSError):
                place.rmdir()  # only where it is empty: what was refused before it began takes no name
        raise
    seconds = round(time.monotonic() - begun, 3)
    journal.record(store.root, "train", **run.summary(), resumed=resume is not None, seconds=seconds)
    return run


@dataclass(frozen=True)
class TrainingPlan:
    """What a training would be. run: the name it would get. epoch_seconds: of its steps alone, without validation,
    judged by `timed_steps` that were really made.
    """

    run: str
    resumes: bool
    release: str
    features: dict[str, str]  # name -> recipe
    split: dict[str, Any]
    users: int
    items: int
    events: int
    parameters: int
    epochs: int
    patience: int
    steps_an_epoch: int
    timed_steps: int
    epoch_seconds: float
    config: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {"dry_run": True} | asdict(self)


def plan_fit(
    store: Store | Carried,
    *,
    backbone: str | None = None,
    items: str | None = None,
    release: str = "latest",
    resume: str | None = None,
    device: str = "auto",
    **options: Any,
) -> TrainingPlan:
    """What `fit` would train with the same arguments, and how fast; raises as it does, and keeps nothing."""
    from recommender.fit import rehearse
    from recommender.runs import next_name

    source, config, folder = _asked(store, backbone, items, release, resume, options)
    found = rehearse(source, config, device=device)
    split = found.split
    return TrainingPlan(
        run=folder.name if folder else next_name(store.root, config.slug),
        resumes=folder is not None,
        release=source.name,
        features={name: source.facts(name)["recipe_id"] for name in config.features},
        split={"name": split.name, "hash": split.hash, "description": split.description, **split.numbers()},
        users=split.log.n_users,
        items=split.log.n_items,
        events=len(split.log),
        parameters=found.parameters,
        epochs=config.epochs,
        patience=config.patience,
        steps_an_epoch=found.steps,
        timed_steps=found.timed,
        epoch_seconds=found.steps * found.step_seconds,
        config=config.model_dump(mode="json"),
    )


def _asked(
    store: Store | Carried,
    backbone: str | None,
    items: str | None,
    release: str,
    resume: str | None,
    options: dict[str, Any],
) -> tuple[Release, Config, Path | None]:
    """What to train on, how, and the folder of the run to go on with, None for a new one."""
    from recommender.config import Config
    from recommender.runs import open_run

    given = {k: v for k, v in {"backbone": backbone, "items": items}.items() if v is not None} | options
    if resume is not None:
        run = open_run(store.root, resume)
        config = Config.of(**(run.config.model_dump() | given))
        return resumed_release(store, run, release), config, run.folder
    config = Config.of(**given)
    source = store.release(release)
    for feature in config.features:
        source.matrix(feature)  # an unknown feature is refused before a run is named
    return source, config, None


def resumed_release(store: Store | Carried, run: Run, release: str) -> Release:
    """The release that a run goes on with: its own. Another one by name is refused."""
    from featurestore.errors import Conflict
    from featurestore.release import LATEST

    if run.release is None:
        return store.release(release)
    if release != LATEST and (asked := store.release(release).name) != run.release:
        raise Conflict(
            f"run {run.name} is of release {run.release}, not of {asked}",
            remedy="a run goes on with its own release: leave --release out, or train a new run",
        )
    return store.release(run.release)


def promote(store: Store | Carried, run: str) -> Run:
    """Make a run the one that `recommend` uses."""
    from recommender import runs

    before = runs.promoted(store.root)
    chosen = runs.promote(store.root, run)
    journal.record(store.root, "promote", run=chosen.name, before=before.name if before else None)
    return chosen


def plan_promote(store: Store | Carried, run: str) -> dict[str, Any]:
    """Which run `promote` would choose instead of which; raises as it does."""
    from recommender import runs

    before = runs.promoted(store.root)
    chosen = runs.promotable(store.root, run)
    return {"run": chosen.name, "before": before.name if before else None, "release": chosen.release}


def parse_options(given: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` texts as options; values are written as in TOML, bare words are strings.

    >>> parse_options(["width=128", "loss=bce", "k_core=[6, 5]"])
    {'width': 128, 'loss': 'bce', 'k_core': [6, 5]}
    """
    options: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise BadInput(
                f"'{text}' is no option", remedy="write --set KEY=VALUE; `--options` lists the keys"
            )
        try:
            options[key.strip()] = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError:
            options[key.strip()] = value.strip()
    return options


def option_table() -> list[tuple[str, str, str, str]]:
    """(option, default, values, meaning) of everything that can be set, values as `--set` takes them."""
    from recommender.config import Config

    return [row for row in options_of(Config) if row[0] not in TOLD_APART]


def options_of(model: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    """The same of any set of options; one that must be given has no default."""
    return [
        (
            name,
            "" if field.is_required() else _spelled(field.default),
            _choices(field.annotation),
            field.description or "",
        )
        for name, field in model.model_fields.items()
    ]


def _spelled(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _choices(annotation: Any) -> str:
    """The words an option is one of, or none where it is a number, a truth or a list."""
    if get_origin(annotation) is Literal:
        return ", ".join(get_args(annotation))
    return ", ".join(filter(None, map(_choices, get_args(annotation))))


def run_rows(store: Store | Carried) -> list[dict[str, Any]]:
    """One row a run, newest first, for a list."""
    from recommender import runs

    chosen = runs.promoted(store.root)
    rows = []
    for run in runs.list_runs(store.root):
        found = run.metrics()
        test = found.get("test", {}).get("metrics", {})
        rows.append(
            {
                "run": run.name,
                "kind": run.kind,
                "release": run.release,
                "epochs": found.get("epochs", 0),
                "best": found.get("best_epoch"),
                "valid NDCG@10": found.get("valid", {}).get("ndcg@10"),
                "test NDCG@10": test.get("NDCG@10"),
                "test HR@10": test.get("HR@10"),
                "valid AUC": found.get("valid", {}).get("auc"),
                "promoted": chosen is not None and chosen.name == run.name,
            }
        )
    return rows
