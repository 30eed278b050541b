"""The moments between which a store does not change: where a test lets a process die.

Whatever commits (a table's version, a rename, a line of the journal, a file taken away) says so here, before and after.
Off unless DUALVIEW_FAILPOINT is set, and then a call costs one comparison. Its forms:

    12                  die at the twelfth moment, as by SIGKILL: exit code 137, nothing is cleaned up
    after table text*   die at the first moment whose name fits the pattern
    12:SIGINT           send the process that signal instead, once, and go on
    list:FILE           die nowhere; append the name of every moment to FILE
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

VARIABLE = "DUALVIEW_FAILPOINT"
KILLED = 137  # what a shell says of a process that SIGKILL ended


class _Plan:
    """What DUALVIEW_FAILPOINT asks for, and how many moments passed."""

    def __init__(self, asked: str) -> None:
        self.passed = 0
        self.done = False
        self.guard = threading.Lock()  # pictures are read in threads
        self.list = Path(asked.removeprefix("list:")) if asked.startswith("list:") else None
        self.where, _, name = asked.partition(":")
        self.signal = signal.Signals[name] if name and self.list is None else None

    def __call__(self, name: str) -> None:
        with self.guard:
            self.passed += 1
            if self.list is not None:
                with self.list.open("a", encoding="utf-8") as file:
                    file.write(f"{name}\n")
            elif not self.done and self._meant(name):
                self.done = True
                if self.signal is None:
                    os._exit(KILLED)
                os.kill(os.getpid(), self.signal)

    def _meant(self, name: str) -> bool:
        return self.passed == int(self.where) if self.where.isdigit() else fnmatchcase(name, self.where)


def arm(asked: str | Callable[[str], None] | None) -> None:
    """Ask for what DUALVIEW_FAILPOINT would, in this process and from now on; or name who is told of each moment."""
    global _told
    _told = _Plan(asked) if isinstance(asked, str) else asked


def reached(name: str) -> None:
    """The process is at the moment `name`."""
    if _told is not None:
        _told(name)


@contextmanager
def commit(name: str) -> Iterator[None]:
    """A block that commits: the moments before it and, if it did not fail, after it."""
    reached(f"before {name}")
    yield
    reached(f"after {name}")


_told: Callable[[str], None] | None = None
arm(os.environ.get(VARIABLE) or None)
