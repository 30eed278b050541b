"""The approximate index of many vectors: a shortlist from compressed codes, scored exactly from the release's matrix.

What is kept. FAISS's IVF with product quantisation ("IVF4096,PQ64x4fsr"): vectors in lists by their nearest of `nlist`
centroids, each as half a byte for every two numbers of what is left of it after its centroid. The vectors themselves
stay where the release has them, in a memory-mapped `values.npy`; beside the codes lie only their lengths.

How a query is answered. The `nprobe` nearest lists are looked through by code; the best `shortlist` rows are scored
exactly, as every index does (`featurestore.exact`), so a score is always right and only a row can be missed.

Under a filter the lists are taken, nearest first, until as many allowed rows stand in them as in `nprobe` lists
without one; lists without an allowed row are passed over. So fewer allowed rows mean more lists, also where the filter
follows the vectors (a category far from the query). A few allowed rows are gathered and multiplied, which is exact.
Wherever fewer than k rows come back, every row is looked at: k rows are answered wherever k are allowed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore import files, remedies
from featurestore.errors import Conflict, NotFound
from featurestore.exact import (
    ROWS,
    Answer,
    Asked,
    Bool,
    Float32,
    Float64,
    Index,
    Int32,
    Int64,
    checked_lengths,
    faiss_module,
    normalised,
    without,
)

SEED = 1
TRAINED_ON = 48  # vectors for each list that the centroids are fitted to: FAISS asks for 39 or more
ADDED = 65_536  # vectors normalised and added at a time
USUAL_K = 10  # what `Setting` is tuned for; a larger k looks at more, in proportion
AGAINST = (
    0.5  # of a filter's share of all rows; with less in the nearest list, a query looks through all lists
)
GATHER_ROWS = 20_000  # allowed rows up to which gathering them is as fast as reading codes


@dataclass(frozen=True)
class Setting:
    """How far a search goes: lists looked through, and rows scored exactly."""

    nprobe: int
    shortlist: int


@dataclass(frozen=True, eq=False)
class Shortlist(Index):
    """`ivf`: a faiss.IndexIVFPQFastScan over the vectors, of length one, padded with zeros to its dimension."""

    ivf: Any
    setting: Setting

    @property
    def exact(self) -> bool:
        return False

    def with_setting(self, setting: Setting) -> Shortlist:
        return Shortlist(self.vectors, self.metric, self.lengths, self.ivf, setting)

    def _fast(self, asked: Asked, answer: Answer) -> Sequence[int]:
        setting = self._scaled(asked.k)
        queries = range(len(asked.queries))
        if asked.count <= GATHER_ROWS or setting.shortlist > asked.count // 4:
            return queries
        padded = _padded(asked.queries, self.ivf.d)
        extra = max((len(rows) for rows in asked.left_out), default=0) if asked.left_out else 0
        found = self.candidates(padded, setting.nprobe, setting.shortlist + extra, asked.allowed)
        left = []
        for query in queries:
            rows = found[query][found[query] >= 0]
            if asked.left_out is not None and len(asked.left_out[query]):
                rows = without(rows, asked.left_out[query])
            if len(rows) >= asked.k:
                answer.put(query, *self._best(asked.queries[query], rows, asked.k))
            else:
                left.append(query)
        return left

    def _best(self, query: Float32, rows: Int64, k: int) -> tuple[Int64, Float32]:
        """As `_rank`, but that only those are scored in double that a float32 pass cannot rule out."""
        near = self.vectors[rows] @ query
        if self._scale is not None:
            near *= self._scale[rows]
        return self._rank(query, rows[self._possible(near, k, self._margin(query))], k)

    def _scaled(self, k: int) -> Setting:
        times = max(1, math.ceil(k / USUAL_K))
        return Setting(min(self.ivf.nlist, self.setting.nprobe * times), self.setting.shortlist * times)

    def candidates(self, padded: Float32, nprobe: int, fetch: int, allowed: Bool | None = None) -> Int64:
        """Rows (q, fetch) with the best codes, best first, -1 where there are no more."""
        faiss = faiss_module()
        if allowed is None:
            found: Int64 = self.ivf.search(padded, fetch, params=faiss.SearchParametersIVF(nprobe=nprobe))[1]
            return found
        counts, selector = self._under(allowed)
        share = np.count_nonzero(allowed) / len(self)
        wanted = nprobe * len(self) / self.ivf.nlist  # rows that as many lists hold without a filter
        filled = int(np.count_nonzero(counts))
        near = padded @ self._centroids.T
        found = np.full((len(padded), fetch), -1, np.int64)
        for query, line in enumerate(near):
            first = int(np.argmax(line))
            against = counts[first] < AGAINST * share * self._sizes[first]
            line[counts == 0] = -np.inf
            lists = np.argsort(-line)[:filled]
            if not against:
                lists = lists[: int(np.searchsorted(np.cumsum(counts[lists]), wanted)) + 1]
            found[query] = self._in_lists(padded[query], lists, line[lists], fetch, selector)
        return found

    def _under(self, allowed: Bool) -> tuple[Int64, Any]:
        """How many allowed rows each list holds (nlist,), and FAISS's selector; kept for the last fixed mask."""
        kept = self._last.get("mask")
        if kept is not None and kept[0] is allowed:
            return kept[1], kept[2]
        counts = np.bincount(self._lists[allowed], minlength=self.ivf.nlist)
        selector = faiss_module().IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if not allowed.flags.writeable:  # as a release's are: it will be asked for again
            self._last["mask"] = (allowed, counts, selector)
        return counts, selector

    @cached_property
    def _last(self) -> dict[str, tuple[Bool, Int64, Any]]:
        return {}

    def _in_lists(self, query: Float32, lists: Int64, near: Float32, fetch: int, selector: Any) -> Int64:
        """Rows (fetch,) of given lists that the selector lets through; near: the lists' scores for the query."""
        faiss = faiss_module()
        found, scores = np.empty(fetch, np.int64), np.empty(fetch, np.float32)
        chosen = faiss.SearchParametersIVF(sel=selector, nprobe=len(lists))
        arrays = (np.ascontiguousarray(query), lists, near, scores, found)
        asked, keys, coarse, distances, labels = (faiss.swig_ptr(array) for array in arrays)
        # the wrapper of FAISS that takes arrays takes no parameters
        self.ivf.search_preassigned_c(1, asked, fetch, keys, coarse, distances, labels, False, chosen)
        return found

    @cached_property
    def _centroids(self) -> Float32:
        centroids: Float32 = self.ivf.quantizer.reconstruct_n(0, self.ivf.nlist)
        return centroids

    @cached_property
    def _sizes(self) -> Int64:
        return np.bincount(self._lists, minlength=self.ivf.nlist)

    @cached_property
    def _lists(self) -> Int32:
        """(n,) the list in which each row stands."""
        faiss = faiss_module()
        lists = np.empty(len(self), np.int32)
        for number in range(self.ivf.nlist):
            size = self.ivf.invlists.list_size(number)
            lists[faiss.rev_swig_ptr(self.ivf.invlists.get_ids(number), size)] = number
        return lists

    def write(self, path: str | Path) -> dict[str, Any]:
        """Write a file that plain `faiss.read_index` opens too, and searches by code alone, with `nprobe` set."""
        faiss = faiss_module()
        self.ivf.nprobe = self.setting.nprobe
        with files.replacing(Path(path)) as aside:
            faiss.write_index(self.ivf, str(aside))
            digest = files.sha256_file(aside)
        return {"metric": self.metric, "rows": len(self), "dim": self.dim, "sha256": digest}


