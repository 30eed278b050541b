"""A small shop with a log in which times are tied, and preferences made of it, for tests of both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from dualview.store import Store
from featurestore import preferences as stored
from featurestore.errors import CellError
from ingest.describe import base
from ingest.describe.base import Answer, Maker, PromptedOptions, Request
from recommender.msr.preferences_recipe import PreferenceOptions
from recommender.msr.preferences_run import PreferenceReport, compute

TOML = """
[features.summary]
kind = "describe"
inputs = ["title", "blurb"]
encoder = "template"
prompt = "summary.md"
"""
SUMMARY = "## user\n{title} is {column:blurb}\n"
PASSING = ("_updated_at", "attempts", "seconds")  # columns that tell when, not what


def items(count: int = 12, **titles: str) -> pa.Table:
    """Items i00, i01, ...; titles: other ones, by id."""
    ids = [f"i{n:02d}" for n in range(count)]
    return pa.table(
        {
            "item_id": ids,
            "title": [titles.get(i, f"thing {i}") for i in ids],
            "blurb": [f"made of {i}" for i in ids],
        }
    )


def events(lengths: Sequence[int] = (7, 5, 4, 2, 1), count: int = 12) -> pa.Table:
    """User u0 has lengths[0] events, and so on; every second event has the time of the one before it."""
    rows = [
        {
            "user_id": f"u{user}",
            "item_id": f"i{(3 * user + place) % count:02d}",
            "timestamp": 100 + place // 2,
        }
        for user, length in enumerate(lengths)
        for place in range(length)
    ]
    return pa.Table.from_pylist(rows)


def shop(root: Path, lengths: Sequence[int] = (7, 5, 4, 2, 1)) -> Store:
    """Ingested, described and published. lengths: as of `events`."""
    store = Store.create(root, TOML)
    (root / "summary.md").write_text(SUMMARY)
    store.ingest(items(), events(lengths))
    store.materialize()
    store.publish()
    return store


def rows(store: Store) -> list[dict[str, Any]]:
    """All of the table, without what passes."""
    kept = stored.read(store.tables)
    return [{name: value for name, value in row.items() if name not in PASSING} for row in kept]


class Teller:
    """Answers a digest of what it is asked, so that a text shows what went into it; `bad` answers otherwise."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.batches: list[int] = []
        self.bad: dict[str, Answer | CellError] = {}  # by a word of the question
        self.dies_at = 0  # question (from 1) at which the process is taken to end

    def describe(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | CellError]]:
        self.batches.append(len(requests))
        for place in reversed(range(len(requests))):
            self.asked.append(requests[place])
            if len(self.asked) == self.dies_at:
                self.die()
            said = text(requests[place])
            wrong = next((answer for word, answer in self.bad.items() if word in said), None)
            yield place, wrong or answer_to(said)

    def die(self) -> None:
        raise Killed

    def close(self) -> None: ...


class Killed(BaseException):
    """Stands for a process that ends."""


def text(request: Request) -> str:
    return "\n".join(part for part in request.turns[-1].parts if isinstance(part, str))


def answer_to(said: str) -> Answer:
    return Answer(f"likes {hashlib.sha256(said.encode()).hexdigest()[:8]}", "stop", len(said), 4, 0.25)


class TellerMaker(Maker[PromptedOptions]):
    name, options = "teller", PromptedOptions
    needs_model: ClassVar[bool] = False
    remote: ClassVar[bool] = True

    def __init__(self) -> None:
        self.teller = Teller()

    def resolve(self, options: Any, model: Any, models: Any, device: str = "auto") -> base.Resolved:
        return base.Resolved(options.recipe())

    def load(self, recipe: Any, options: Any, tools: Any) -> Teller:
        return self.teller


def make(store: Store, backend: str = "teller", **given: Any) -> PreferenceReport:
    own = {name: given.pop(name) for name in PreferenceOptions.model_fields.keys() & given.keys()}
    return compute(store, PreferenceOptions.of(backend=backend, **own), **given)
