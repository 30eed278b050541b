"""One writer a store: a lock of the operating system, which the kernel frees when its holder dies.

The lock itself says nothing; beside it `writer.json` names the holder for whoever finds the store taken. It stays
behind a holder that was killed; the next writer notes that in the journal, so that the history has no gap.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from featurestore import failpoints, files, identity, interrupts, journal
from featurestore.errors import Conflict

POLL_SECONDS = 0.1
_HELD: dict[Path, tuple[int, int]] = {}  # root -> (owning thread, depth), for calls inside calls
_GUARD = threading.Lock()
os.register_at_fork(after_in_child=_HELD.clear)  # a forked child holds nothing


class WriterLock:
    """The writer's lock of the store at `root`."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()

    @contextmanager
    def hold(self, verb: str, wait: float | None = None) -> Iterator[None]:
        """Hold the lock while the block runs. Re-entrant within a thread.

        wait: seconds to wait for another holder; None or 0 refuses at once.
        Raises Conflict that names the holder (host, process, verb, since when).
        """
        if self._enter_again():
            try:
                yield
            finally:
                self._leave()
            return
        with files.disk_errors(f"the lock of {self.root}"):
            handle = os.open(self.root / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with interrupts.keeping(lambda: f"{verb} was waiting for another writer: nothing was begun"):
                self._take(handle, wait)
            with _GUARD:
                _HELD[self.root] = (threading.get_ident(), 1)
            try:
                self._sign(verb)
                yield
            except (interrupts.Interrupted, KeyboardInterrupt):
                with suppress(OSError):
                    journal.record(self.root, "interrupted", was=verb)
                raise
            finally:
                with suppress(OSError), failpoints.commit("unlock"):
                    self._note.unlink()
                with _GUARD:
                    del _HELD[self.root]
        finally:
            os.close(handle)  # frees the lock

    def holder(self) -> dict[str, Any] | None:
        """Who wrote `writer.json` last; it stays behind a holder that was killed."""
        try:
            found = files.read_json(self._note)
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and set(found) >= set(_describe("")) else None

    @property
    def _note(self) -> Path:
        return self.root / "writer.json"

    def _sign(self, verb: str) -> None:
        """Name the holder for others. On a full disk the lock is held without: whoever frees space needs it too."""
        killed = self.holder()
        with suppress(OSError):
            if killed is not None:
                journal.record(
                    self.root, "killed", was=killed["verb"], since=killed["since"], pid=killed["pid"]
                )
            self._note.unlink(missing_ok=True)
        with suppress(OSError):
            files.write_json(self._note, _describe(verb))

    def _enter_again(self) -> bool:
        with _GUARD:
            owner, depth = _HELD.get(self.root, (0, 0))
            if depth and owner == threading.get_ident():
                _HELD[self.root] = (owner, depth + 1)
                return True
        return False

    def _leave(self) -> None:
        with _GUARD:
            owner, depth = _HELD[self.root]
            _HELD[self.root] = (owner, depth - 1)

    def _take(self, handle: int, wait: float | None) -> None:
        until = time.monotonic() + (wait or 0.0)
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise Conflict(
                        self._taken(), remedy="wait for it to end, or give --wait SECONDS"
                    ) from None
                failpoints.reached("wait for the lock")
                time.sleep(POLL_SECONDS)

    def _taken(self) -> str:
        who = self.holder()
        if who is None:
            return f"another process is writing to {self.root}"
        return (
            f"{self.root} is being written by '{who['verb']}' "
            f"(process {who['pid']} of {who['user']} on {who['host']}, since {who['since']})"
        )


def _describe(verb: str) -> dict[str, Any]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "verb": verb,
        "pid": os.getpid(),
        "host": identity.host(),
        "user": identity.user(),
        "since": since,
    }
