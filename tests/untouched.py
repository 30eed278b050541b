"""A folder before and after: the same names, bytes and times."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file and folder under `folder`, itself too: (time of its last change in ns, hash of its content)."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (os.lstat(path).st_mtime_ns, content)
    return found


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Fails where anything under `folder` was written, even with what was there before."""
    before = snapshot(folder)
    yield
    after = snapshot(folder)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    assert not changed, f"written to: {', '.join(changed)}"
