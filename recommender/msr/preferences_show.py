"""One user's states beside the items that they were made of, for people to read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from featurestore import preferences as stored
from featurestore import schema
from featurestore.errors import NotFound
from featurestore.recipe import SHORT
from featurestore.schema import Status
from recommender.events import EventLog
from recommender.msr.preferences import valid
from recommender.msr.preferences_recipe import item_texts, shortened
from recommender.msr.preferences_wanted import near_user
from recommender.msr.states import Told

if TYPE_CHECKING:
    from featurestore.recipe import Recipe
    from featurestore.store import Store

TITLE_WORDS = 12  # of the text of an item without a title


@dataclass(frozen=True)
class ShownEvent:
    """position: in the user's own order, from 0. title: the release's, or the first words of its text; None where the
    item is gone.
    """

    position: int
    item_id: str
    title: str | None
    time: int | None


@dataclass(frozen=True)
class ShownState:
    """One state. reads: the step whose text it was given, None for the first. current: what the release's whole log
    says today; else it is of another split, release or text. text: None for an error.
    """

    recipe: str
    variant: str
    backend: str
    model: str | None
    step: int
    start: int
    end: int
    events: list[ShownEvent]
    reads: int | None
    current: bool
    status: str
    text: str | None
    error: str | None
    raw: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def states_of(store: Store, user: str, *, release: str = "latest") -> list[ShownState]:
    """All states of a user, recipe by recipe, in order of their steps. Raises NotFound where there is none."""
    opened = store.release(release)
    log = EventLog.from_release(opened)
    rows = stored.read(store.tables, users=[user])
    if not rows:
        known = user in set(log.user_ids.tolist())
        raise NotFound(
            f"there are no preferences of user '{user}'",
            remedy=f"dualview preferences {store.root} --user '{user}' --backend ..."
            if known
            else near_user(log, user),
        )
    titles = dict(
        zip(
            opened.catalogue[schema.ITEM_ID].to_pylist(),
            opened.catalogue[schema.TITLE].to_pylist(),
            strict=True,
        )
    )
    recipes = stored.recipes(store.root)
    found = []
    for name, recipe in recipes.items():
        own = [row for row in rows if row[stored.RECIPE] == name]
        if not own:
            continue
        told = Told(log, item_texts(opened, recipe))
        current = {row[stored.STATE_ID] for _, row in valid(told, own)}
        names = {
            item: titles.get(item) or shortened(told.texts[item].split("\n")[0], TITLE_WORDS)
            for row in own
            for item in row[stored.ITEM_IDS]
            if item in told.texts
        }
        steps = {row[stored.STATE_ID]: row[stored.STEP] for row in own}
        own.sort(key=lambda row: (row[stored.STATE_ID] not in current, row[stored.START], row[stored.END]))
        found += [_shown(recipe, row, names, steps, row[stored.STATE_ID] in current) for row in own]
    return found


def _shown(
    recipe: Recipe, row: dict[str, Any], titles: dict[str, Any], steps: dict[str, int], current: bool
) -> ShownState:
    times = row[stored.TIMES] or [None] * len(row[stored.ITEM_IDS])
    events = [
        ShownEvent(position, item, titles.get(item), time)
        for position, (item, time) in enumerate(
            zip(row[stored.ITEM_IDS], times, strict=True), row[stored.BEGIN]
        )
    ]
    error = None
    if row[schema.STATUS] != Status.OK:
        error = f"{row[schema.ERROR_CODE]}: {row[schema.ERROR_MESSAGE]}"
    return ShownState(
        recipe=recipe.id[:SHORT],
        variant=str(recipe.options["variant"]),
        backend=recipe.encoder,
        model=recipe.model.id if recipe.model else None,
        step=row[stored.STEP],
        start=row[stored.START],
        end=row[stored.END],
        events=events,
        reads=steps.get(row[stored.READS]),
        current=current,
        status=row[schema.STATUS],
        text=row[schema.VALUE],
        error=error,
        raw=row[schema.RAW],
        prompt_tokens=row[schema.PROMPT_TOKENS],
        completion_tokens=row[schema.COMPLETION_TOKENS],
        seconds=row[schema.SECONDS],
    )
