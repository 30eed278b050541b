"""Computing states step by step: step k of all users at once, each from what the step before left.

A state that failed for good is passed over, as if its block had not been: the next one reads the last text there is.
One whose error may pass, and that was not tried often enough, holds up its user's later states until it was.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from featurestore import preferences as stored
from featurestore import schema
from featurestore.errors import CellError
from featurestore.features import MAX_ATTEMPTS
from featurestore.schema import Status
from ingest.cells import COMMIT_SECONDS
from ingest.describe import checks
from ingest.describe.base import Answer, Request
from ingest.describe.prompts import ITEMS, PREFERENCE, WORDS
from ingest.describe.run import CHUNK, answer_values
from recommender.msr.preferences_recipe import listed
from recommender.msr.states import Node, Told, input_hash, state_id

if TYPE_CHECKING:
    from featurestore.recipe import Recipe
    from featurestore.tables import Tables
    from ingest.cells import Progress
    from ingest.describe.base import Describer
    from ingest.describe.checks import Checks
    from ingest.describe.cost import Budget
    from ingest.describe.prompts import Prompt
    from ingest.describe.spool import Spool

Row = dict[str, Any]


@dataclass(frozen=True)
class Settled:
    """A state that is not asked about any more. carries: the state whose text the next one reads, and the text."""

    state: str
    input_hash: str
    status: str
    carries: tuple[str, str] | None


@dataclass(frozen=True)
class Question:
    """A state that is to be computed. attempts: on the same input, so far."""

    node: Node
    state: str
    input_hash: str
    before: Settled | None
    attempts: int

    @property
    def reads(self) -> tuple[str, str] | None:
        return self.before.carries if self.before else None


@dataclass
class Tally:
    """What became of the states that were wanted."""

    current: int = 0
    computed: Counter[str] = field(default_factory=Counter)  # by status
    failed_before: int = 0  # for good, and not tried again
    waiting: int = 0  # behind an error that may pass, or beyond what may be spent
    replayed: int = 0  # answers that an interrupted run had left
    prompt_tokens: int = 0
    completion_tokens: int = 0
    answer_seconds: float = 0.0
    errors: list[tuple[str, int, CellError]] = field(default_factory=list)  # user, step, what


class Walk:
    """The states of one recipe over one log: which are there, and what the others are asked."""

    def __init__(self, recipe: Recipe, prompt: Prompt, told: Told, rows: Sequence[Row]) -> None:
        self.recipe, self.prompt, self.told = recipe, prompt, told
        self.tally = Tally()
        self._identity = recipe.id
        self._rows: Mapping[str, Row] = {row[stored.STATE_ID]: row for row in rows}
        self._settled: dict[tuple[int, int, int, int], Settled] = {}
        self._users: list[str] = told.log.user_ids.tolist()

    def questions(self, nodes: Sequence[Node], *, failed: bool) -> list[Question]:
        """Those of `nodes`, all of one step, that are to be computed now. failed: errors of earlier calls too."""
        asked = []
        for node in nodes:
            before = self._settled.get(node.previous.key) if node.previous else None
            if node.previous is not None and before is None:
                self.tally.waiting += 1
                continue
            facts = self.told.facts(node.user, node.begin, node.end)
            hash_ = input_hash(facts, (before.input_hash, before.status) if before else None)
            state = state_id(self._identity, self._users[node.user], hash_)
            row = self._rows.get(state)
            question = Question(node, state, hash_, before, row[schema.ATTEMPTS] if row else 0)
            if row is None or (row[schema.STATUS] == Status.ERROR and (failed or not given_up(row))):
                asked.append(question)
                continue
            self.tally.current += row[schema.STATUS] != Status.ERROR
            self.tally.failed_before += row[schema.STATUS] == Status.ERROR
            self._settle(question, row)
        return asked

    def user(self, question: Question) -> str:
        return self._users[question.node.user]

    def said(self, question: Question) -> str:
        """The items of a question's block, as its prompt lists them; "" where nothing is said of any of them."""
        return listed([self.told.texts.get(item, "") for item in self.told.items(question.node)])

    def request(self, question: Question, said: str) -> Request:
        values = {ITEMS: said, PREFERENCE: question.reads[1] if question.reads else ""}
        if WORDS in self.prompt.slots:
            values[WORDS] = str(self.recipe.options[WORDS])
        return Request(self.user(question), self.prompt.render(values), self.prompt.schema)

    def row(self, question: Question, answer: Answer | CellError | None, held: Checks) -> Row:
        """What is stored of a question that was answered (None: nobody was asked); the next step may read it."""
        node, made = question.node, answer if isinstance(answer, Answer) else None
        if made is not None:
            status, text, error = held.settle(made)
        elif isinstance(answer, CellError):
            status, text, error = Status.ERROR, None, answer
        else:
            status, text, error = (
                Status.NO_INPUT,
                None,
                CellError(checks.MISSING, "nothing is said of its items"),
            )
        row = {
            stored.STATE_ID: question.state,
            schema.USER_ID: self.user(question),
            stored.RECIPE: self._identity,
            stored.STEP: node.step,
            stored.START: node.start,
            stored.BEGIN: node.begin,
            stored.END: node.end,
            stored.ITEM_IDS: self.told.items(node),
            stored.TIMES: self.told.times(node),
            stored.PREVIOUS: question.before.state if question.before else None,
            stored.READS: question.reads[0] if question.reads else None,
            schema.VALUE: text,
            schema.INPUT_HASH: question.input_hash,
            schema.STATUS: str(status),
            schema.ERROR_CODE: error.code if error else None,
            schema.ERROR_MESSAGE: error.message if error else None,
            schema.TRANSIENT: error is not None and error.transient,
            schema.ATTEMPTS: question.attempts + 1,
        } | (answer_values(made) if made else {})
        self._count(question, made, status, error)
        if status is not Status.ERROR or given_up(row):
            self._settle(question, row)
        return row

    def _settle(self, question: Question, row: Row) -> None:
        carries = (question.state, row[schema.VALUE]) if row[schema.STATUS] == Status.OK else question.reads
        settled = Settled(question.state, question.input_hash, row[schema.STATUS], carries)
        self._settled[question.node.key] = settled

    def _count(
        self, question: Question, answer: Answer | None, status: Status, error: CellError | None
    ) -> None:
        self.tally.computed[status] += 1
        if answer is not None:
            self.tally.prompt_tokens += answer.prompt_tokens or 0
            self.tally.completion_tokens += answer.completion_tokens or 0
            self.tally.answer_seconds += answer.seconds
        if status is Status.ERROR and error is not None:
            self.tally.errors.append((self.user(question), question.node.step, error))


def given_up(row: Row) -> bool:
    """Whether an error is not tried again by itself."""
    return not row[schema.TRANSIENT] or row[schema.ATTEMPTS] >= MAX_ATTEMPTS


class Writer:
    """Rows on their way to the table, thousands or a minute's work a commit; then their answers leave the spool."""

    def __init__(self, tables: Tables, spool: Spool, commit_rows: int, progress: Progress) -> None:
        self._tables, self._spool = tables, spool
        self._commit_rows, self._progress = commit_rows, progress
        self._rows: list[Row] = []
        self._committed = time.monotonic()

    def put(self, row: Row) -> None:
        self._rows.append(row)
        self._spool.put(row[stored.STATE_ID])
        self._progress.advance(1)
        if len(self._rows) >= self._commit_rows or time.monotonic() - self._committed > COMMIT_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            stored.commit(self._tables, self._rows)
            self._spool.committed()
        self._rows, self._committed = [], time.monotonic()


@dataclass
class Asker:
    """Puts questions to a describer, which is loaded when the first one has to be asked. slow: answers are spooled."""

    walk: Walk
    held: Checks
    spool: Spool
    budget: Budget
    load: Callable[[], Describer]
    slow: bool
    _describer: Describer | None = None

    def ask(self, questions: Sequence[Question]) -> Iterator[Row]:
        """Rows, in no order, of as many questions as may be paid for."""
        open_: list[tuple[Question, str]] = []
        for question in questions:
            said = self.walk.said(question)
            if not said:
                yield self.walk.row(question, None, self.held)
            elif (known := self.spool.get(question.state)) is not None:
                self.walk.tally.replayed += 1
                yield self.walk.row(question, known, self.held)
            else:
                open_.append((question, said))
        while open_:
            if self.budget.spent():
                self.walk.tally.waiting += len(open_)
                return
            most = min(CHUNK, self.budget.room)
            some, open_ = open_[:most], open_[most:]
            yield from self._answers(some)

    def close(self) -> None:
        if self._describer is not None:
            self._describer.close()

    def _answers(self, asked: Sequence[tuple[Question, str]]) -> Iterator[Row]:
        if self._describer is None:
            self._describer = self.load()
        requests = [self.walk.request(question, said) for question, said in asked]
        for place, answer in self._describer.describe(requests):
            self.budget.count(requests[place], answer)
            question = asked[place][0]
            if isinstance(answer, Answer) and self.slow:
                self.spool.append(question.state, answer)
            yield self.walk.row(question, answer, self.held)
