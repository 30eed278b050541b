"""Pictures of items, by the hash that the catalogue has of them; and bounds for pictures that requests bring."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from featurestore import images, schema
from featurestore.errors import BadInput, NotFound
from featurestore.images import ImageUnavailable
from featurestore.tables import Tables

if TYPE_CHECKING:
    from recommender.serve.snapshot import Snapshot

Size = Literal["thumbnail", "original"]
MEDIA = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
}
THUMBNAILS = 2_000  # kept; some 15 kB each


@dataclass(frozen=True)
class Picture:
    content: bytes
    media_type: str
    etag: str


def of_item(snapshot: Snapshot, item_id: str, size: Size) -> Picture:
    """The picture of an item. Raises NotFound where there is none, or where only a release is served."""
    release = snapshot.release
    row = release.row_of(item_id)
    catalogue = release.catalogue
    sha256 = None
    if schema.IMAGE_SHA256 in catalogue.column_names:
        sha256 = catalogue[schema.IMAGE_SHA256][row].as_py()
    if sha256 is None:
        raise NotFound(f"item '{item_id}' has no picture", remedy="show its title instead")
    if snapshot.store is None:
        raise NotFound(
            "a carried release has no pictures", remedy="serve the store that it was exported from"
        )
    tables = snapshot.store.tables
    etag = f'"{sha256[:32]}-{size[0]}"'
    if size == "thumbnail":
        try:
            content = _thumbnail(str(tables.folder), sha256)
        except KeyError:
            raise NotFound(
                f"the store has no thumbnail of '{item_id}'", remedy="ingest the catalogue again"
            ) from None
        return Picture(content, "image/jpeg", etag)
    try:
        content = images.open_bytes(tables, sha256)
    except ImageUnavailable as error:
        raise NotFound(
            f"the picture of '{item_id}' is not where it was ingested from", remedy=error.remedy
        ) from None
    return Picture(content, media_type(content), etag)


def media_type(content: bytes) -> str:
    """By the first bytes: what a browser may show, else plain bytes."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if content[4:12] in (b"ftypavif", b"ftypavis"):
        return "image/avif"
    return next(
        (kind for begin, kind in MEDIA.items() if content.startswith(begin)), "application/octet-stream"
    )


def check_upload(content: bytes, most_pixels: int) -> None:
    """Refuse a picture by its header, before a pixel of it is decoded. Raises BadInput."""
    from PIL import Image

    from ingest.pictures import DECODER_ERRORS, FORMATS

    try:
        with Image.open(io.BytesIO(content), formats=[f for f in FORMATS if f in _decoders()]) as picture:
            width, height = picture.size
    except (Image.DecompressionBombError, *DECODER_ERRORS):
        raise BadInput(
            "what was sent is no picture that can be read", remedy=f"send one of: {', '.join(FORMATS)}"
        ) from None
    if width * height > most_pixels:
        raise BadInput(
            f"the picture has {width} x {height} pixels; at most {most_pixels:,} are read",
            remedy="send a smaller one",
        )


@lru_cache(maxsize=THUMBNAILS)
def _thumbnail(folder: str, sha256: str) -> bytes:
    """Raises KeyError where there is none, which is not kept: it may come."""
    found = images.thumbnail(Tables(folder), sha256)
    if found is None:
        raise KeyError(sha256)
    return found


@lru_cache(maxsize=1)
def _decoders() -> frozenset[str]:
    from PIL import Image

    Image.init()
    return frozenset(Image.OPEN)
