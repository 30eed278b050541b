"""A process that dies while preferences are made loses nothing: run again, the table is that of an unbroken run."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from dualview.store import Store
from featurestore import failpoints
from ingest.describe import base
from tests.faults import processes
from tests.recommender import tastes
from tests.recommender.tastes import Teller, TellerMaker, make, rows

COMMIT_ROWS = 4


class Suicidal(Teller):
    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def told(root: Path, dies_at: int = 0) -> tuple[int, list[dict[str, Any]]]:
    """Make preferences in this process, which is killed at a question; (questions asked, the table)."""
    maker = TellerMaker()
    maker.teller = Suicidal()
    maker.teller.dies_at = dies_at
    base._makers["teller"] = maker
    make(Store.open(root), commit_rows=COMMIT_ROWS)
    return len(maker.teller.asked), rows(Store.open(root))


def open_shop(root: Path) -> None:
    tastes.shop(root)


def listed(root: Path) -> list[dict[str, Any]]:
    make(Store.open(root), "template", commit_rows=COMMIT_ROWS)
    return rows(Store.open(root))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tastes") / "store"
    processes.run(open_shop, root)
    return root


@pytest.mark.parametrize("question", [2, 11])
def test_a_killed_process_loses_no_answer(world: Path, tmp_path: Path, question: int) -> None:
    whole, killed = (Path(shutil.copytree(world, tmp_path / name)) for name in ("whole", "killed"))
    asked, expected = processes.run(told, whole)
    assert processes.Child(told, killed, question).wait() == -signal.SIGKILL
    again, found = processes.run(told, killed)
    assert found == expected
    assert question - 1 + again == asked, "what was answered is not asked again"


def test_it_may_die_at_every_moment_at_which_it_commits(world: Path, tmp_path: Path) -> None:
    moments: list[str] = []
    root = Path(shutil.copytree(world, tmp_path / "whole"))

    def copied(name: str) -> None:
        moments.append(name)
        shutil.copytree(root, tmp_path / str(len(moments)))

    failpoints.arm(copied)
    try:
        expected = listed(root)
    finally:
        failpoints.arm(None)
    assert len([name for name in moments if "preferences" in name]) > 6
    for number, name in enumerate(moments, start=1):
        assert listed(tmp_path / str(number)) == expected, f"dead at moment {number}, {name}"
