"""STORE/derived: folders of files that can be made again, each under the hash of what it was made from.

A folder is written aside, flushed and renamed into place with `facts.json` in it, so one that is there is whole.
Its name is given by the caller (a hash of the inputs) or, where there is no cheaper one, is the hash of its own files.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore import files

FACTS = "facts.json"
BATCH_ROWS = 1 << 20  # rows of a record batch of an Arrow file
DIGEST_ROWS = 65_536  # rows hashed at a time; other rows at a time give another hash

Entry = dict[str, Any]  # of a file, as manifests have it: derived (its folder's name), file, bytes, sha256


@dataclass(frozen=True)
class Made:
    """A derived folder: its files by name, and what was noted when they were made."""

    files: dict[str, Entry]
    facts: dict[str, Any]


class Shelf:
    """The derived files of one store. The caller holds the writer's lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, what: str, key: str | None, build: Callable[[Path], dict[str, Any]]) -> Made:
        """The folder of `key`, made by `build(folder)` unless it is there; without a key, made and named by content.

        what: what it holds, said in facts.json. build: writes files into a folder and returns what is to be noted.
        """
        if key is not None and (found := self._whole(key)):
            return found
        files.make_folder(self.folder)
        aside = self.folder / f".{uuid.uuid4().hex}.part"
        aside.mkdir()
        try:
            facts = build(aside)
            sizes = {
                path.name: {"bytes": path.stat().st_size, "sha256": _flushed(path)}
                for path in sorted(aside.iterdir())
            }
            name = key or files.sha256_text(files.canonical_json(sizes))
            files.write_json(aside / FACTS, {"what": what, "files": sizes, "facts": facts})
            if key is None and (found := self._whole(name)):
                return found
            shutil.rmtree(
                self.folder / name, ignore_errors=True
            )  # a damaged one, which nothing can be served from
            files.rename(aside, self.folder / name)
            return _made(name, sizes, facts)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def array(self, name: str, values: npt.NDArray[Any]) -> Entry:
        """Keep an array as NAME.npy, under the hash of its content."""

        def build(folder: Path) -> dict[str, Any]:
            np.save(folder / f"{name}.npy", values, allow_pickle=False)
            return {}

        return self.put(name, None, build).files[f"{name}.npy"]

    def table(self, name: str, table: pa.Table) -> Entry:
        """Keep a table as NAME.arrow, an Arrow file that can be memory-mapped, under the hash of its content."""
        plain = pa.schema([pa.field(field.name, field.type) for field in table.schema])

        def build(folder: Path) -> dict[str, Any]:
            with (
                pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink,
                pa.ipc.new_file(sink, plain) as writer,
            ):
                writer.write_table(table.cast(plain).combine_chunks(), max_chunksize=BATCH_ROWS)
            return {}

        return self.put(name, None, build).files[f"{name}.arrow"]

    def has(self, entry: Entry) -> bool:
        """Whether a file is there in its size."""
        path = self.folder / entry["derived"] / entry["file"]
        return path.is_file() and bool(path.stat().st_size == entry["bytes"])

    def drop_damaged(self, name: str) -> None:
        """Take a folder away unless every byte of it is as it was written, so that it is made anew by `put`."""
        made = self._whole(name)
        if made is None or any(
            files.sha256_file(self.folder / name / file) != entry["sha256"]
            for file, entry in made.files.items()
        ):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _whole(self, name: str) -> Made | None:
        try:
            kept = files.read_json(self.folder / name / FACTS)
            found = _made(name, kept["files"], kept["facts"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # not there, or damaged: made again
            return None
        return found if all(self.has(entry) for entry in found.files.values()) else None


def digest(head: list[Any], table: pa.Table) -> str:
    """Hash of facts (JSON) and a table: the key of what is made of them."""
    found = hashlib.sha256(files.canonical_json(head).encode())
    for batch in table.combine_chunks().to_batches(DIGEST_ROWS):
        found.update(batch.serialize())
    return found.hexdigest()


def _made(name: str, sizes: dict[str, dict[str, Any]], facts: dict[str, Any]) -> Made:
    return Made({file: {"derived": name, "file": file, **size} for file, size in sizes.items()}, facts)


def _flushed(path: Path) -> str:
    """Flush a file to disk; its sha256."""
    files.flush(path)
    return files.sha256_file(path)
