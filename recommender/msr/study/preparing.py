"""What the cells of a study read besides a release: preferences, as of every positive of its pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import BadInput, NotFound
from featurestore.store import Store
from ingest.encode.models import Models
from recommender.events import EventLog, Int64
from recommender.msr.material import rows_before
from recommender.msr.pairs import PARTS, Pairs, draw_pairs
from recommender.msr.preferences_recipe import PreferenceOptions, draft
from recommender.splits import Split

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
    """Make the preferences that arms read and that are not there yet; a report for each that is named."""
    from recommender.msr.preferences_run import compute

    wanted = {
        arm.preference.model_dump_json(): arm.preference for arm in study.arms.values() if arm.preference
    }
    if not wanted:
        return []
    store, release, log = opened(study)
    pairs = draw_pairs(log, study.pairs)
    users = sorted({user for groups in pairs.parts.values() for user in groups.users.tolist()})
    reports = []
    for options in wanted.values():
        for split in splits_of(log, pairs):
            found = compute(
                store,
                options,
                split=split,
                release=release.name,
                points=("train", "valid", "test"),
                users=users,
                device=device,
                wait=3600.0,
                progress=progress,
            )
            reports.append(found.to_dict())
    return reports


def recipe_id(store: Store, release: Any, options: PreferenceOptions, device: str = "auto") -> str:
    """Of the preferences that these options make of a release."""
    return draft(store.root, release, options, Models(store.root, read_only=True), device)[0].id


def splits_of(log: EventLog, pairs: Pairs) -> Iterator[Split]:
    """Cuts of the log whose targets are all positives of the pairs, so many as a user has positives in one part.

    `train` of such a cut is one before `train_end`, as of any split.
    """
    rows = {name: _by_place(log, rows_before(log, pairs.parts[name])) for name in PARTS}
    nobody = np.full(log.n_users, -1, dtype=np.int64)
    for place in range(max(len(found) for found in rows.values())):
        train, valid, test = (rows[name][place] if place < len(rows[name]) else nobody for name in PARTS)
        first = log.offsets[:-1]
        yield Split(
            log=log,
            name="pairs",
            description=pairs.description,
            train_end=np.where(train >= 0, train + 1, first),
            valid=valid,
            test=test,
        )


def _by_place(log: EventLog, rows: Int64) -> list[Int64]:
    """Rows of a part, the k-th of each user together: (n_users,) each, -1 where the user has no k-th."""
    users = log.users[rows].astype(np.int64)
    start = np.searchsorted(users, users)
    place = np.arange(len(rows)) - start
    found = []
    for k in range(int(place.max()) + 1 if len(place) else 0):
        here = np.full(log.n_users, -1, dtype=np.int64)
        here[users[place == k]] = rows[place == k]
        found.append(here)
    return found
