"""What the cells of a study read besides a release: preferences, as of every positive of its pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import BadInput, NotFound
from featurestore.store import Store
from ingest.encode.models import Models
from recommender.events import EventLog
from recommender.msr.config import MsrConfig
from recommender.msr.material import rows_before
from recommender.msr.models import resolve
from recommender.msr.pairs import draw_pairs
from recommender.msr.preferences_recipe import PreferenceOptions, draft
from recommender.splits import leave_one_out

if TYPE_CHECKING:
    from recommender.msr.study.grid import MsrStudy


def opened(study: MsrStudy) -> tuple[Store, Any, EventLog]:
    """The store of a study's data set, its release and the events. Raises BadInput for a carried release."""
    data = next(iter(study.data.values()))
    if not (data.root / "store.json").exists():
        if not data.root.exists():
            raise NotFound(f"data {data.name}: there is no store {data.root}", remedy="make it first")
        raise BadInput(
            f"data {data.name}: {data.root} is no store",
            remedy="a study of kind msr reads preferences and pictures, which a copied release has not",
        )
    store = Store.open(data.root)
    release = store.release(data.release)
    return store, release, EventLog.from_release(release)


def prepare(study: MsrStudy, device: str = "auto", progress: Any = None) -> list[dict[str, Any]]:
    """Make the preferences that arms read and that are not there yet; a report for each that is named.

    Models are fetched first: raises ModelUnavailable before anything is made where one cannot be had.
    """
    from recommender.msr.preferences_run import compute

    tuned = [arm.options.model for arm in study.arms.values() if isinstance(arm.options, MsrConfig)]
    for model in dict.fromkeys(tuned):
        resolve(opened(study)[0].root, model)
    wanted = {
        arm.preference.model_dump_json(): arm.preference for arm in study.arms.values() if arm.preference
    }
    if not wanted:
        return []
    store, release, log = opened(study)
    pairs = draw_pairs(log, study.pairs)
    rows = np.unique(np.concatenate([rows_before(log, groups) for groups in pairs.parts.values()])).tolist()
    return [
        compute(
            store,
            options,
            split=leave_one_out(log),
            release=release.name,
            rows=rows,
            device=device,
            wait=3600.0,
            progress=progress,
        ).to_dict()
        for options in wanted.values()
    ]


def recipe_id(store: Store, release: Any, options: PreferenceOptions, device: str = "auto") -> str:
    """Of the preferences that these options make of a release."""
    return draft(store.root, release, options, Models(store.root, read_only=True), device)[0].id
