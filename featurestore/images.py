"""Pictures, keyed by the sha256 of the file: facts, a thumbnail, and where the file lies (or its bytes, where kept).

Two paths with the same bytes are one row; two pictures that lay under the same path one after the other are two, of
which the one written last is what the path holds now. A file is read back only if it still is what was hashed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from featurestore.errors import DualviewError, NotFound
from featurestore.schema import IMAGES, IMAGES_SCHEMA, TIME, UPDATED_AT
from featurestore.tables import Tables

FACTS = ["sha256", "root", "path", "bytes", "mtime_ns"]


class ImageUnavailable(DualviewError):
    """A stored picture whose file is gone (`image_gone`) or is another one now (`image_changed`)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(
            message, remedy="put the file back, or ingest the catalogue again; --keep-images keeps a copy"
        )
        self.code = code


@dataclass(frozen=True)
class Located:
    """Where a picture lies, and how large and old its file was when it was hashed."""

    sha256: str
    root: str
    path: str
    bytes: int
    mtime_ns: int

    @property
    def file(self) -> Path:
        return Path(self.root) / self.path


def known(tables: Tables) -> dict[tuple[str, str], Located]:
    """(root, path) -> what that path held when it was last hashed."""
    return {(at.root, at.path): at for at in _facts(tables)}


def by_sha256(tables: Tables) -> dict[str, Located]:
    return {at.sha256: at for at in _facts(tables)}


def kept(tables: Tables) -> set[str]:
    """sha256 of the pictures whose original is in the table."""
    if not tables.exists(IMAGES):
        return set()
    return set(tables.read(IMAGES, columns=["sha256"], filter="original IS NOT NULL")["sha256"].to_pylist())


def upsert_images(tables: Tables, rows: list[dict[str, object]]) -> None:
    """Write rows of IMAGES_SCHEMA, each with all columns or all with the same part of them; one commit."""
    if not rows:
        return
    if not tables.exists(IMAGES):
        tables.create(IMAGES, IMAGES_SCHEMA)
    names = [field.name for field in IMAGES_SCHEMA if field.name in rows[0]]
    schema = pa.schema([IMAGES_SCHEMA.field(name) for name in names])
    table = pa.Table.from_pylist(rows, schema=schema)
    now = pa.repeat(pa.scalar(datetime.now(UTC), TIME), len(rows))
    tables.upsert(IMAGES, table.append_column(IMAGES_SCHEMA.field(UPDATED_AT), now), "sha256")


class Originals:
    """Reads pictures back by sha256. Knows at once where all of them lie; safe to use from several threads."""

    def __init__(self, tables: Tables, version: int | None = None) -> None:
        self._tables = tables
        self._version = version
        self._at = {at.sha256: at for at in _facts(tables, version)}
        self._kept = kept(tables)

    def open_bytes(self, sha256: str) -> bytes:
        """The file's bytes. Raises NotFound for a sha256 the store has not, ImageUnavailable for a file gone or
        changed.

        A file of the hashed size and time is taken as it is; another one is hashed again and must agree.
        """
        at = self._at.get(sha256)
        if at is None:
            raise NotFound(f"the store has no picture {sha256}", remedy="ingest the catalogue that names it")
        if sha256 in self._kept:
            rows = self._tables.read(
                IMAGES, columns=["original"], filter=f"sha256 = '{sha256}'", version=self._version
            )
            data = rows["original"][0].as_py()
            assert isinstance(data, bytes)
            return data
        try:
            with at.file.open("rb") as file:
                data = file.read(at.bytes + 1)
                seen = at.file.stat()
        except OSError as error:
            raise ImageUnavailable("image_gone", f"{at.file} cannot be read ({error.strerror})") from error
        same = len(data) == at.bytes and seen.st_mtime_ns == at.mtime_ns
        if not same and hashlib.sha256(data).hexdigest() != sha256:
            raise ImageUnavailable("image_changed", f"{at.file} is not the picture that was ingested")
        return data


def open_bytes(tables: Tables, sha256: str) -> bytes:
    """The bytes of one picture; see `Originals.open_bytes`, which is what to use for many."""
    return _originals(str(tables.folder), tables.version(IMAGES) if tables.exists(IMAGES) else 0).open_bytes(
        sha256
    )


def thumbnail(tables: Tables, sha256: str) -> bytes | None:
    """A JPEG of at most 256 px, or None where the store has no such picture. `sha256` comes from the items table."""
    if not tables.exists(IMAGES) or not sha256.isalnum():
        return None
    found = tables.read(IMAGES, columns=["thumbnail"], filter=f"sha256 = '{sha256}'")["thumbnail"].to_pylist()
    return found[0] if found else None


def thumbnails(tables: Tables, sha256s: list[str]) -> dict[str, bytes]:
    """Thumbnails of several pictures at once; those the store has not are left out."""
    wanted = sorted({sha for sha in sha256s if sha.isalnum()})
    if not wanted or not tables.exists(IMAGES):
        return {}
    listed = ", ".join(f"'{sha}'" for sha in wanted)
    rows = tables.read(IMAGES, columns=["sha256", "thumbnail"], filter=f"sha256 IN ({listed})")
    return dict(zip(rows["sha256"].to_pylist(), rows["thumbnail"].to_pylist(), strict=True))


@lru_cache(maxsize=4)
def _originals(folder: str, version: int) -> Originals:
    return Originals(Tables(folder), version or None)


def _facts(tables: Tables, version: int | None = None) -> list[Located]:
    """All pictures, oldest write first."""
    if not tables.exists(IMAGES):
        return []
    rows = tables.read(IMAGES, columns=[*FACTS, UPDATED_AT], version=version).sort_by(UPDATED_AT)
    return [Located(*row) for row in zip(*(rows[name].to_pylist() for name in FACTS), strict=True)]
