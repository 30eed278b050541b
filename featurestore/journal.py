"""One line for each verb that wrote: when, by whom, what came of it. Appended under the writer's lock."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from featurestore import failpoints, files, identity

FILE = "journal.jsonl"


def record(root: Path, verb: str, **facts: Any) -> None:
    """Append one line: when, which verb, by whom (user@host, process, version), and `facts`, what came of it.

    Library versions, device and the like belong here; a fact that is no JSON is kept as its text. A line that a crash
    cut short is closed first, so that it takes no other with it.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"at": at, "verb": verb, **facts, "by": _signature()}
    line = (json.dumps(entry, ensure_ascii=False, default=str) + "\n").encode()
    with (
        files.disk_errors(str(root / FILE)),
        failpoints.commit(f"journal {verb}"),
        (root / FILE).open("a+b", buffering=0) as file,
    ):
        end = file.seek(0, os.SEEK_END)
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
            line = b"\n" + line
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
        if not end:
            files.flush(root)  # the file is new


def _signature() -> dict[str, Any]:
    who = f"{identity.user()}@{identity.host()}"
    return {"who": who, "pid": os.getpid(), "dualview": identity.version()}


def read(root: Path) -> list[dict[str, Any]]:
    """All entries, oldest first. A line cut short by a crash is left out."""
    path = root / FILE
    if not path.exists():
        return []
    entries = []
    for line in path.read_bytes().split(b"\n"):  # not splitlines: a text may hold U+2028
        with suppress(ValueError):
            entries.append(json.loads(line))
    return entries
