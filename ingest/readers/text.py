"""Bytes of text files: opened through gzip where the name says so, and checked for their encoding before anything
is parsed.

A file in another encoding is refused as a whole: decoded wrongly it would still look like data. The refusal names
the first line that does not decode and the key of the mapping file that mends it.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from featurestore.errors import BadInput

CHUNK = 1 << 22
BOMS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked where its name ends in .gz; a broken archive or an unreadable file is refused."""
    try:
        with path.open("rb") as plain:
            if path.suffix.lower() == ".gz":
                with gzip.GzipFile(fileobj=plain) as unpacked:
                    yield unpacked  # type: ignore[misc]  # GzipFile reads bytes
            else:
                yield plain
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInput(
            f"{path} is not a whole gzip file ({error})", remedy="write or fetch it again"
        ) from error
    except PermissionError as error:
        raise BadInput(
            f"{path} may not be read ({error.strerror})", remedy="change its permissions"
        ) from error


def codec_name(encoding: str) -> str:
    try:
        name = codecs.lookup(encoding).name
    except LookupError as error:
        raise BadInput(
            f"'{encoding}' is no encoding that Python knows",
            remedy="use a name such as utf-8, latin-1 or cp1252",
        ) from error
    return "utf-8" if name == "utf-8-sig" else name


def check_encoding(path: Path, encoding: str) -> str:
    """Refuse a file that does not decode, naming the first line and byte that does not.

    Returns the last character that is no line end ("" in an empty file): a csv that ends inside a quoted cell shows
    by it.
    """
    name = codec_name(encoding)
    decoder = codecs.getincrementaldecoder(name)()
    lines = taken = 0
    last = ""
    with opened(path) as file:
        while True:
            block = file.read(CHUNK)
            if not taken and name == "utf-8":
                for bom, likely in BOMS.items():
                    if block.startswith(bom):
                        raise _refused(path, 1, 1, block[0], encoding, likely)
            pending = decoder.getstate()[0]
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                data = pending + block
                good = data[: error.start].decode(name, errors="replace")
                line = lines + good.count("\n") + 1
                at = taken - len(pending) + error.start
                byte = data[error.start] if error.start < len(data) else 0
                raise _refused(path, line, at + 1, byte, encoding, "cp1252 or latin-1") from error
            lines += text.count("\n")
            taken += len(block)
            last = text.rstrip("\r\n")[-1:] or last
            if not block:
                return last


def _refused(path: Path, line: int, place: int, byte: int, encoding: str, likely: str) -> BadInput:
    return BadInput(
        f"{path} is not {encoding}: line {line} has byte 0x{byte:02x} (byte {place:,} of the file)",
        remedy=f'name its encoding in a mapping file (encoding = "...", perhaps {likely}), or write the file as UTF-8',
    )
