"""One line for each verb that wrote: when, by whom, what came of it. Appended under the writer's lock."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = "journal.jsonl"


def record(root: Path, verb: str, **facts: Any) -> None:
    """Append one line. `facts` must be JSON; library versions, device and the like belong here."""
    entry = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "verb": verb, **facts}
    line = (json.dumps(entry, ensure_ascii=False, default=str) + "\n").encode()
    handle = os.open(root / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, line)
        os.fsync(handle)
    finally:
        os.close(handle)


def read(root: Path) -> list[dict[str, Any]]:
    """All entries, oldest first. A last line cut short by a crash is left out."""
    path = root / FILE
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries
