from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from featurestore import journal
from featurestore.errors import BadInput, NotFound


def line(verb: str, ago: timedelta) -> dict[str, Any]:
    return {"verb": verb, "at": (datetime.now(UTC) - ago).isoformat(timespec="seconds")}


def lines() -> list[dict[str, Any]]:
    return [
        line("init", timedelta(days=9)),
        line("ingest", timedelta(days=3)),
        line("publish", timedelta(hours=30)),
        line("ingest", timedelta(minutes=5)),
    ]


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"verb": "ingest"}, [1, 3]),
        ({"verb": "ingest", "limit": 1}, [3]),
        ({"since": "36h"}, [2, 3]),
        ({"since": "10m"}, [3]),
        ({"since": "7d", "limit": 2}, [2, 3]),
        ({"since": str((datetime.now(UTC) - timedelta(days=5)).date())}, [1, 2, 3]),
        ({"limit": 99}, [0, 1, 2, 3]),
    ],
)
def test_lines_are_chosen_by_verb_time_and_number(asked: dict[str, Any], kept: list[int]) -> None:
    written = lines()
    assert journal.select(written, **asked) == [written[place] for place in kept]


def test_a_time_that_is_none_and_a_verb_that_never_wrote_are_refused() -> None:
    with pytest.raises(BadInput, match="no time"):
        journal.select(lines(), since="yesterday")
    with pytest.raises(BadInput, match="'999999d' is no time"):
        journal.select(lines(), since="999999d")
    with pytest.raises(NotFound) as wrong:
        journal.select(lines(), verb="ingset")
    assert wrong.value.remedy == "did you mean 'ingest'?"
    assert journal.select([], verb="ingest") == []


def test_no_line_is_lost_while_the_journal_is_rewritten(tmp_path: Path) -> None:
    def write(name: str) -> None:
        for number in range(50):
            journal.record(tmp_path, "train", run=f"{name}{number}")

    writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for writer in writers:
        writer.start()
    rounds = 0
    while any(writer.is_alive() for writer in writers) or rounds < 2:
        rounds += 1
        journal.rewrite(tmp_path, lambda entry: entry | {"rounds": entry.get("rounds", 0) + 1})
    for writer in writers:
        writer.join()
    expected = {f"{name}{number}" for name in "ab" for number in range(50)}
    assert sorted(entry["run"] for entry in journal.read(tmp_path)) == sorted(expected)


def test_a_journal_that_is_not_there_is_not_made_by_rewriting_it(tmp_path: Path) -> None:
    journal.rewrite(tmp_path, lambda entry: entry)
    assert list(tmp_path.iterdir()) == []
