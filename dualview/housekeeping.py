"""Releases and housekeeping of a whole store, runs included: what the ground floor does, told what runs need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featurestore import forget as forgetting
from featurestore import gc as ground
from recommender import leftovers

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