def factory(rows: int, dim: int) -> str:
    """FAISS's name of the index that is built for so many vectors: some 4 sqrt(n) lists, a code for two numbers.

    Vectors of 64 numbers or fewer get a code for each, since so few codes of two tell too little.
    """
    fitted = math.floor(
        math.log2(max(1, rows / TRAINED_ON))
    )  # no more lists than there are vectors to fit them to
    nlist = 2 ** min(round(math.log2(4 * math.sqrt(rows))), fitted)
    codes = dim if dim <= 64 else (dim + 1) // 2
    return f"IVF{nlist},PQ{codes}x4fsr"


def build(vectors: npt.ArrayLike, setting: Setting) -> Shortlist:
    """Fit and fill an index over (n, dim) float32 `vectors`, compared by cosine; always the same for the same vectors.

    Raises BadInput where a vector is not finite, or zero.
    """
    faiss = faiss_module()
    values = np.asarray(vectors)
    rows, dim = values.shape
    name = factory(rows, dim)
    ivf = faiss.index_factory(dim if dim <= 64 else dim + dim % 2, name, faiss.METRIC_INNER_PRODUCT)
    lengths = np.concatenate(
        [checked_lengths(values[start : start + ROWS], start) for start in range(0, rows, ROWS)]
    )
    ivf.cp.seed = ivf.pq.cp.seed = SEED
    sample = np.random.default_rng(SEED).choice(rows, min(rows, TRAINED_ON * ivf.nlist), replace=False)
    sample.sort()
    ivf.train(_padded(normalised(values[sample], lengths[sample]), ivf.d))
    for start in range(0, rows, ADDED):
        part = slice(start, start + ADDED)
        ivf.add(_padded(normalised(values[part], lengths[part]), ivf.d))
    return Shortlist(values, "cosine", lengths, ivf, setting)


def read(
    path: str | Path, expected: dict[str, Any], vectors: Float32, lengths: Float64, setting: Setting
) -> Shortlist:
    """Open a file that `write` made, given what it returned, over the vectors that it was built from.

    FAISS sees its bytes only after their sha256 was right.
    """
    faiss = faiss_module()
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"index file {path} is gone", remedy=remedies.REBUILD) from None
    if hashlib.sha256(content).hexdigest() != expected["sha256"]:
        raise Conflict(f"index file {path} is not the one that was written", remedy=remedies.REBUILD)
    ivf = faiss.deserialize_index(np.frombuffer(content, np.uint8))
    same = isinstance(ivf, faiss.IndexIVFPQFastScan) and ivf.ntotal == len(vectors) == len(lengths)
    if not same or (expected["rows"], expected["dim"]) != vectors.shape:
        raise Conflict("the index file does not hold what its manifest says", remedy=remedies.REBUILD)
    return Shortlist(vectors, expected["metric"], lengths, ivf, setting)


def _padded(vectors: Float32, dim: int) -> Float32:
    """`vectors` (n, d) with zeros up to `dim` numbers, which change no inner product."""
    missing = dim - vectors.shape[1]
    return np.pad(vectors, ((0, 0), (0, missing))) if missing else np.ascontiguousarray(vectors)
