"""What was answered once is not asked again: not after a kill, for an equal input, or under other rules of judging."""

from __future__ import annotations

import itertools
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featurestore import files, journal, schema
from featurestore.errors import CellError, DiskError
from featurestore.recipe import Recipe
from featurestore.schema import ValueKind
from featurestore.store import Store
from ingest.describe import base
from ingest.describe.base import Answer, Request
from ingest.describe.spool import Spool
from ingest.estimate import estimate
from ingest.materialize import materialize
from tests.ingest.catalogue import ROWS, fill
from tests.ingest.teller import Killed, Teller, TellerMaker, plain
from tests.ingest.test_describe_materialize import (
    CHAIN,
    PROMPTS,
    cells,
    declare,
    one,
    reports,
    spooled,
)


@pytest.fixture
def teller(store: Store, monkeypatch: pytest.MonkeyPatch) -> Teller:
    maker = TellerMaker()
    monkeypatch.setitem(base._makers, "teller", maker)
    for name, text in PROMPTS.items():
        files.write_text(store.root / f"{name}.md", text)
    return maker.teller


def told(request: Request, said: str) -> Answer | CellError:
    answer = plain(request)
    assert isinstance(answer, Answer)
    return replace(answer, text=said)


def refusing(request: Request) -> Answer | CellError:
    return told(request, "I'm sorry, but I can't help with that.")


# ---- killed


def test_an_answer_to_a_question_asked_again_outlives_a_kill(store: Store, teller: Teller) -> None:
    declare(store, one())
    fill(store)
    teller.answer = refusing
    assert reports(store)["told"].error == 4
    teller.asked.clear()

    def dying(request: Request) -> Answer | CellError:
        if len(teller.asked) == 4:
            raise Killed
        answer = plain(request)
        assert isinstance(answer, Answer)
        return replace(answer, seconds=0.7)

    teller.answer = dying
    with pytest.raises(Killed):
        materialize(store, failed=True)
    teller.answer = plain
    teller.asked.clear()
    assert reports(store, failed=True)["told"].ok == 4
    assert len(teller.asked) == 1
    assert not spooled(store)


def test_an_answer_that_was_committed_before_the_kill_is_not_taken_twice(
    store: Store, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(store, one())
    fill(store)
    teller.answer = refusing

    def killed(self: Spool) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "committed", killed)
        with pytest.raises(Killed):
            materialize(store)
    assert len(spooled(store)) == 1
    teller.answer = plain
    found = reports(store, failed=True)["told"]
    assert (found.ok, found.notes) == (4, ())


