"""Fine-tuning a yes/no model from a store: a release, pairs and preferences in, a named run out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dualview.training import resumed_release
from featurestore import journal

if TYPE_CHECKING:
    from featurestore.release import Release
    from featurestore.store import Store
    from recommender.msr.config import MsrConfig
    from recommender.msr.examples import Example
    from recommender.msr.pairs import Pairs
    from recommender.runs import Run

VALID_USERS = 200  # whose groups choose the epoch, where nobody says how many


@dataclass(frozen=True)
class Asked:
    """What a training is of. folder: of the run to go on with, None for a new one."""

    config: MsrConfig
    release: Release
    pairs: Pairs
    examples: list[Example]
    valid: list[Example]
    folder: Path | None


def train(
    store: Store,
    *,
    model: str | None = None,
    preset: str | None = None,
    pairs: dict[str, Any] | None = None,
    release: str = "latest",
    resume: str | None = None,
    device: str = "auto",
    progress: Callable[[dict[str, Any]], None] | None = None,
    beat: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Run:
    """Fine-tune a model to tell whether a user takes an item; returns the run, of kind "msr".

    model: hub id or folder. preset: "paper" or "code". options: fields of `recommender.msr.config.MsrConfig`. pairs:
    fields of `recommender.msr.pairs.PairOptions`. resume: name of a run that was stopped; it goes on with its own
    options, pairs and release (epochs, patience and save_every may be given anew). progress: called with one row an
    epoch; beat: with place and number of batches.

    Raises BadInput for an unknown option, NotFound for an unknown release, run or feature and where preferences are
    missing, ModelUnavailable.
    """
    from recommender.msr import sft

    begun = time.monotonic()
    asked = _asked(store, model, preset, pairs, release, resume, options, read_only=False)
    run = sft.train(
        store,
        asked.config,
        asked.examples,
        valid=asked.valid,
        folder=asked.folder,
        release=asked.release.name,
        pairs=asked.pairs,
        device=device,
        progress=progress,
        beat=beat,
    )
    seconds = round(time.monotonic() - begun, 3)
    journal.record(store.root, "msr train", **run.summary(), resumed=resume is not None, seconds=seconds)
    return run


@dataclass(frozen=True)
class MsrPlan:
    """What a fine-tuning would be. epoch_seconds: of its batches alone, without validation, judged by `timed_batches`
    that were really learned from; None where there was but one.
    """

    run: str
    resumes: bool
    release: str
    pairs: str
    pairs_hash: str
    numbers: dict[str, int]
    examples: int
    valid_examples: int
    parameters: int
    learned_parameters: int
    adapted_layers: int
    tokens_mean: float
    tokens_most: int
    epochs: int
    steps_an_epoch: int
    timed_batches: int
    epoch_seconds: float | None
    config: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {"dry_run": True} | asdict(self)


def plan_train(
    store: Store,
    *,
    model: str | None = None,
    preset: str | None = None,
    pairs: dict[str, Any] | None = None,
    release: str = "latest",
    resume: str | None = None,
    device: str = "auto",
    **options: Any,
) -> MsrPlan:
    """What `train` would do with the same arguments, and how fast; raises as it does, and keeps nothing."""
    from recommender.msr.sft import rehearse
    from recommender.runs import next_name

    asked = _asked(store, model, preset, pairs, release, resume, options, read_only=True)
    found = rehearse(store, asked.config, asked.examples, valid=asked.valid, device=device)
    each = found.batch_seconds
    return MsrPlan(
        run=asked.folder.name if asked.folder else next_name(store.root, asked.config.slug),
        resumes=asked.folder is not None,
        release=asked.release.name,
        pairs=asked.pairs.description,
        pairs_hash=asked.pairs.hash,
        numbers=dict(asked.pairs.numbers),
        examples=len(asked.examples),
        valid_examples=len(asked.valid),
        parameters=found.parameters,
        learned_parameters=found.learned,
        adapted_layers=found.layers,
        tokens_mean=found.tokens_mean,
        tokens_most=found.tokens_most,
        epochs=asked.config.epochs,
        steps_an_epoch=found.steps,
        timed_batches=found.timed,
        epoch_seconds=None if each is None else each * found.batches,
        config=asked.config.model_dump(mode="json"),
    )


def _asked(
    store: Store,
    model: str | None,
    preset: str | None,
    pairs: dict[str, Any] | None,
    release: str,
    resume: str | None,
    options: dict[str, Any],
    *,
    read_only: bool,
) -> Asked:
    """read_only: a model that is not on this machine is refused, not fetched."""
    from featurestore.errors import BadInput
    from ingest.describe.transformers_vlm import sees
    from recommender.events import EventLog
    from recommender.msr import models
    from recommender.msr.config import MsrConfig
    from recommender.msr.material import VARIANTS, material
    from recommender.msr.pairs import PairOptions, Pairs, draw_pairs
    from recommender.msr.preferences import recipe_of
    from recommender.runs import MSR, PAIRS, open_run

    if model is not None and Path(model).is_dir() and not (store.root / model).is_dir():
        model = str(
            Path(model).resolve()
        )  # a relative folder begins at the store, and where the caller stands
    given = options if model is None else {"model": model} | options
    folder = None
    if resume is not None:
        if preset is not None or pairs:
            raise BadInput(
                "a run goes on with its own pairs and options", remedy="leave preset and pairs out"
            )
        run = open_run(store.root, resume, MSR)
        folder, config = run.folder, MsrConfig.of(**(run.options.model_dump() | given))
        opened = resumed_release(store, run, release)
        log = EventLog.from_release(opened)
        drawn = Pairs.load(folder / PAIRS)
    else:
        if "model" not in given:
            raise BadInput(
                "nothing says which model is fine-tuned",
                remedy="--model with a hub id or a folder, such as Qwen/Qwen2.5-VL-3B-Instruct",
            )
        config = MsrConfig.of(preset=preset, **given)
        opened = store.release(release)
        log = EventLog.from_release(opened)
        drawn = draw_pairs(log, PairOptions.of(**({"valid_users": VALID_USERS} | (pairs or {}))))
        if config.preference in VARIANTS:  # the recipe that was used last may be another one tomorrow
            pinned = recipe_of(store, variant=cast(Any, config.preference)).id
            config = config.model_copy(update={"preference": pinned})
    seeing = sees(models.resolve(store.root, config.model, read_only=read_only).folder)
    made = material(store, opened, log, config, sees=seeing)
    parts = [made.examples(drawn.parts[name]) for name in ("train", "valid")]
    return Asked(config, opened, drawn, parts[0], parts[1], folder)
