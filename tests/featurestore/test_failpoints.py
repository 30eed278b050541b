from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore import failpoints

TWO_COMMITS = """
from featurestore import failpoints
for name in ("one", "two"):
    with failpoints.commit(name):
        print(name, flush=True)
print("end")
"""


def run(asked: str | None) -> tuple[int, str]:
    variable = {} if asked is None else {failpoints.VARIABLE: asked}
    done = subprocess.run(
        [sys.executable, "-c", TWO_COMMITS], capture_output=True, text=True, env=os.environ | variable
    )
    return done.returncode, done.stdout.replace("\n", " ").strip()


@pytest.mark.parametrize(
    ("asked", "end"),
    [
        (None, (0, "one two end")),
        ("1", (137, "")),
        ("2", (137, "one")),
        ("4", (137, "one two")),
        ("5", (0, "one two end")),
        ("before tw*", (137, "one")),
        ("after two:SIGTERM", (-signal.SIGTERM, "one two")),
    ],
)
def test_a_process_dies_at_the_moment_that_was_asked_for(asked: str | None, end: tuple[int, str]) -> None:
    assert run(asked) == end


def test_every_moment_can_be_listed(tmp_path: Path) -> None:
    assert run(f"list:{tmp_path / 'moments'}")[0] == 0
    assert (tmp_path / "moments").read_text() == "before one\nafter one\nbefore two\nafter two\n"


def test_a_commit_that_fails_has_no_after(tmp_path: Path) -> None:
    failpoints.arm(f"list:{tmp_path / 'moments'}")
    try:
        with pytest.raises(OSError, match="full"), failpoints.commit("one"):
            raise OSError("full")
    finally:
        failpoints.arm(None)
    assert (tmp_path / "moments").read_text() == "before one\n"