def test_a_line_that_the_disk_cuts_short_is_an_error_and_no_answer(tmp_path: Path) -> None:
    recipe = Recipe(
        kind="describe", inputs=("column:title",), encoder="teller", value=ValueKind.TEXT, options={}
    )
    spool = Spool(tmp_path, "told", recipe, each=True)
    answer = Answer("x" * 300, "stop", 1, 1, 0.5)
    spool.append("a", answer)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (spool.path.stat().st_size + 100, hard))
    try:
        with pytest.raises((DiskError, OSError)):
            spool.append("b", answer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    spool.append("c", answer)
    again = Spool(tmp_path, "told", recipe, each=True)
    assert [input_hash for input_hash, _ in again.items()] == ["a", "c"]


# ---- equal inputs


def test_an_input_equal_to_one_that_was_answered_is_not_asked_about_whenever_it_comes(
    store: Store, teller: Teller
) -> None:
    declare(store, one("image.md", '["image"]'))
    fill(store)
    for _ in range(len(ROWS)):
        materialize(store, limit=1)
    assert store.status().current
    assert len(teller.asked) == 3  # a and d have one picture
    assert cells(store)["a"][schema.VALUE] == cells(store)["d"][schema.VALUE]
    fill(store, [*ROWS, ROWS[1] | {"item_id": "z"}])
    found = reports(store)["told"]
    assert (found.ok, len(teller.asked)) == (1, 3)
    assert found.notes == ("1 inputs equal one that was answered before, and were not asked about",)


# ---- other rules


def test_other_rules_judge_the_answers_that_there_are(store: Store, teller: Teller) -> None:
    declare(store, one())
    fill(store)
    teller.answer = refusing
    before = reports(store)["told"]
    teller.asked.clear()
    declare(store, one(refusals=[]))
    foretold = estimate(store).features[0]
    assert (foretold.cells, len(teller.asked)) == (0, 0)
    assert foretold.usage.notes == ("answers are judged by the new rules; nobody is asked",)
    after = reports(store)["told"]
    assert after.recipe != before.recipe
    assert not teller.asked
    assert after.notes == ("6 cells were judged by the new rules; nobody was asked",)
    last = list(journal.read(store.root))[-1]
    assert last["notes"] == list(after.notes)
    assert {row[schema.VALUE] for row in cells(store).values()} == {
        None,
        "I'm sorry, but I can't help with that.",
    }
    assert {row[schema.ATTEMPTS] for row in cells(store).values()} == {1}
    assert store.status().current
    declare(store, one(refusals=[], on_length="error"))
    materialize(store)
    assert not teller.asked
    declare(store, one(refusals=[], on_length="error", max_tokens=99))
    materialize(store)
    assert len(teller.asked) == 4  # that is another question


def test_what_waits_in_the_spool_goes_with_its_question(store: Store, teller: Teller) -> None:
    declare(store, one())
    fill(store)
    teller.dies_at(4)
    with pytest.raises(Killed):
        materialize(store)
    declare(store, one(on_length="error"))
    teller.answer = plain
    teller.asked.clear()
    assert reports(store)["told"].ok == 4
    assert len(teller.asked) == 1
    assert not spooled(store)


def test_a_feature_that_reads_descriptions_is_asked_again_only_where_they_changed(
    store: Store, teller: Teller
) -> None:
    declare(store, CHAIN)
    fill(store)
    materialize(store)
    assert store.status().current
    teller.asked.clear()
    changed = CHAIN.replace('prompt = "text.md"', 'prompt = "text.md"\nrefusals = ["It is green"]')
    declare(store, changed)
    materialize(store)
    assert [text.split("\n")[0] for text in teller.texts] == ["seen: It is #30a030."]
    assert cells(store, "read")["c"][schema.ERROR_CODE] == "refused"
    assert store.status().current


def test_a_failure_since_does_not_take_the_place_of_an_answer(store: Store, teller: Teller) -> None:
    declare(store, one())
    fill(store)
    materialize(store)
    declare(store, one(refusals=["It is"]))
    assert reports(store)["told"].error == 0  # judged while the recipe was made
    teller.answer = lambda _: CellError("timeout", "no answer", transient=True)
    assert reports(store, failed=True)["told"].error == 4
    teller.asked.clear()
    declare(store, one())
    materialize(store)
    assert not teller.asked
    assert sum(row[schema.VALUE] is not None for row in cells(store).values()) == 4


# ---- a description that failed, and its vector


def test_what_failed_for_good_is_no_input_to_its_vector_until_it_succeeds(
    store: Store, teller: Teller
) -> None:
    declare(store, CHAIN)
    fill(store)
    times = itertools.count()

    def sometimes(request: Request) -> Answer | CellError:
        parts: list[Any] = list(request.turns[-1].parts)
        next(times)
        green = not isinstance(parts[0], str) and "#30a030" in str(plain(request))
        return refusing(request) if green else plain(request)

    teller.answer = sometimes
    materialize(store)
    assert cells(store, "seen")["c"][schema.STATUS] == "error"
    assert cells(store, "vector")["c"][schema.STATUS] == "no_input"
    assert store.status().current
    store.publish()
    asked = next(times)
    assert materialize(store).computed == 0
    assert next(times) == asked + 1
    teller.answer = plain
    materialize(store, failed=True)
    assert cells(store, "seen")["c"][schema.STATUS] == "ok"
    assert cells(store, "vector")["c"][schema.STATUS] == "ok"
    assert "seen: It is #30a030." in cells(store, "whole")["c"][schema.VALUE]
    assert store.status().current
    store.publish()
