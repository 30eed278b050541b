"""One picture: found inside its root, read within bounds, decoded to RGB.

Nothing about a picture is trusted. Its path must stay inside the declared root (no absolute path, no climbing, no
link that leads out, no URL), it must be an ordinary file of bounded size, in one of a few formats whose decoders
run no other program, and its header must promise a bounded number of pixels before any of them is decoded.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from featurestore.errors import CellError, DualviewError

MAX_BYTES = 64 << 20
MAX_PIXELS = 64_000_000
THUMBNAIL = 256  # longer side
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
URL = re.compile(r"^(?:[A-Za-z][A-Za-z0-9+.-]*://|data:|[A-Za-z]:[\\/])")
# what Pillow's decoders raise on bytes that are no picture; only calls into Pillow are guarded by it
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    NotImplementedError,
    struct.error,
    zlib.error,
)


class PictureError(DualviewError):
    """Why a file is no usable picture; its `code` and message are filed with the item, the batch goes on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def cell(self) -> CellError:
        return CellError(self.code, self.message)


@dataclass(frozen=True)
class Facts:
    """What is kept about a picture; width and height as stored in the file, before its orientation is applied."""

    format: str
    mode: str
    width: int
    height: int
    frames: int
    thumbnail: bytes  # JPEG


class Root:
    """The folder that the paths of a catalogue's pictures are relative to."""

    def __init__(self, folder: Path) -> None:
        self.folder = os.path.realpath(folder)
        self._inside: dict[str, str | None] = {}  # folder -> its real path if that is inside the root

    def find(self, reference: str) -> tuple[str, str]:
        """(path relative to the root, the file's absolute path). Raises PictureError for anything but a file inside
        the root.
        """
        if URL.match(reference):
            raise PictureError(
                "image_url", f"'{reference[:200]}' is no relative path; URLs are never fetched"
            )
        if reference.startswith("/") or os.path.isabs(reference):
            raise PictureError(
                "image_path", f"'{reference[:200]}' is absolute; paths are relative to the images' root"
            )
        if "\0" in reference or len(reference.encode()) > 4096:
            raise PictureError("image_path", "the path has a NUL or is too long")
        relative = posixpath.normpath(reference)
        if relative == ".." or relative.startswith("../"):
            raise PictureError("image_path", f"'{reference[:200]}' leaves the images' root")
        base, name = posixpath.split(posixpath.join(self.folder, relative))
        if base not in self._inside:
            real = os.path.realpath(base)
            self._inside[base] = real if self._holds(real) else None
        home = self._inside[base]
        if home is None:
            raise PictureError("image_path", f"'{reference[:200]}' leaves the images' root through a link")
        path = posixpath.join(home, name)
        try:
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                path = os.path.realpath(path)
                if not self._holds(path):
                    raise PictureError(
                        "image_path", f"'{reference[:200]}' leaves the images' root through a link"
                    )
                mode = os.stat(path).st_mode
        except OSError as error:
            raise PictureError(
                "image_missing", f"'{reference[:200]}' cannot be read ({error.strerror})"
            ) from error
        if not stat.S_ISREG(mode):
            raise PictureError("image_missing", f"'{reference[:200]}' is no ordinary file")
        return relative, path

    def _holds(self, real: str) -> bool:
        return real == self.folder or real.startswith(self.folder.rstrip("/") + "/")


def read_file(path: str) -> tuple[bytes, int]:
    """(content, mtime in ns). Raises PictureError for a file that cannot be read or is above the bound."""
    try:
        with open(path, "rb") as file:
            seen = os.fstat(file.fileno())
            if seen.st_size > MAX_BYTES:
                raise PictureError("image_too_large", f"{seen.st_size:,} bytes; the bound is {MAX_BYTES:,}")
            return file.read(MAX_BYTES + 1), seen.st_mtime_ns
    except OSError as error:
        raise PictureError("image_missing", f"{path} cannot be read ({error.strerror})") from error


def decode(data: bytes) -> Image.Image:
    """The picture in RGB and upright; the first frame of an animation; transparency over white.

    Raises PictureError: image_undecodable, image_truncated, image_too_large.
    """
    with _opened(data) as picture:
        with _decoding():
            picture.load()
        return _rgb(picture)


def facts(data: bytes) -> Facts:
    """Decode once, for what the store keeps. Raises PictureError as `decode` does."""
    with _opened(data) as picture:
        found = (picture.format or "", picture.mode, picture.width, picture.height)
        with _decoding():
            frames = int(getattr(picture, "n_frames", 1))
            if picture.format == "JPEG" and picture.mode in ("RGB", "L"):
                # decodes at a half, a quarter or an eighth of the size, as long as that is large enough
                picture.draft(picture.mode, (2 * THUMBNAIL, 2 * THUMBNAIL))
            picture.load()
        small = _rgb(picture)
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
    kept = io.BytesIO()
    small.save(kept, "JPEG", quality=85)
    return Facts(*found, frames, kept.getvalue())


@cache
def _available() -> tuple[str, ...]:
    """The formats that this build of Pillow has a decoder for."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """A picture whose header was read and is within bounds; no pixel is decoded yet."""
    if not data:
        raise PictureError("image_undecodable", "the file is empty")
    with _decoding():
        picture = Image.open(io.BytesIO(data), formats=_available())
    with picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise PictureError(
                "image_too_large",
                f"{picture.width} x {picture.height} pixels; the bound is {MAX_PIXELS:,} in all",
            )
        yield picture


@contextmanager
def _decoding() -> Iterator[None]:
    """Around calls into Pillow, and nothing else: its decoders answer bad bytes with many kinds of exception."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise PictureError("image_too_large", f"a decompression bomb ({error})") from error
    except UnidentifiedImageError as error:
        raise PictureError("image_undecodable", f"no picture in {', '.join(FORMATS)}") from error
    except DECODER_ERRORS as error:
        code = "image_truncated" if "truncated" in str(error).lower() else "image_undecodable"
        raise PictureError(code, f"cannot be decoded ({str(error) or type(error).__name__})") from error


def _rgb(picture: Image.Image) -> Image.Image:
    with _decoding():
        ImageOps.exif_transpose(picture, in_place=True)
    upright = picture
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright).astype(np.uint16) >> 8).astype(np.uint8))
    elif upright.mode in ("I", "F"):
        upright = Image.fromarray(_eight_bits(np.asarray(upright)))
    if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
        with _decoding():
            layered = upright.convert("RGBA")
        over = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        over.alpha_composite(layered)
        return over.convert("RGB")
    with _decoding():
        return upright.convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Wide grey values as 0..255: fractions are taken as of 1, others as of 255, 65,535 or their own maximum."""
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0.0))
    fractions = top <= 1.0 and bool((values % 1.0).any())
    scale = 1.0 if fractions or top <= 1.0 else next((s for s in (255.0, 65_535.0) if top <= s), top)
    return (np.clip(values / scale, 0.0, 1.0) * 255.0).round().astype(np.uint8)
