"""Preferences of users, as they stand in a store: what a model made of somebody's history before a given event.

    known = Preferences.open(store, log=split.log)              # what was computed, matched with this very log
    known.before(split.test[users])                             # as of each target: (n,) Preference or None
    latest(store, ["u1", "u2"])                                 # of all that is known of a user: texts by user id

`recommender.msr.preferences_run.compute` makes them. Whether a state belongs to a log is told by its hash, which holds
every event and every item's text that went into it; so a state of another split, release or core is either the same
one or not found, and one that read the event in question, or a later one, cannot be given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore import preferences as stored
from featurestore import schema
from featurestore.errors import BadInput, NotFound
from featurestore.recipe import SHORT, Recipe
from featurestore.schema import Status
from recommender.events import EventLog, Int64
from recommender.msr.preferences_recipe import item_texts, shape_of
from recommender.msr.states import Told, Variant, input_hash

if TYPE_CHECKING:
    from featurestore.release import Release
    from featurestore.store import Store


@dataclass(frozen=True)
class Preference:
    """What is known of a user's taste from the events start..end of their own order (position 0 is the first).

    step: states that lead to it. behind: events between `end` and the one that it was asked for, not read yet: none
    where that very point was computed, else those of a block that was not full. until: time of the last event that
    was read, None without a clock. state: its state_id.
    """

    user: str
    text: str
    step: int
    start: int
    end: int
    behind: int
    until: int | None
    state: str


class Preferences:
    """The valid states of one recipe over one log."""

    def __init__(self, recipe: Recipe, told: Told, rows: Iterable[dict[str, Any]]) -> None:
        """rows: of the table, made by `recipe`; those that do not belong to the log are left out."""
        self.recipe = recipe
        self.log = told.log
        self._states: dict[int, list[dict[str, Any]]] = {}
        for user, row in valid(told, rows):
            if row[schema.STATUS] == Status.OK:
                self._states.setdefault(user, []).append(row)

    @classmethod
    def open(
        cls,
        store: Store,
        *,
        log: EventLog | None = None,
        release: str | Release = "latest",
        variant: Variant = "recurrent",
        recipe: str | None = None,
        users: Sequence[str] | None = None,
    ) -> Preferences:
        """What a store holds for a log.

        log: of `release`, as a split has it; None for all of its events. variant: the recipe of this kind that was
        used last; recipe: this one instead, by its id or the beginning of it. users: only theirs are read, which is
        quick for a few.

        Raises NotFound where no preference was ever made so.
        """
        opened = store.release(release) if isinstance(release, str) else release
        chosen = recipe_of(store, variant=variant, recipe=recipe)
        whole = EventLog.from_release(opened) if log is None else log
        rows = stored.read(store.tables, recipe=chosen.id, users=users)
        return cls(chosen, Told(whole, item_texts(opened, chosen)), rows)

    def before(self, rows: Int64 | Sequence[int]) -> list[Preference | None]:
        """The preference as of each event: of the latest state that ends at it or before it.

        rows: (n,) rows of the log (as `Split.test`); row `offsets[u + 1]` may not be asked for, see `now`. Gives (n,)
        preferences in their order, None where nothing was computed that ends early enough.
        """
        asked = np.asarray(rows, dtype=np.int64)
        if len(asked) and (asked.min() < 0 or asked.max() >= len(self.log)):
            raise BadInput(
                f"rows of the log are 0..{len(self.log) - 1}, got {asked.min()}..{asked.max()}",
                remedy="leave out users without a target: split.users('test')",
            )
        users = self.log.users[asked].astype(np.int64)
        ends = asked - self.log.offsets[users]
        return [self._at(user, end) for user, end in zip(users.tolist(), ends.tolist(), strict=True)]

    def now(self, users: Sequence[str] | None = None) -> list[Preference | None]:
        """The preference as of all that is in the log, for each of `users` (ids; None for all of the log's).

        None for a user of whom there is none, known or unknown.
        """
        ids = self.log.user_ids
        wanted = ids if users is None else np.asarray(list(users), dtype=np.str_)
        places = np.searchsorted(ids, wanted)
        lengths = np.diff(self.log.offsets)
        return [
            self._at(int(place), int(lengths[place])) if place < len(ids) and ids[place] == user else None
            for user, place in zip(wanted, places, strict=True)
        ]

    def __len__(self) -> int:
        """How many valid states with a text there are."""
        return sum(len(found) for found in self._states.values())

    def _at(self, user: int, end: int) -> Preference | None:
        """The state that ends latest, at `end` or before; of several the one that began earliest."""
        found = [row for row in self._states.get(user, ()) if row[stored.END] <= end]
        if not found:
            return None
        row = max(found, key=lambda r: (r[stored.END], -r[stored.START]))
        times = row[stored.TIMES]
        return Preference(
            user=row[schema.USER_ID],
            text=row[schema.VALUE],
            step=row[stored.STEP],
            start=row[stored.START],
            end=row[stored.END],
            behind=end - row[stored.END],
            until=times[-1] if times else None,
            state=row[stored.STATE_ID],
        )


def latest(
    store: Store,
    users: Sequence[str] | None = None,
    *,
    release: str | Release = "latest",
    log: EventLog | None = None,
    variant: Variant = "recurrent",
    recipe: str | None = None,
) -> dict[str, str]:
    """user id -> preference as of all that the log holds, of those who have one; arguments as of `Preferences.open`."""
    known = Preferences.open(store, log=log, release=release, variant=variant, recipe=recipe, users=users)
    return {each.user: each.text for each in known.now(users) if each is not None}


def recipe_of(store: Store, *, variant: Variant = "recurrent", recipe: str | None = None) -> Recipe:
    """The recipe with this id, or a beginning of it; else the one of `variant` that was used last. Raises NotFound."""
    known = stored.recipes(store.root)
    if recipe is not None:
        found = [each for name, each in known.items() if name.startswith(recipe)]
        if len(found) == 1:
            return found[0]
        listed = ", ".join(name[:SHORT] for name in known) or "none"
        raise NotFound(
            f"{len(found) or 'no'} recipes of preferences begin with '{recipe}'", remedy=f"known: {listed}"
        )
    of_variant = [each for each in known.values() if shape_of(each).variant == variant]
    if not of_variant:
        flag = " --direct" if variant == "direct" else ""
        raise NotFound(
            f"no {variant} preferences were ever made in {store.root}",
            remedy=f"dualview preferences {store.root}{flag} --backend transformers --model MODEL",
        )
    return of_variant[-1]


def valid(told: Told, rows: Iterable[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows whose whole chain is what the log says today, earlier steps first, each with its user's row in the log.

    rows: of one recipe.
    """
    place = {user: row for row, user in enumerate(told.log.user_ids.tolist())}
    lengths = np.diff(told.log.offsets)
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row[stored.STEP]):
        user = place.get(row[schema.USER_ID])
        if user is None or row[stored.END] > lengths[user]:
            continue
        previous = None
        if row[stored.PREVIOUS] is not None:
            before = found.get(row[stored.PREVIOUS])  # valid itself, or it would not be there
            if before is None or before[stored.END] != row[stored.BEGIN]:
                continue
            previous = (before[schema.INPUT_HASH], before[schema.STATUS])
        facts = told.facts(user, row[stored.BEGIN], row[stored.END])
        if row[schema.INPUT_HASH] == input_hash(facts, previous):
            found[row[stored.STATE_ID]] = row
            yield user, row
