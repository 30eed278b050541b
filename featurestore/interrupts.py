"""Ctrl-C and SIGTERM as one exception, which says what the verb that it met has kept.

Only the command line installs it; a Python program keeps its own signals.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """A signal asked the process to end. Its exit code is the shell's: 130 for SIGINT, 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number

    @property
    def told(self) -> str | None:
        """What was kept and what to do next, from whoever knew it best."""
        return next(iter(getattr(self, "__notes__", ())), None)


def install() -> None:
    """Have SIGINT and SIGTERM raise Interrupted. The second one ends the process at once: what is stored bears that."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_DFL)
    raise Interrupted(number)


@contextmanager
def keeping(tell: Callable[[], str]) -> Iterator[None]:
    """Where the block is interrupted, `tell` says what is kept and what to do next; the innermost one is heard."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        stop.add_note(tell())
        raise
