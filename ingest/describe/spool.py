"""Answers on their way to a commit: one line each in STORE/spool, so that a kill loses nothing that was paid for.

A line goes to the disk before its answer goes anywhere else. What a next run finds there is taken if the item's input
still is the one that was asked about, and asked anew otherwise; a line leaves the file when its cell is committed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore import files
from ingest.describe.base import Answer

if TYPE_CHECKING:
    from featurestore.recipe import Recipe

FOLDER = "spool"
FLUSH_SECONDS = 1.0  # of a local model's work that a power cut may lose; a kill alone loses nothing


class Spool:
    """The spool of one feature's recipe. `each`: flush every answer to the disk, not only once a second."""

    def __init__(self, root: Path, feature: str, recipe: Recipe, *, each: bool) -> None:
        self.path = root / FOLDER / f"{recipe.table(feature)}.jsonl"
        self._each = each
        self._waiting = _read(self.path)
        self._done: set[str] = set()
        self._flushed = time.monotonic()

    def __len__(self) -> int:
        return len(self._waiting)

    def get(self, input_hash: str) -> Answer | None:
        """The answer to this input, if it was given already."""
        return self._waiting.get(input_hash)

    def items(self) -> list[tuple[str, Answer]]:
        """(input hash, answer) of all that wait."""
        return list(self._waiting.items())

    def take(self, other: Spool) -> None:
        """Have what waits in another spool wait here. Raises DiskError."""
        for input_hash, answer in other.items():
            self.append(input_hash, answer)
        other.clear()

    def append(self, input_hash: str, answer: Answer) -> None:
        """Keep an answer. Raises DiskError."""
        line = (json.dumps({"input_hash": input_hash, "answer": asdict(answer)}) + "\n").encode()
        with files.disk_errors(str(self.path)):
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("a+b") as file:
                end = file.seek(0, os.SEEK_END)
                if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                    line = b"\n" + line  # closes a line that a crash cut short
                file.write(line)
                file.flush()  # all of it, or an error: an unbuffered write may end half-way where the disk is full
                if self._each or time.monotonic() - self._flushed > FLUSH_SECONDS:
                    os.fsync(file.fileno())
                    self._flushed = time.monotonic()
        self._waiting[input_hash] = answer

    def put(self, input_hash: str) -> None:
        """This answer's cell is in the next commit."""
        self._done.add(input_hash)

    def committed(self) -> None:
        """What was put is committed."""
        self.drop(self._done)
        self._done = set()

    def clear(self) -> None:
        """Forget all answers: they are to inputs that are no more."""
        self.drop(list(self._waiting))

    def drop(self, hashes: Iterable[str]) -> None:
        """Forget answers; the file goes with the last one."""
        known = len(self._waiting)
        for input_hash in hashes:
            self._waiting.pop(input_hash, None)
        if not self._waiting:
            with suppress(FileNotFoundError):
                self.path.unlink()
        elif len(self._waiting) != known:
            lines = [json.dumps({"input_hash": h, "answer": asdict(a)}) for h, a in self._waiting.items()]
            files.write_text(self.path, "\n".join(lines) + "\n")


def _read(path: Path) -> dict[str, Answer]:
    """By input. A line that a crash cut short is left out."""
    found: dict[str, Answer] = {}
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return found
    for line in content.split(b"\n"):
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            found[str(entry["input_hash"])] = Answer(**entry["answer"])
    return found
