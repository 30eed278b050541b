"""Files that are either whole or not there: written aside, flushed to disk, renamed into place.

So a kill at any moment, and a power cut as far as the disk keeps what it was told to flush, leave the old or the new.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from featurestore import failpoints
from featurestore.errors import DiskError

CHUNK = 1 << 20


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """A full or unwritable disk, met while `what` is written, as a DiskError; any other error passes."""
    try:
        yield
    except DiskError:
        raise
    except (OSError, RuntimeError) as error:  # Lance reports the system's errors as either
        text, number = str(error), getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or _says(
            text, "No space left", "File too large"
        ):
            raise DiskError(
                f"the disk is full: {what} was not written",
                remedy="free some space and run the same command again; what was stored before is kept",
                number=number or errno.ENOSPC,
            ) from error
        if number in (errno.EACCES, errno.EPERM, errno.EROFS) or _says(
            text, "Permission denied", "Read-only file system"
        ):
            raise DiskError(
                f"{what} cannot be written: {error}",
                remedy="check who owns the folder, and how it is mounted",
                number=number or errno.EACCES,
            ) from error
        raise


def _says(text: str, *phrases: str) -> bool:
    return any(phrase in text for phrase in phrases)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it is flushed and renamed over `path`, on error removed."""
    aside = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    with disk_errors(str(path)):
        make_folder(path.parent)
        try:
            yield aside
            flush(aside)
            rename(aside, path)
        finally:
            with suppress(OSError):  # the error that brought us here says more
                aside.unlink()


def rename(source: Path, target: Path) -> None:
    """Move a file or folder, flushed before, to its place; it is there for good on return."""
    with failpoints.commit(f"rename to {target.name}"):
        os.replace(source, target)
    flush(target.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those it lies in, for good."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        flush(folder.parent)


def flush(path: Path) -> None:
    """Have the disk keep a file's content, or which names a folder holds."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(folder: Path, since: float = 0.0) -> None:
    """Flush everything under `folder` that changed since that time (Unix seconds): files, then the folders' names."""
    folders = [folder]
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a passing file
            if path.stat().st_mtime >= since:
                if path.is_dir():
                    folders.append(path)
                else:
                    flush(path)
    for path in folders:
        flush(path)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as aside:
        aside.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def canonical_json(value: Any) -> str:
    """The one spelling of `value` that hashes are taken of: sorted keys, no spaces, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def sha256_contents(contents: Mapping[str, bytes]) -> str:
    """What `sha256_folder` gives for a folder of these files, by name."""
    digest = hashlib.sha256()
    for path in sorted(Path(name) for name in contents):
        digest.update(
            f"{path.as_posix()}\0{hashlib.sha256(contents[path.as_posix()]).hexdigest()}\n".encode()
        )
    return digest.hexdigest()


def sha256_folder(folder: Path) -> str:
    """Hash of every file's relative name and content under `folder`, hidden files left out."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):
            continue
        digest.update(f"{name.as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()
