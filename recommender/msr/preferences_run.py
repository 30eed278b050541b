"""Preferences made: from a store's release, a split and options to rows of the table `preferences`.

What is there already, of this split or another, is taken; so one new event of a user is one state or two, and a call
that was killed goes on where it stood.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from featurestore import journal, schema
from featurestore import preferences as stored
from featurestore.errors import BadInput
from featurestore.schema import PREFERENCES, Status
from ingest.cells import Progress, Silent
from ingest.describe import base, recipes
from ingest.describe.base import PromptedOptions
from ingest.describe.cost import MILLION, Budget, most_tokens
from ingest.describe.run import as_stored
from ingest.describe.spool import Spool
from ingest.describe.stored import answer_in
from ingest.encode.base import Tools
from ingest.encode.models import Models
from recommender.msr.preferences_recipe import PreferenceOptions, draft, item_texts, typed_options
from recommender.msr.preferences_walk import Asker, Question, Walk, Writer
from recommender.msr.preferences_wanted import Wanted
from recommender.msr.states import POINTS, Node, Point, Told, nodes
from recommender.splits import Split

if TYPE_CHECKING:
    from featurestore.recipe import Recipe
    from featurestore.release import Release
    from featurestore.store import Store
    from ingest.describe.base import DescribeOptions
    from ingest.describe.prompts import Prompt

COMMIT_ROWS = 4096
EXAMPLES = 5  # errors that a report quotes


@dataclass(frozen=True)
class PreferenceReport:
    """What was done. users: those with a history. states: wanted for them; of these current, computed (ok, no_input,
    error), failed (for good, before) and waiting (behind an error that may pass, or beyond `max_cost`).

    steps: of the longest chain. seconds: of all; answer_seconds: of the model's answers alone. errors: some of this
    call's, as user, step, code and message. cost: None without a price.
    """

    recipe: str
    release: str
    variant: str
    users: int
    states: int
    steps: int
    current: int
    ok: int
    no_input: int
    error: int
    failed: int
    waiting: int
    seconds: float
    answer_seconds: float
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    notes: tuple[str, ...] = ()
    errors: list[dict[str, Any]] = field(default_factory=list)

    @property
    def computed(self) -> int:
        return self.ok + self.no_input + self.error

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"computed": self.computed}


@dataclass(frozen=True)
class PreferencePlan:
    """What a call would do. ask: states that wait to be asked about, those that others wait for included.

    tokens, cost: upper bounds, None for a describer that asks no model or has no price.
    """

    recipe: str
    release: str
    variant: str
    users: int
    states: int
    steps: int
    current: int
    failed: int
    ask: int
    tokens: int | None
    cost: float | None

    def to_dict(self) -> dict[str, Any]:
        return {"dry_run": True} | asdict(self)


def compute(
    store: Store,
    options: PreferenceOptions,
    *,
    split: Split | str = "leave-one-out",
    k_core: tuple[int, int] | None = None,
    release: str = "latest",
    points: Sequence[Point] = POINTS,
    rows: Sequence[int] | None = None,
    users: Sequence[str] | None = None,
    sample: int | None = None,
    seed: int = 0,
    failed: bool = False,
    max_cost: float | None = None,
    yes: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    commit_rows: int = COMMIT_ROWS,
    wait: float | None = None,
    progress: Progress | None = None,
) -> PreferenceReport:
    """Make the preferences that are not there yet.

    split: over the log of `release`, or the name of one; k_core: as of `recommender.config.Config`, beside a name.
    points: which events of each user a preference is wanted for, of all that came before it: the last one of training,
    the targets of validation and test, the one to come. rows: these events instead, rows of the split's log.
    users: only these ids; sample: only so many, drawn by `seed`, the same ones and more for a larger number. failed:
    states that failed for good are tried again. max_cost, yes, device, batch_size, wait, progress: as of
    `ingest.materialize.materialize`.

    Raises BadInput, NotFound for a release, user, feature or prompt that is not there, ModelUnavailable, Conflict.
    """
    begun = time.monotonic()
    if max_cost is not None and not max_cost > 0:
        raise BadInput(
            f"max_cost = {max_cost} buys nothing", remedy="an amount above 0, in the prices' currency"
        )
    if min(n for n in (commit_rows, batch_size) if n is not None) < 1:
        raise BadInput("commit_rows and batch_size are 1 or more", remedy="leave them out for the defaults")
    shown = progress or Silent()
    wanted = Wanted(split, k_core, points, rows, users, sample, seed)
    with store.lock("preferences", wait):
        work = _Work.of(store, options, release, wanted, device, read_only=False)
        store.artifacts.put(work.prompt.contents)
        stored.keep_recipe(store.root, work.recipe)
        maker = base.maker(options.backend)
        spool = Spool(store.root, PREFERENCES, work.recipe, each=maker.remote)
        _drop_committed(store, work.recipe, spool)
        walk = work.walk(store)
        budget = Budget(max_cost, agreed=yes)
        priced = isinstance(work.options, PromptedOptions) and work.options.priced
        if not priced or (left := _open(work.walk(store), work, failed)[0]):
            budget.begin(PREFERENCES, work.options, left if priced else len(work.wanted))
        tools = Tools(Models(store.root), store.artifacts, device, batch_size, options.model)
        held = recipes.checks_of(work.recipe, work.prompt)
        asker = Asker(
            walk, held, spool, budget, lambda: maker.load(work.recipe, work.options, tools), maker.slow
        )
        writer = Writer(store.tables, spool, commit_rows, shown)
        shown.start(PREFERENCES, len(work.wanted))
        try:
            for step in work.steps:
                questions = walk.questions(step, failed=failed)
                shown.advance(len(step) - len(questions))
                for row in asker.ask(questions):
                    writer.put(row)
            writer.flush()  # once more for all steps: what is read of the step before is in memory
        finally:
            asker.close()
            shown.done()
        report = _report(work, walk, budget, time.monotonic() - begun)
        if report.computed:
            told = report.to_dict()
            del told["errors"]  # they name users
            journal.record(store.root, "preferences", **told, device=device)
    return report


def plan(
    store: Store,
    options: PreferenceOptions,
    *,
    split: Split | str = "leave-one-out",
    k_core: tuple[int, int] | None = None,
    release: str = "latest",
    points: Sequence[Point] = POINTS,
    rows: Sequence[int] | None = None,
    users: Sequence[str] | None = None,
    sample: int | None = None,
    seed: int = 0,
    failed: bool = False,
    device: str = "auto",
) -> PreferencePlan:
    """What `compute` would ask with the same arguments; raises as it does, asks nobody and writes nothing."""
    wanted = Wanted(split, k_core, points, rows, users, sample, seed)
    work = _Work.of(store, options, release, wanted, device, read_only=True)
    walk = work.walk(store)
    ask, questions = _open(walk, work, failed)
    prompted = work.options if isinstance(work.options, PromptedOptions) else None
    tokens, cost = 0, None
    if prompted is not None and ask:
        shown = sum(most_tokens(walk.request(each, walk.said(each))) for each in questions)
        written = ask * prompted.max_tokens
        read = shown * ask // len(questions) + written  # with each the state before it
        tokens = read + written
        price = read * prompted.price_per_million_input + written * prompted.price_per_million_output
        cost = price / MILLION if prompted.priced else None
    return PreferencePlan(
        **work.facts,
        current=walk.tally.current,
        failed=walk.tally.failed_before,
        ask=ask,
        tokens=tokens if prompted is not None else None,
        cost=cost,
    )


@dataclass(frozen=True)
class _Work:
    """What one call is about. wanted: all states, those of step 1 first."""

    recipe: Recipe
    prompt: Prompt
    options: DescribeOptions
    release: Release
    told: Told
    wanted: list[Node]

    @classmethod
    def of(
        cls,
        store: Store,
        options: PreferenceOptions,
        release: str,
        asked: Wanted,
        device: str,
        *,
        read_only: bool,
    ) -> _Work:
        opened = store.release(release)
        log, ends = asked.of(opened)
        recipe, prompt = draft(store.root, opened, options, Models(store.root, read_only=read_only), device)
        shape = options.shape
        wanted = [node for user, each in ends.items() for node in nodes(user, each, shape)]
        wanted.sort(key=lambda node: (node.step, node.user, node.start, node.end))
        told = Told(log, item_texts(opened, recipe))
        return cls(recipe, prompt, typed_options(options), opened, told, wanted)

    @property
    def steps(self) -> list[list[Node]]:
        return [list(found) for _, found in groupby(self.wanted, key=lambda node: node.step)]

    def walk(self, store: Store) -> Walk:
        ids = self.told.log.user_ids
        users = {str(ids[user]) for user in {node.user for node in self.wanted}}
        rows = stored.read(store.tables, recipe=self.recipe.id, users=users)
        return Walk(self.recipe, self.prompt, self.told, rows)

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.id,
            "release": self.release.name,
            "variant": str(self.recipe.options["variant"]),
            "users": len({node.user for node in self.wanted}),
            "states": len(self.wanted),
            "steps": self.wanted[-1].step if self.wanted else 0,
        }


def _open(walk: Walk, work: _Work, failed: bool) -> tuple[int, list[Question]]:
    """(states that are to be asked about, those of them that can be asked about already)."""
    questions = [each for step in work.steps for each in walk.questions(step, failed=failed)]
    return len(work.wanted) - walk.tally.current - walk.tally.failed_before, questions


def _drop_committed(store: Store, recipe: Recipe, spool: Spool) -> None:
    """Take answers out of the spool that a killed call had committed already; another answer to a state stays."""
    waiting = dict(spool.items())
    if not waiting:
        return
    rows = stored.read(store.tables, recipe=recipe.id)
    spool.drop(
        [
            row[stored.STATE_ID]
            for row in rows
            if row[schema.RAW] is not None
            and (answer := waiting.get(row[stored.STATE_ID])) is not None
            and answer_in(row) == as_stored(answer)
        ]
    )


def _report(work: _Work, walk: Walk, budget: Budget, seconds: float) -> PreferenceReport:
    tally = walk.tally
    notes = []
    if tally.replayed:
        notes.append(f"{tally.replayed:,} answers of an interrupted run were taken over")
    if budget.spent():
        notes.append(f"stopped: {budget.cost:.4f} of {budget.limit} was spent")
    return PreferenceReport(
        **work.facts,
        current=tally.current,
        ok=tally.computed[Status.OK],
        no_input=tally.computed[Status.NO_INPUT],
        error=tally.computed[Status.ERROR],
        failed=tally.failed_before,
        waiting=tally.waiting,
        seconds=seconds,
        answer_seconds=tally.answer_seconds,
        prompt_tokens=tally.prompt_tokens,
        completion_tokens=tally.completion_tokens,
        cost=budget.of_feature,
        notes=tuple(notes),
        errors=[
            {"user": user, "step": step, "code": error.code, "message": error.message}
            for user, step, error in tally.errors[:EXAMPLES]
        ],
    )
