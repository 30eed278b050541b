"""One line for each verb that wrote: when, by whom, what came of it.

Lines are appended whole, each in one write, so that verbs which hold no lock for hours (train) can record as well. A
lock on the file itself keeps such a line from being lost while `forget` replaces the file.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from featurestore import failpoints, files, identity
from featurestore.errors import BadInput, NotFound, did_you_mean

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
        _held(root / FILE) as file,
    ):
        end = file.seek(0, os.SEEK_END)
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
            line = b"\n" + line
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
        if not end:
            files.flush(root)  # the file is new


def rewrite(root: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Put `change(entry)` in the place of every entry, all at once; a line that a crash cut short goes."""
    path = root / FILE
    if not path.exists():
        return
    with files.disk_errors(str(path)), _held(path):
        text = "".join(json.dumps(change(entry), ensure_ascii=False) + "\n" for entry in read(root))
        if text.encode() != path.read_bytes():
            files.write_text(path, text)


@contextmanager
def _held(path: Path) -> Iterator[BinaryIO]:
    """The journal, open for appending, with nobody else writing into it or replacing it."""
    while True:
        with path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    yield file
                    return
        # it was replaced while we waited: what is appended here would be lost


def _signature() -> dict[str, Any]:
    who = f"{identity.user()}@{identity.host()}"
    return {"who": who, "pid": os.getpid(), "dualview": identity.version()}


def select(
    entries: list[dict[str, Any]],
    *,
    verb: str | None = None,
    since: str | None = None,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Those of one verb, not older than `since`, and of these the `limit` newest; oldest first.

    since: an ISO date or time ("2026-11-21", taken as UTC), or how long ago: "90m", "36h", "7d". Raises BadInput for
    any other text, NotFound for a verb that never wrote.
    """
    if verb is not None:
        known = {entry["verb"] for entry in entries}
        if known and verb not in known:
            raise NotFound(f"'{verb}' never wrote here", remedy=did_you_mean(verb, known))
        entries = [entry for entry in entries if entry["verb"] == verb]
    if since is not None:
        begin = _moment(since)
        entries = [entry for entry in entries if datetime.fromisoformat(entry["at"]) >= begin]
    return entries if limit is None else entries[max(0, len(entries) - limit) :]


AGO = re.compile(r"(\d{1,6})([mhd])")
UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def _moment(text: str) -> datetime:
    try:
        if ago := AGO.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):  # so long ago is before our calendar
        raise BadInput(
            f"'{text}' is no time", remedy="write a date as 2026-11-21, or how long ago as 90m, 36h or 7d"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


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
