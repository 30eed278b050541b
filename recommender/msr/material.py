"""Groups as what a model is asked: each with its user's preference at that point in time, and its items as candidates.

A preference may be written by no model (`history`: the latest texts of what the user took), or be a kept one of the
table `preferences`, looked up before the event that is asked about. Where there is none the model is told that nothing
is known, and a warning counts them; where they are many it is refused, as it would spoil a table.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import BadInput, NotFound
from recommender.events import EventLog, Int64
from recommender.msr.config import HISTORY, MsrConfig
from recommender.msr.examples import Candidate, Example, Shelf, history
from recommender.msr.pairs import Groups
from recommender.msr.scorers import GroupScorer, Scores, rows_of

if TYPE_CHECKING:
    from recommender.msr.ranker import Ranker

TellFn = Callable[[Groups], list["Told"]]
VARIANTS = ("recurrent", "direct")
MOST_MISSING = 0.1  # share of groups whose user may have no preference


class NoPreference(UserWarning):
    """Some users are asked about as unknown."""


@dataclass(frozen=True)
class Told:
    """What is said of a user. step: states that lead to it, None for a history; behind: events that it has not read."""

    text: str
    step: int | None = None
    behind: int = 0


@dataclass(frozen=True)
class Material:
    """How groups are put to a model. tell: gives for each group what is known of its user before it."""

    shelf: Shelf
    tell: TellFn

    def examples(self, groups: Groups) -> list[Example]:
        """Group after group, the positive of each first."""
        return [
            Example(user, told.text, candidate, place == 0)
            for user, told, candidates in self._asked(groups)
            for place, candidate in enumerate(candidates)
        ]

    def scorer(self, ranker: Ranker, progress: Callable[[int, int], None] | None = None) -> GroupScorer:
        """log p(yes) - log p(no) of each candidate: the order of p(yes) / (p(yes) + p(no)), without its rounding."""

        def score(groups: Groups) -> Scores:
            found = np.empty(groups.items.shape, dtype=np.float32)
            for place, (_, told, candidates) in enumerate(self._asked(groups)):
                found[place] = ranker.log_odds(told.text, candidates)
                if progress is not None:
                    progress(place + 1, len(groups))
            return found

        return score

    def _asked(self, groups: Groups) -> Iterator[tuple[str, Told, list[Candidate]]]:
        told = self.tell(groups)
        rows = zip(groups.users.tolist(), told, groups.items.tolist(), strict=True)
        return ((user, says, [self.shelf[item] for item in items]) for user, says, items in rows)


def material(
    store: Any,
    release: Any,
    log: EventLog,
    config: MsrConfig,
    *,
    sees: bool = True,
) -> Material:
    """What the options of a run say. sees: whether its model takes pictures.

    Raises NotFound for an unknown text, summary or preference.
    """
    shelf = Shelf(
        store,
        release,
        text=config.text,
        summary=config.summary,
        picture=sees and config.image is not False,
    )
    if config.preference == HISTORY:
        return Material(shelf, titles(shelf, log, config.history))
    return Material(shelf, kept(store, release, log, config.preference))


def titles(shelf: Shelf, log: EventLog, most: int) -> TellFn:
    """The latest texts of what each user took, as TALLRec does (Bao et al., RecSys 2023)."""

    def tell(groups: Groups) -> list[Told]:
        found = []
        for row in rows_before(log, groups).tolist():
            first = int(log.offsets[log.users[row]])
            items = log.item_ids[log.items[max(first, row - most) : row]].tolist()
            found.append(Told(history(shelf, items, most)))
        return found

    return tell


def kept(store: Any, release: Any, log: EventLog, name: str) -> TellFn:
    """Preferences of the table. name: recurrent or direct (the recipe of that kind used last), or a recipe's id."""
    from recommender.msr.preferences import Preferences

    which: dict[str, Any] = {"variant": name} if name in VARIANTS else {"recipe": name}
    known = Preferences.open(store, log=log, release=release, **which)

    def tell(groups: Groups) -> list[Told]:
        found = known.before(rows_before(log, groups))
        lacking = [user for user, one in zip(groups.users.tolist(), found, strict=True) if one is None]
        if lacking:
            told = (
                f"{len(lacking):,} of {len(found):,} users have no {name} preference, '{lacking[0]}' for one"
            )
            if len(lacking) > MOST_MISSING * len(found):
                raise NotFound(told, remedy=f"make them: dualview preferences {store.root}")
            warnings.warn(f"{told}; they are asked about as unknown", NoPreference, stacklevel=3)
        return [Told("") if one is None else Told(one.text, one.step, one.behind) for one in found]

    return tell


def rows_before(log: EventLog, groups: Groups) -> Int64:
    """(m,) rows of the positives in the log. Raises BadInput where the log says otherwise."""
    users = rows_of(log.user_ids, groups.users)
    rows: Int64 = log.offsets[users] + groups.history
    if (rows >= log.offsets[users + 1]).any() or (log.item_ids[log.items[rows]] != groups.targets).any():
        raise BadInput("these pairs were drawn from other events", remedy="draw them again")
    return rows


def texts_of(told: Sequence[Told]) -> dict[str, int]:
    """What a report says of preferences: how many there are, how many are empty, and the most events one is behind."""
    return {
        "preferences": len(told),
        "preferences_unknown": sum(not one.text for one in told),
        "events_behind_most": max((one.behind for one in told), default=0),
    }
