"""Releases and housekeeping of a whole store, runs included: what the ground floor does, told what runs need."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from featurestore import forget as forgetting
from featurestore import gc as ground
from recommender import leftovers
from recommender.runs import list_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featurestore.forget import ForgetReport
    from featurestore.gc import GcReport
    from featurestore.store import Store


def gc(
    store: Store,
    *,
    keep: int | None = None,
    old_recipes: bool = False,
    dry_run: bool = False,
    grace: float | None = None,
    wait: float | None = None,
) -> GcReport:
    """Free what neither a release nor a run needs; see `featurestore.gc.collect`."""
    return ground.collect(
        store,
        keep=keep,
        old_recipes=old_recipes,
        dry_run=dry_run,
        needed=lambda: leftovers.needed(store.root),
        others=lambda stay: list(leftovers.waste(store.root, stay)),
        wait=wait,
        **({} if grace is None else {"grace": grace}),
    )


def forget(
    store: Store,
    *,
    users: Sequence[str] = (),
    items: Sequence[str] = (),
    dry_run: bool = False,
    wait: float | None = None,
) -> ForgetReport:
    """Erase users and items from everything but weights; see `featurestore.forget.forget`."""
    from recommender.forgetting import edits

    return forgetting.forget(
        store,
        users=users,
        items=items,
        edits=lambda who, what: edits(store.root, who, what),
        dry_run=dry_run,
        wait=wait,
    )


@dataclass(frozen=True)
class ReleaseRow:
    """One release in a list. owned, shared: bytes of its derived files, by whether another release names them too.

    The rows that its tables' versions hold are not counted: most are shared with today's. runs: that learnt from it.
    """

    release: str
    latest: bool
    tag: str | None
    created: str
    items: int
    events: int
    features: list[str]
    owned: int
    shared: int
    runs: list[str]
    forgotten: dict[str, int] | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def release_rows(store: Store) -> list[ReleaseRow]:
    """Every release of a store, newest first."""
    found = store.releases()
    files = {r.name: {path: int(entry["bytes"]) for path, entry in r.files()} for r in found}
    named = Counter(path for sizes in files.values() for path in sizes)
    runs: dict[str | None, list[str]] = {}
    for run in reversed(list_runs(store.root)):
        runs.setdefault(run.release, []).append(run.name)
    return [
        ReleaseRow(
            release=release.name,
            latest=place == 0,
            tag=release.tag,
            created=release.created,
            items=release.n_items,
            events=release.n_events,
            features=release.features,
            owned=sum(size for path, size in files[release.name].items() if named[path] == 1),
            shared=sum(size for path, size in files[release.name].items() if named[path] > 1),
            runs=runs.get(release.name, []),
            forgotten=release.manifest.get("forgotten"),
        )
        for place, release in enumerate(found)
    ]
