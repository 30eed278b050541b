"""Texts and pictures through an encoder: batches in, vectors and per-row errors out; nothing here writes.

Texts go in order of length, longest first, so that a batch holds little padding and a full memory shows at once.
Several texts an item go so too, some batches of items at a time; each text once, its vector kept while another item
waits for it. Pictures are read, decoded and prepared by threads, some batches ahead of the encoder.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featurestore.errors import CellError, DualviewError
from ingest.encode.base import ZERO, ImageEncoder, TextEncoder, Vectors, faults
from ingest.fuse import stored

if TYPE_CHECKING:
    from featurestore.tables import Tables

WORKERS = min(8, os.cpu_count() or 1)
AHEAD = 3  # batches of pictures that are made ready before they are needed
TOGETHER = 4  # batches of tokens whose items are finished together

Int64 = npt.NDArray[np.int64]
NONE: Int64 = np.empty(0, np.int64)


@dataclass(frozen=True)
class Encoded:
    """Some rows of the input, by their place in it.

    places: (n,), of the vectors (n, d); where a row has several, of vectors[offsets[i] : offsets[i + 1]]. errors: of
    others. empty: of those that say nothing, though their input seemed to.
    """

    places: Int64 = field(default_factory=NONE.copy)
    vectors: Vectors = field(default_factory=lambda: np.empty((0, 0), np.float32))
    errors: dict[int, CellError] = field(default_factory=dict)
    offsets: Int64 | None = None
    empty: Int64 = field(default_factory=NONE.copy)

    def of(self, rows: Int64) -> Encoded:
        """The same where what was encoded are only these rows of the input."""
        errors = {int(rows[place]): error for place, error in self.errors.items()}
        return replace(self, places=rows[self.places], errors=errors, empty=rows[self.empty])


def encode_texts(encoder: TextEncoder, texts: Sequence[str], dim: int) -> Iterator[Encoded]:
    order = np.asarray(sorted(range(len(texts)), key=lambda place: -len(texts[place])), np.int64)
    zero = getattr(encoder, "zero", ZERO)
    for start in range(0, len(order), encoder.batch_size):
        places = order[start : start + encoder.batch_size]
        yield _checked(places, encoder.encode([texts[place] for place in places]), dim, zero)


def encode_tokens(encoder: TextEncoder, items: Sequence[Sequence[str]], dim: int) -> Iterator[Encoded]:
    """items: the texts of each, one at least. A text without a vector is left out; one of no other is an error."""
    uses = Counter(text for texts in items for text in texts)
    found: dict[str, Vectors | CellError] = {}
    waiting: list[int] = []
    new: dict[str, None] = {}

    def finish() -> Encoded:
        texts = list(new)
        for encoded in encode_texts(encoder, texts, dim):
            found.update(
                (texts[place], vector.copy())
                for place, vector in zip(encoded.places, encoded.vectors, strict=True)
            )
            found.update((texts[place], error) for place, error in encoded.errors.items())
        done = _gathered(waiting, [[found[text] for text in items[place]] for place in waiting], dim)
        uses.subtract(text for place in waiting for text in items[place])
        for text in {text for place in waiting for text in items[place] if not uses[text]}:
            del found[text]
        waiting.clear()
        new.clear()
        return done

    for place in sorted(range(len(items)), key=lambda place: -max(map(len, items[place]))):
        waiting.append(place)
        new.update(dict.fromkeys(text for text in items[place] if text not in found))
        if len(new) >= TOGETHER * encoder.batch_size:
            yield finish()
    if waiting:
        yield finish()


def _gathered(places: Sequence[int], found: Sequence[Sequence[Vectors | CellError]], dim: int) -> Encoded:
    """found: what each item's texts came to, in their order."""
    kept = [[each for each in texts if not isinstance(each, CellError)] for texts in found]
    errors = {
        place: error
        for place, texts, vectors in zip(places, found, kept, strict=True)
        if not vectors and isinstance(error := texts[0], CellError)
    }
    counts = [len(vectors) for vectors in kept if vectors]
    return Encoded(
        np.asarray([place for place, vectors in zip(places, kept, strict=True) if vectors], np.int64),
        np.stack([each for vectors in kept for each in vectors])
        if counts
        else np.empty((0, dim), np.float32),
        errors,
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def fused(places: Int64, found: stored.Stored) -> Encoded:
    """What weights made of the vectors of the items at `places`: one vector an item, or several."""
    there = np.flatnonzero(found.present)
    empty = places[~found.present]
    if isinstance(found, stored.Vectors):
        checked = _checked(places[there], found.known, found.width, ZERO)
        return replace(checked, empty=empty)
    errors: dict[int, CellError] = {}
    owners = np.repeat(np.arange(len(found)), found.counts)
    for row, error in faults(found.values):
        errors.setdefault(int(owners[row]), error)
    good = found.take(kept := np.setdiff1d(there, list(errors)))
    named = {int(places[item]): error for item, error in errors.items()}
    return Encoded(places[kept], good.values, named, good.offsets, empty)


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
    places: Int64,
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
