"""The pictures of a catalogue: hashed, looked at, and put on the shelf in batches.

A file is read again only if its size or time changed, and decoded only if its content is new. Two threads decode
(Pillow frees the interpreter while it does) and a short queue bounds what is in memory. What was committed before a
kill is known at the next run.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore import images
from featurestore.tables import Tables
from ingest.pictures import PictureError, Root, facts, read_file

THREADS = 2
QUEUE = 16
COMMIT_ROWS = 4096
COMMIT_BYTES = 64 << 20

Progress = Callable[[int, int | None, str], None]


@dataclass(frozen=True)
class Shelved:
    """reference -> sha256 of the picture, or why there is none; `written`: pictures the store had not."""

    sha256: dict[str, str]
    failed: dict[str, PictureError]
    written: int


@dataclass(frozen=True)
class _Read:
    sha256: str
    path: str
    size: int
    mtime_ns: int
    row: dict[
        str, object
    ]  # facts and thumbnail where the content is new, the original where it is to be kept


def shelve(
    tables: Tables,
    folder: Path,
    references: list[str],
    *,
    keep: bool,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Shelved:
    """Put the pictures that `references` name (paths relative to `folder`) into the images table.

    keep: store the files' own bytes too. dry_run: read, hash and decode all the same, and write nothing. Raises nothing
    for a bad picture: it is in `failed`.
    """
    shelf = _Shelf(tables, Root(folder), keep, dry_run)
    sha256: dict[str, str] = {}
    failed: dict[str, PictureError] = {}
    changed: list[tuple[str, str, str]] = []
    for reference in references:
        try:
            path, file = shelf.root.find(reference)
            sha = shelf.unchanged(path, file)
        except PictureError as error:
            failed[reference] = error
            continue
        if sha is not None:
            sha256[reference] = sha
        else:
            changed.append((reference, path, file))
    pending: deque[tuple[str, Future[_Read]]] = deque()
    done = 0

    def settle() -> None:
        nonlocal done
        reference, future = pending.popleft()
        try:
            read = future.result()
        except PictureError as error:
            failed[reference] = error
        else:
            sha256[reference] = read.sha256
            shelf.put(read)
        done += 1
        if progress is not None:
            progress(done, len(changed), "pictures")

    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as pool:
        warnings.filterwarnings(
            "ignore", module=r"PIL\."
        )  # on odd files, which are judged by what comes of them
        try:
            for reference, path, file in changed:
                if len(pending) >= QUEUE:
                    settle()
                pending.append((reference, pool.submit(shelf.read, path, file)))
            while pending:
                settle()
        finally:
            for _, future in pending:
                future.cancel()
    shelf.commit()
    return Shelved(sha256, failed, shelf.written)


class _Shelf:
    def __init__(self, tables: Tables, root: Root, keep: bool, dry_run: bool) -> None:
        self.root = root
        self.written = 0
        self._tables = tables
        self._dry_run = dry_run
        self._keep = keep
        self._known = images.known(tables)
        self._stored = images.by_sha256(tables)
        self._kept = images.kept(tables) if keep else set()
        self._new: dict[str, dict[str, object]] = {}
        self._moved: dict[str, dict[str, object]] = {}
        self._originals: dict[str, dict[str, object]] = {}
        self._bytes = 0

    def unchanged(self, path: str, file: str) -> str | None:
        """The stored sha256 of a file of known size and time, or None if it has to be read."""
        at = self._known.get((self.root.folder, path))
        if at is None or (self._keep and at.sha256 not in self._kept):
            return None
        try:
            seen = os.stat(file)
        except OSError as error:
            raise PictureError("image_missing", f"'{path}' cannot be read ({error.strerror})") from error
        return at.sha256 if (seen.st_size, seen.st_mtime_ns) == (at.bytes, at.mtime_ns) else None

    def read(self, path: str, file: str) -> _Read:
        """In a thread: the file's hash and, where its content is new, what the table keeps of it."""
        data, mtime_ns = read_file(file)
        sha256 = hashlib.sha256(data).hexdigest()
        row: dict[str, object] = {}
        if sha256 not in self._stored:
            row = vars(facts(data)) | {"original": None}
        if self._keep and sha256 not in self._kept:
            row = {**row, "original": data}
        return _Read(sha256, path, len(data), mtime_ns, row)

    def put(self, read: _Read) -> None:
        place: dict[str, object] = {
            "sha256": read.sha256,
            "root": self.root.folder,
            "path": read.path,
            "bytes": read.size,
            "mtime_ns": read.mtime_ns,
        }
        if read.sha256 in self._new:
            return  # the same picture under a second path
        if "format" in read.row:
            if read.sha256 in self._stored:
                return  # written by an earlier batch of this run
            self._new[read.sha256] = place | read.row
            self.written += 1
        else:
            stored = self._stored[read.sha256]
            here = (stored.root, stored.path) == (self.root.folder, read.path)
            if here or not _untouched(stored):
                self._moved[read.sha256] = place
            if "original" in read.row:
                self._originals[read.sha256] = {"sha256": read.sha256, "original": read.row["original"]}
        self._bytes += sum(len(value) for value in read.row.values() if isinstance(value, bytes))
        if self._bytes >= COMMIT_BYTES or len(self._new) >= COMMIT_ROWS:
            self.commit()

    def commit(self) -> None:
        if not self._dry_run:
            for rows in (self._new, self._originals, self._moved):
                images.upsert_images(self._tables, list(rows.values()))
        for sha256, row in self._new.items():
            self._stored[sha256] = _located(row)
        self._new, self._moved, self._originals, self._bytes = {}, {}, {}, 0


def _untouched(stored: images.Located) -> bool:
    """Whether the file that a picture was read from is there, and as it was then."""
    try:
        found = stored.file.stat()
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (stored.bytes, stored.mtime_ns)


def _located(row: dict[str, Any]) -> images.Located:
    return images.Located(row["sha256"], row["root"], row["path"], row["bytes"], row["mtime_ns"])
