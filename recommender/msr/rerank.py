"""A user's retrieved candidates put into the order of a yes/no model: p(yes) of each, given what is known of the user.

What is known is what the run was trained with: a list of the latest titles, or a kept preference as of all that is in
the log. Where none is kept, one that asks no model (`template`) is made on the spot; any other is asked for by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featurestore.errors import BadInput, NotFound
from recommender.events import EventLog, Strings
from recommender.msr import lora
from recommender.msr.config import HISTORY
from recommender.msr.examples import Shelf, history
from recommender.msr.material import VARIANTS, Told
from recommender.runs import LATEST, MSR, Run, open_run

if TYPE_CHECKING:
    from featurestore.recipe import Recipe
    from recommender.msr.ranker import Ranker

NEWEST = "msr"  # asks for the newest fine-tuned run


@dataclass(frozen=True, eq=False)
class Reranked:
    """order: places of the candidates, best first. p_yes: (n,) float64 of each candidate, in the order given.

    told: what was said of the user; made: whether it was made on the spot.
    """

    order: npt.NDArray[np.int64]
    p_yes: npt.NDArray[np.float64]
    told: Told
    made: bool


class Rerankers:
    """The re-ranker that was asked last is kept, since its model is large; one for all who ask of a release."""

    def __init__(self, root: Path, release: Any) -> None:
        self.root, self.release = root, release
        self._last: Reranker | None = None

    def get(self, name: str, device: str = "auto") -> Reranker:
        """As of now: a newer run, or newer weights of the same one, are opened anew. Raises as `Reranker` does."""
        asked, kept = Reranker(self.root, self.release, name, device), self._last
        if kept is None or kept.key != asked.key:
            kept = self._last = asked
        return kept


class Reranker:
    """A fine-tuned run on a release. Everything is opened when it is first needed and then kept."""

    def __init__(self, root: Path, release: Any, name: str = NEWEST, device: str = "auto") -> None:
        """name: a run, or "msr": the newest of this kind. Raises NotFound, BadInput for a run of another kind."""
        self.root, self.release, self.device = root, release, device
        self.run: Run = open_run(root, LATEST if name == NEWEST else name, MSR)
        weights = self.run.folder / lora.FOLDER / lora.WEIGHTS
        written = weights.stat().st_mtime_ns if weights.exists() else 0
        self.key = (self.run.name, written, device)

    def rank(self, user: str | None, ids: Strings, candidates: list[str]) -> Reranked:
        """ids: item ids of the user's events, oldest first, or of a history that was given (user None). candidates:
        item ids, best first; among equal p(yes) that order stays.
        """
        told, made = self._told(user, ids)
        p_yes = self._ranker.score(told.text, [self._shelf[item] for item in candidates])
        return Reranked(np.argsort(-p_yes, kind="stable"), p_yes, told, made)

    def facts(self, found: Reranked) -> dict[str, Any]:
        """How it came about, for the answer's metadata."""
        preference: dict[str, Any] = {"kind": HISTORY if found.told.step is None else "kept"}
        if found.told.step is not None:
            preference |= {
                "kind": "made now" if found.made else "kept",
                "step": found.told.step,
                "events_behind": found.told.behind,
                "recipe": self._recipe.id,
            }
        return {"run": self.run.name, "candidates": len(found.p_yes), "preference": preference}

    # ---- what is said of the user

    def _told(self, user: str | None, ids: Strings) -> tuple[Told, bool]:
        options = self.run.options
        if options.preference == HISTORY:
            known = [item for item in ids.tolist() if item in self._shelf]
            return Told(history(self._shelf, known, options.history)), False
        kept = self._kept(user) if user is not None else None
        if kept is not None:
            return kept, False
        if self._recipe.encoder != "template":
            whom = f"user '{user}' has" if user is not None else "a history that is given here has"
            raise NotFound(
                f"{whom} no preference, and run {self.run.name} was trained with one by {self._recipe.encoder}",
                remedy=f"dualview preferences {self.root} --user {user} --at now, made as before"
                if user is not None
                else "name a user of whom there is one, or a run that was trained with preference = history",
            )
        return self._written(ids.tolist()), True

    def _kept(self, user: str) -> Told | None:
        from recommender.msr.preferences import Preferences

        kept = Preferences.open(
            self._store, log=self._log, release=self.release, recipe=self._recipe.id, users=[user]
        )
        found = kept.now([user])[0]
        return None if found is None else Told(found.text, found.step, found.behind)

    def _written(self, items: list[str]) -> Told:
        """The preference of these items, step by step, by the prompt alone."""
        from ingest.describe import recipes
        from ingest.describe.prompts import ITEMS, PREFERENCE
        from recommender.msr.preferences_recipe import item_texts, listed, shape_of

        prompt = recipes.prompt_in(self._recipe, self._store.artifacts)
        texts, shape = item_texts(self.release, self._recipe), shape_of(self._recipe)
        items = [item for item in items if item in texts]  # a release's log has no others
        start = shape.start(len(items))
        size = shape.block or max(1, len(items) - start)
        said, step = "", 0
        for begin in range(start, len(items), size):
            step += 1
            if block := listed(
                [texts[item] for item in items[begin : begin + size]]
            ):  # else it is passed over
                turns = prompt.render({ITEMS: block, PREFERENCE: said or None})
                said = "\n\n".join(part for turn in turns for part in turn.parts if isinstance(part, str))
        return Told(said, step, 0)

    # ---- what is opened

    @cached_property
    def _ranker(self) -> Ranker:
        from recommender.msr.ranker import Ranker

        return Ranker.open(self.run, device=self.device)

    @cached_property
    def _shelf(self) -> Shelf:
        from ingest.describe.transformers_vlm import sees
        from recommender.msr.models import resolve

        options = self.run.options
        looks = options.image is not False and sees(resolve(self.root, options.model, read_only=True).folder)
        store = self._store if looks or options.preference != HISTORY else None
        return Shelf(store, self.release, text=options.text, summary=options.summary, picture=looks)

    @cached_property
    def _log(self) -> EventLog:
        return EventLog.from_release(self.release)

    @cached_property
    def _recipe(self) -> Recipe:
        from recommender.msr.preferences import recipe_of

        name = self.run.options.preference
        which: dict[str, Any] = {"variant": name} if name in VARIANTS else {"recipe": name}
        return recipe_of(self._store, **which)

    @cached_property
    def _store(self) -> Any:
        from featurestore.store import Store

        if not (self.root / "store.json").exists():
            raise BadInput(
                f"{self.root} is a copied release, which has neither preferences nor pictures",
                remedy=f"ask in the store itself, or re-rank by a run with preference = {HISTORY} and image = false",
            )
        return Store.open(self.root)
