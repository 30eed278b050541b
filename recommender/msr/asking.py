"""Runs of a store as scorers of groups, whatever their kind, and what an evaluation of one of kind "msr" asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import BadInput, Conflict
from recommender.events import EventLog
from recommender.msr import scorers
from recommender.msr.material import Material, material
from recommender.msr.pairs import Groups, Pairs, Part
from recommender.msr.scorers import GroupScorer
from recommender.runs import MSR, PAIRS, Run, open_run

if TYPE_CHECKING:
    from recommender.msr.ranker import Ranker

ZERO_SHOT, POPULARITY, CHANCE = "zero-shot", "popularity", "chance"
Told = Callable[[str, int, int], None]  # scorer, groups done, groups in all


@dataclass(frozen=True, eq=False)
class Bench:
    """A run of kind "msr" with what it is asked about: its release, the events of that, and its own pairs."""

    store: Any
    run: Run
    release: Any
    log: EventLog
    pairs: Pairs

    @classmethod
    def open(cls, store: Any, run: str = "latest") -> Bench:
        """run: a name, or "latest": the newest of kind "msr". Raises NotFound, BadInput for a run of another kind or
        without pairs, Conflict where the release no longer gives the events that the pairs were drawn from.
        """
        opened = run if isinstance(run, Run) else open_run(store.root, run, MSR)
        opened.check(MSR)
        if not (opened.folder / PAIRS).exists():
            raise BadInput(
                f"run {opened.name} learnt from examples that were given, and has no pairs to be asked about",
                remedy="train it by `dualview msr train`, which draws them",
            )
        release = store.release(opened.release or "latest")
        log, pairs = EventLog.from_release(release), Pairs.load(opened.folder / PAIRS)
        if pairs.log_hash != log.hash:
            raise Conflict(
                f"run {opened.name} was trained on other events than its release gives",
                remedy="train again: dualview msr train",
            )
        return cls(store, opened, release, log, pairs)

    def scorers(
        self,
        *,
        zero_shot: bool = True,
        beside: Sequence[str] = (),
        floors: bool = True,
        device: str = "auto",
        told: Told | None = None,
    ) -> dict[str, GroupScorer]:
        """The run, its model without adapters, other runs, and floors, by name. beside: runs of any kind."""
        found: dict[str, GroupScorer] = {self.run.name: self.of_model(self.run, device=device, told=told)}
        if zero_shot:
            found[ZERO_SHOT] = self.of_model(self.run, zero_shot=True, device=device, told=told)
        for name in beside:
            other = open_run(self.store.root, name, None)
            if other.name in found:
                raise BadInput(f"run {other.name} is named twice", remedy="name each run once")
            if other.kind == MSR:
                self._not_learnt(other)
                found[other.name] = self.of_model(other, device=device, told=told)
            else:
                release = self.store.release(other.release or "latest")
                found[other.name] = scorers.of_run(other, release, self.log, self.pairs.parts["test"])
        if floors:
            found |= {POPULARITY: scorers.popularity(self.log, self.pairs), CHANCE: scorers.chance()}
        return found

    def of_model(
        self, run: Run, *, zero_shot: bool = False, device: str = "auto", told: Told | None = None
    ) -> GroupScorer:
        """A fine-tuned model as a scorer; it is loaded when it is first asked, and let go when the answer is there."""
        name = ZERO_SHOT if zero_shot else run.name

        def score(groups: Groups) -> scorers.Scores:
            from recommender.msr.ranker import Ranker

            ranker = Ranker.open(run, zero_shot=zero_shot, device=device)
            asked = self.material_of(run, ranker)
            return asked.scorer(ranker, None if told is None else lambda k, n: told(name, k, n))(groups)

        return score

    def material_of(self, run: Run, ranker: Ranker) -> Material:
        return material(self.store, self.release, self.log, run.options, sees=ranker.prompt.chat.sees)

    def _not_learnt(self, other: Run) -> None:
        """Raises Conflict where another run learnt from an event that this one is asked about, or from a later one of
        its user, who is told of by what came before; or chose its epoch by an event of the test.
        """
        if not (other.folder / PAIRS).exists():
            raise BadInput(
                f"run {other.name} does not say which events it learnt from", remedy="leave it out"
            )
        theirs, ours = Pairs.load(other.folder / PAIRS).parts, self.pairs.parts
        looks: tuple[tuple[str, Part, Part], ...] = (
            ("was trained on", "train", "valid"),
            ("was trained on", "train", "test"),
            ("chose its epoch by", "valid", "test"),
        )
        for told, known, asked in looks:
            if shared := _known(theirs[known], ours[asked]):
                raise Conflict(
                    f"run {other.name} {told} {shared:,} of the events that run {self.run.name} is asked about",
                    remedy="compare runs of one split",
                )


def _known(groups: Groups, asked: Groups) -> int:
    """How many of `asked` are about an event that `groups` ask about too, or that lies before one of theirs."""
    latest: dict[str, int] = {}
    for user, history in zip(groups.users.tolist(), groups.history.tolist(), strict=True):
        latest[user] = max(history, latest.get(user, -1))
    rows = zip(asked.users.tolist(), asked.history.tolist(), strict=True)
    return sum(latest.get(user, -1) >= history for user, history in rows)


def part_of(on: str) -> Part:
    if on not in ("test", "valid"):
        raise BadInput(f"on is test or valid, not '{on}'")
    return "test" if on == "test" else "valid"


def limited(groups: Groups, users: int | None, seed: int = 0) -> Groups:
    """So many groups, drawn from a seed, in their order; all where there are no more."""
    if users is None or users >= len(groups):
        return groups
    if users < 1:
        raise BadInput(f"at least 1 user must be asked, not {users}")
    kept = np.random.default_rng(seed).permutation(len(groups))[:users]
    return groups.take(np.sort(kept))
