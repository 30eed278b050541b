"""Who works at a cell: a lock of the operating system, so that several runners share one grid.

A runner takes it and hands the open file to the process that trains, which so holds it from its first moment to its
last; the kernel frees it when that dies.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.files import disk_errors, make_folder


def take(out: Path, cell: str) -> int | None:
    """An open file that holds the cell until it is closed everywhere; None where another process holds it."""
    path = out / "claims" / f"{cell}.lock"
    with disk_errors(str(path)):
        make_folder(path.parent.resolve())
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


@contextmanager
def claim(out: Path, cell: str) -> Iterator[bool]:
    """Hold the cell while the block runs; False where another process does."""
    handle = take(out, cell)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def taken(out: Path, cell: str) -> bool:
    """Whether some process holds the cell now."""
    with claim(out, cell) as mine:
        return not mine
