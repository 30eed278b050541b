"""The flat index: every answer is the true one. FAISS for a few queries, one matrix product for many or few rows.

How. FAISS's float32 pass yields candidates, which are scored again in double (see `featurestore.exact`); if a row that
was not fetched could still be within the rounding margin of the k-th, that query is answered by the other route, which
sees every score. So ties at the k-th place are broken by row, where FAISS alone would keep any of them.

Routes, measured on 20,000 x 384 and 100,000 x 128 with one thread: one query over a tenth of the rows costs the same by
a gather and product as by FAISS with a bitmap, below that the gather is up to 12 times faster; from 8 queries on, the
product beats FAISS's flat index two to four times. FAISS's threads are left as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore import files, remedies
from featurestore.errors import BadInput, Conflict, NotFound
from featurestore.exact import (
    ROWS,
    Answer,
    Asked,
    Bool,
    Float32,
    Index,
    Int32,
    Metric,
    checked_lengths,
    faiss_module,
    normalised,
    without,
)

__all__ = ["Flat", "Index", "Metric", "build", "read"]

SELECTIVE = 0.1  # share of allowed rows up to which a single query gathers them
BATCH = 8  # queries from which a matrix product is the faster route
SPARE = 6  # rows fetched beyond what is asked, so that most queries are settled by the first pass


@dataclass(frozen=True, eq=False)
class Flat(Index):
    """An exact index. `vectors` are of length one under "cosine"; `flat` is a faiss.IndexFlatIP that looks at the same
    memory.
    """

    flat: Any

    def search_row(
        self, row: int, k: int, allowed: Bool | None = None, *, exact: bool = False
    ) -> tuple[Float32, Int32]:
        """As `Index.search_row`."""
        asked = self.vectors[row : row + 1]
        fetch = k + 1 + SPARE
        if allowed is None and k > 0 and fetch < len(self) // 4:  # the common case, with nothing to spare
            near, found = self.flat.search(asked, fetch)
            best, scores = self._rank(asked[0], found[0][found[0] != row], k)
            if float(scores[-1]) > float(near[0, -1]) + self._margin(asked[0]):
                return scores, best.astype(np.int32)
        return super().search_row(row, k, allowed, exact=exact)

    def _fast(self, asked: Asked, answer: Answer) -> Sequence[int]:
        queries = range(len(asked.queries))
        few = asked.count <= SELECTIVE * len(self) or asked.k > asked.count // 4
        return queries if few or len(queries) >= BATCH else self._by_faiss(asked, answer)

    def _by_faiss(self, asked: Asked, answer: Answer) -> list[int]:
        """Fill in what one FAISS search settles; returns the queries that it does not."""
        k, left_out = asked.k, asked.left_out
        longest = max((len(r) for r in left_out), default=0) if left_out else 0
        fetch = min(k + longest + SPARE, asked.count)
        if asked.allowed is None:
            near, found = self.flat.search(asked.queries, fetch)
        else:
            faiss = faiss_module()
            bits = np.packbits(asked.allowed, bitorder="little")
            chosen = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
            near, found = self.flat.search(asked.queries, fetch, params=chosen)
        unsettled = []
        for query, (floor, candidates) in enumerate(zip(near[:, -1], found, strict=True)):
            if left_out is not None and len(left_out[query]):
                candidates = without(candidates, left_out[query])
            best, exact = self._rank(asked.queries[query], candidates, k)
            beyond = float(floor) + self._margin(asked.queries[query])  # no row not fetched scores higher
            if fetch == asked.count or (len(best) == k and float(exact[-1]) > beyond):
                answer.put(query, best, exact)
            else:
                unsettled.append(query)
        return unsettled

    def write(self, path: str | Path) -> dict[str, Any]:
        """Write a file that plain `faiss.read_index` opens too; returns what `read` checks it against."""
        faiss = faiss_module()
        with files.replacing(Path(path)) as aside:
            faiss.write_index(self.flat, str(aside))
            digest = files.sha256_file(aside)
        return {"metric": self.metric, "rows": len(self), "dim": self.dim, "sha256": digest}


def build(vectors: npt.ArrayLike, metric: Metric = "cosine") -> Flat:
    """An index over (n, dim) float32 `vectors`, which are not changed: "cosine" normalises a copy, a block at a time.

    Raises BadInput where a vector is not finite, or zero under "cosine".
    """
    values = np.asarray(vectors)
    if values.ndim != 2 or values.dtype != np.float32:
        raise BadInput(f"an index is built over (n, dim) float32, not {values.shape} {values.dtype}")
    header = _header(*values.shape)
    memory = _memory(len(header), values.size * 4)
    memory[: len(header)] = header
    own = memory[len(header) :].view(np.float32).reshape(values.shape)
    for start in range(0, len(values), ROWS):
        block = values[start : start + ROWS]
        lengths = checked_lengths(block, start, directed=metric == "cosine")
        own[start : start + ROWS] = block if metric == "ip" else normalised(block, lengths)
    return _over(memory, own, metric)


def read(path: str | Path, expected: dict[str, Any]) -> Flat:
    """Open a file that `write` made, given what it returned. FAISS sees its bytes only after their sha256 was right."""
    path = Path(path)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise NotFound(f"index file {path} is gone", remedy=remedies.REBUILD) from None
    header = len(_header(expected["rows"], expected["dim"]))
    body = expected["rows"] * expected["dim"] * 4
    memory = _memory(header, body)
    if size == len(memory):
        with path.open("rb") as file:
            file.readinto(memory.data)
    if size != len(memory) or hashlib.sha256(memory.data).hexdigest() != expected["sha256"]:
        raise Conflict(f"index file {path} is not the one that was written", remedy=remedies.REBUILD)
    vectors = memory[header:].view(np.float32).reshape(expected["rows"], expected["dim"])
    return _over(memory, vectors, expected["metric"])


def _header(rows: int, dim: int) -> npt.NDArray[np.uint8]:
    """What stands before the vectors in FAISS's file of a flat index: an empty one's, with the counts put in."""
    faiss = faiss_module()

    header: npt.NDArray[np.uint8] = faiss.serialize_index(faiss.IndexFlatIP(dim)).copy()
    header[8:16] = np.frombuffer(np.int64(rows).tobytes(), np.uint8)
    header[-8:] = np.frombuffer(np.int64(rows * dim).tobytes(), np.uint8)
    return header


def _memory(header: int, body: int) -> npt.NDArray[np.uint8]:
    """header + body bytes, of which the body begins at a multiple of 64: elsewhere a search takes 1.4 times as long."""
    room = np.empty(header + body + 64, np.uint8)
    begin = -(room.ctypes.data + header) % 64
    return room[begin : begin + header + body]


def _over(memory: npt.NDArray[np.uint8], vectors: Float32, metric: Metric) -> Flat:
    """FAISS's flat index over `memory` (a file's content), without a copy; `vectors` is the part that holds them."""
    faiss = faiss_module()

    flat = faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(memory), len(memory)))
    if not isinstance(flat, faiss.IndexFlatIP) or (flat.ntotal, flat.d) != vectors.shape:
        raise Conflict("the index file does not hold what its manifest says", remedy=remedies.REBUILD)
    if len(vectors) and int(flat.get_xb()) != vectors.ctypes.data:
        raise RuntimeError("this version of faiss keeps a flat index in another layout")
    vectors.setflags(write=False)
    return Flat(vectors, metric, None, flat)
