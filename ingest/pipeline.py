"""Texts and pictures through an encoder: batches in, vectors and per-row errors out; nothing here writes.

Texts go in order of length, longest first, so that a batch holds little padding and a full memory shows at once.
Pictures are read, decoded and prepared by threads, some batches ahead of the encoder.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featurestore.errors import CellError, DualviewError
from ingest.encode.base import ZERO, ImageEncoder, TextEncoder, Vectors, faults

if TYPE_CHECKING:
    from featurestore.tables import Tables

WORKERS = min(8, os.cpu_count() or 1)
AHEAD = 3  # batches of pictures that are made ready before they are needed


@dataclass(frozen=True)
class Encoded:
    """Some rows of the input, by their place in it. places: (n,), of the vectors (n, d); errors: of the others."""

    places: npt.NDArray[np.int64]
    vectors: Vectors
    errors: dict[int, CellError]


def encode_texts(encoder: TextEncoder, texts: Sequence[str], dim: int) -> Iterator[Encoded]:
    order = np.asarray(sorted(range(len(texts)), key=lambda place: -len(texts[place])), np.int64)
    zero = getattr(encoder, "zero", ZERO)
    for start in range(0, len(order), encoder.batch_size):
        places = order[start : start + encoder.batch_size]
        yield _checked(places, encoder.encode([texts[place] for place in places]), dim, zero)


def encode_images(encoder: ImageEncoder, tables: Tables, shas: Sequence[str], dim: int) -> Iterator[Encoded]:
    """shas: sha256 of each picture, as the store knows them."""
    from featurestore.images import Originals
    from ingest.pictures import decode

    originals = Originals(tables)

    def ready(sha: str) -> Any:
        try:
            return encoder.prepare(decode(originals.open_bytes(sha)))
        except DualviewError as error:
            return cell_error(error)

    todo = iter(enumerate(shas))
    waiting: deque[tuple[int, Future[Any]]] = deque()
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="pictures")
    try:
        places: list[int] = []
        prepared: list[Any] = []
        errors: dict[int, CellError] = {}
        while True:
            while len(waiting) < AHEAD * encoder.batch_size and (entry := next(todo, None)) is not None:
                waiting.append((entry[0], pool.submit(ready, entry[1])))
            if not waiting:
                break
            place, future = waiting.popleft()
            result = future.result()
            if isinstance(result, CellError):
                errors[place] = result
            else:
                places.append(place)
                prepared.append(result)
            if len(prepared) == encoder.batch_size:
                yield _checked(np.asarray(places), encoder.encode(prepared), dim, ZERO, errors)
                places, prepared, errors = [], [], {}
        if prepared:
            yield _checked(np.asarray(places), encoder.encode(prepared), dim, ZERO, errors)
        elif errors:
            yield Encoded(np.empty(0, np.int64), np.empty((0, dim), np.float32), errors)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _checked(
    places: npt.NDArray[np.int64],
    vectors: Vectors,
    dim: int,
    zero: CellError,
    errors: dict[int, CellError] | None = None,
) -> Encoded:
    """What an encoder gave, with the rows that cannot be stored turned into errors."""
    errors = dict(errors or {})
    if vectors.shape != (len(places), dim):
        if len(vectors) != len(places):
            raise RuntimeError(f"the encoder gave {len(vectors)} vectors for {len(places)} inputs")
        size = CellError(
            "wrong_size", f"the encoder gave a vector of {vectors.shape[1:]}, the recipe says {dim}"
        )
        return Encoded(places[:0], np.empty((0, dim), np.float32), errors | {int(p): size for p in places})
    bad = dict(faults(vectors, zero))
    if not bad:
        return Encoded(places, vectors, errors)
    good = np.setdiff1d(np.arange(len(places)), list(bad))
    errors |= {int(places[row]): error for row, error in bad.items()}
    return Encoded(places[good], vectors[good], errors)


def cell_error(error: DualviewError) -> CellError:
    """A picture's refusal as the error of its cell. A file that is gone may come back; one that is bad stays bad."""
    code = "image_gone" if error.code == "not_found" else error.code
    return CellError(code, error.message, transient=code == "image_gone")
