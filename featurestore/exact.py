"""What every index over vectors is: exact scores, checked queries, and an answer from all scores by a matrix product.

What is promised. Every score is the inner product accumulated in double precision and rounded to float32, so it is
the same whatever the batch, the route, the kind of index or the number of threads. Answers come best first, and rows of
equal score in row order. Rows are given in the order of sorted item ids, so that ties are broken by id.

How a product is exact. A float32 inner product of d terms, summed in whatever order, is at most g * |x| * |y| off, with
g = d u / (1 - d u) and u = 2^-24. Candidates within that margin of the k-th are scored again in double.

`Index` alone sees every score of every query. The kinds that are faster override `_fast`, which fills in what it can
answer and gives back the queries that it cannot: see `featurestore.index` and `featurestore.ann`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from featurestore.errors import BadInput

Metric = Literal["cosine", "ip"]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

GATHERED = 0.2  # share of allowed rows up to which a product gathers them
BLOCK = 1 << 23  # scores held at a time by the matrix product: 32 MB
RUN = 64  # scores of which only the best is looked at first
ROWS = 8192  # rows worked on at a time where a copy in double is made
UNIT_ROUNDOFF = 2.0**-24
SMALLEST = 2.0**-149  # float32 underflow: what a product may be off by when it vanishes
GREATEST = 1e19  # length of a vector from which on an inner product may overflow


@dataclass(frozen=True)
class Asked:
    """A checked call: what the routes of an index are given.

    queries: (q, dim) float32, of length one under "cosine". allowed: (n,) bool, of which `count` are true.
    left_out: for each query, rows that are not answered.
    """

    queries: Float32
    k: int
    allowed: Bool | None
    count: int
    left_out: list[Int64] | None


@dataclass(frozen=True)
class Answer:
    """What is filled in: scores (q, k) float32 and rows (q, k) int32; -inf and -1 where fewer rows are left."""

    scores: Float32
    rows: Int32

    def put(self, query: int, rows: Int64, scores: Float32) -> None:
        self.scores[query, : len(rows)], self.rows[query, : len(rows)] = scores, rows


@dataclass(frozen=True, eq=False)
class Index:
    """An index over n vectors; a row of it is a row of the matrix that it was built from.

    vectors: (n, dim) float32; not to be written to. lengths: (n,) float64 Euclidean lengths where the metric is
    "cosine" and `vectors` are not of length one; else None.
    """

    vectors: Float32
    metric: Metric
    lengths: Float64 | None

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def exact(self) -> bool:
        """Whether every answer is the true one, whatever is asked."""
        return True

    def search(
        self,
        queries: npt.ArrayLike,
        k: int,
        allowed: Bool | None = None,
        exclude: Sequence[npt.ArrayLike] | None = None,
        *,
        exact: bool = False,
    ) -> tuple[Float32, Int32]:
        """The k best rows of each query.

        queries: (q, dim) or (dim,), of any length under "cosine". allowed: (n,) bool, the rows that may be answered.
        exclude: for each query, the rows that it must not be answered with (its own, those already seen).
        exact: look at every row, where the index would not.

        Returns scores (q, k) float32 and rows (q, k) int32; where fewer rows are left, -inf and -1.
        Raises BadInput for queries of another size, not finite, or zero under "cosine".
        """
        asked = self._prepared(queries)
        if exclude is not None and len(exclude) != len(asked):
            raise BadInput(f"{len(exclude)} lists of rows to exclude for {len(asked)} queries")
        left_out = None if exclude is None else [np.asarray(rows, np.int64) for rows in exclude]
        return self._answer(asked, k, allowed, left_out, exact)

    def search_row(
        self, row: int, k: int, allowed: Bool | None = None, *, exact: bool = False
    ) -> tuple[Float32, Int32]:
        """The k best rows for the vector in `row`, which is not among them: scores and rows (n,), n <= k.

        The same as `search` with that vector, but that it is taken as it is: not checked or normalised once more.
        """
        scores, rows = self._answer(self.unit([row]), k, allowed, [np.array([row])], exact)
        kept = rows[0] >= 0
        return scores[0][kept], rows[0][kept]

    def search_rows(
        self, rows: npt.ArrayLike, k: int, allowed: Bool | None = None, *, exact: bool = False
    ) -> list[tuple[Float32, Int32]]:
        """What `search_row` answers for each of `rows` (q,), by one search for all."""
        chosen = np.asarray(rows, np.int64)
        scores, found = self._answer(self.unit(chosen), k, allowed, list(chosen[:, None]), exact)
        kept = found >= 0
        return [(s[there], r[there]) for s, r, there in zip(scores, found, kept, strict=True)]

    def score(self, query: npt.ArrayLike, rows: npt.ArrayLike) -> Float32:
        """Exact scores (m,) of given rows for one query (dim,), rounded as `search` rounds them."""
        chosen = np.asarray(rows, np.int64)
        return self._exact(self._prepared(query)[0], chosen)

    def products(self, query: npt.ArrayLike, rows: Int64 | None = None) -> tuple[Float32, float]:
        """Scores of every row, or of given ones, in single precision, and how far each may be from the exact one."""
        asked = self._prepared(query)[0]
        near: Float32 = (self.vectors if rows is None else self.vectors[rows]) @ asked
        if self._scale is not None:
            near *= self._scale if rows is None else self._scale[rows]
        return near, self._margin(asked)

    def unit(self, rows: npt.ArrayLike) -> Float32:
        """Vectors of given rows, (m, dim): of length one under "cosine", as given under "ip"."""
        chosen = np.asarray(rows, np.int64)
        vectors: Float32 = self.vectors[chosen]
        return vectors if self.lengths is None else normalised(vectors, self.lengths[chosen])

    def _answer(
        self, asked: Float32, k: int, allowed: Bool | None, left_out: list[Int64] | None, exact: bool
    ) -> tuple[Float32, Int32]:
        """As `search`, for queries that were prepared."""
        if k < 1:
            raise BadInput(f"k is {k}; it must be at least 1")
        if allowed is not None and allowed.shape != (len(self),):
            raise BadInput(f"the mask has shape {allowed.shape}, the index has {len(self)} rows")
        if allowed is not None and allowed.dtype != np.bool_:
            raise BadInput(f"the mask is {allowed.dtype}, not bool")
        answer = Answer(np.full((len(asked), k), -np.inf, np.float32), np.full((len(asked), k), -1, np.int32))
        if len(self):
            count = len(self) if allowed is None else int(np.count_nonzero(allowed))
            call = Asked(asked, k, allowed, count, left_out)
            left = range(len(asked)) if exact else self._fast(call, answer)
            if left:
                self._by_product(call, left, answer)
        return answer.scores, answer.rows

    def _fast(self, asked: Asked, answer: Answer) -> Sequence[int]:
        """Fill in what is answered without looking at every row; returns the queries that are left."""
        return range(len(asked.queries))

    def _prepared(self, queries: npt.ArrayLike) -> Float32:
        asked = np.atleast_2d(np.asarray(queries, np.float32))
        if asked.ndim != 2 or asked.shape[1] != self.dim:
            raise BadInput(f"queries have shape {asked.shape}, the index holds vectors of {self.dim} numbers")
        lengths = lengths_of(asked)
        if not (lengths < GREATEST).all():
            raise BadInput("a query holds NaN or an infinite or too large number")
        if self.metric == "ip":
            return np.ascontiguousarray(asked)
        if not lengths.all():
            raise BadInput(
                "a query is all zeros and has no direction", remedy="ask with another text or picture"
            )
        return normalised(asked, lengths)

    def _by_product(self, asked: Asked, which: Sequence[int], answer: Answer) -> None:
        """Fill in the answers of queries `which` from all their scores."""
        allowed, k = asked.allowed, asked.k
        gathered = None
        if allowed is not None and asked.count <= GATHERED * len(self):
            gathered = np.flatnonzero(allowed)
        vectors = self.vectors if gathered is None else self.vectors[gathered]
        scale = self._scale if gathered is None or self._scale is None else self._scale[gathered]
        step = max(1, BLOCK // max(1, len(vectors)))
        for start in range(0, len(which), step):
            block = list(which[start : start + step])
            near = asked.queries[block] @ vectors.T  # (block, rows)
            if scale is not None:
                near *= scale
            if gathered is None and allowed is not None:
                np.copyto(near, -np.inf, where=~allowed)
            for line, query in zip(near, block, strict=True):
                if asked.left_out is not None and len(asked.left_out[query]):
                    line[_places(asked.left_out[query], gathered, len(line))] = -np.inf
                candidates = self._possible(line, k, self._margin(asked.queries[query]))
                if gathered is not None:
                    candidates = gathered[candidates]
                answer.put(query, *self._rank(asked.queries[query], candidates, k))

    @staticmethod
    def _possible(line: Float32, k: int, margin: float) -> Int64:
        """Places in `line`, scores in float32, of all that may be among the k best; -inf is none."""
        if k >= len(line):
            return np.flatnonzero(line > -np.inf)
        places: Int64 | None = None
        if RUN * k < len(line):  # the k-th of the runs' best is reached by k places: most others are below
            whole = len(line) // RUN * RUN
            places = np.flatnonzero(line >= _bound(line[:whole].reshape(-1, RUN).max(axis=1), k, margin))
            line = line[places]
        found = np.flatnonzero((line >= _bound(line, k, margin)) & (line > -np.inf))
        return found if places is None else places[found]

    @cached_property
    def _scale(self) -> Float32 | None:
        """What a product with `vectors` is multiplied by: one over their lengths."""
        return None if self.lengths is None else (1 / np.asarray(self.lengths)).astype(np.float32)

    def _margin(self, query: Float32) -> float:
        """How far a float32 score of this query can be from the exact one, rounded to float32."""
        if self.metric == "cosine":
            return self._unit_margin
        return self._unit_margin * float(lengths_of(query[None])[0]) + self.dim * SMALLEST

    @cached_property
    def _unit_margin(self) -> float:
        """The same of a query of length one, and a little over. Six roundings come from lengths."""
        terms = (self.dim + 8) * UNIT_ROUNDOFF
        lost = self.dim * SMALLEST
        if self.lengths is not None and len(self):
            lost /= min(1.0, float(self.lengths.min()))
        return terms / (1 - terms) * self._longest * (1 + 1e-6) + lost

    @cached_property
    def _longest(self) -> float:
        """The greatest length of a vector: what the rounding margin is proportional to."""
        if self.metric == "cosine" or not len(self):
            return 1.0 + 1e-6
        parts = (self.vectors[start : start + ROWS] for start in range(0, len(self), ROWS))
        return max(float(lengths_of(part).max()) for part in parts)

    def _rank(self, query: Float32, candidates: Int64, k: int) -> tuple[Int64, Float32]:
        """The best k of `candidates` by exact score, then row. Each is summed alone, alike wherever it stands."""
        exact = self._exact(query, candidates)
        order = np.lexsort((candidates, -exact))[:k]
        return candidates[order], exact[order]

    def _exact(self, query: Float32, rows: Int64) -> Float32:
        """Exact scores of `rows` for a prepared query, a block at a time."""
        wide = query.astype(np.float64)
        parts = [
            np.vecdot(self.unit(rows[start : start + ROWS]).astype(np.float64), wide)
            for start in range(0, max(1, len(rows)), ROWS)
        ]
        exact: Float32 = (parts[0] if len(parts) == 1 else np.concatenate(parts)).astype(np.float32)
        return exact


def lengths_of(vectors: Float32) -> Float64:
    """(n,) Euclidean lengths, in double: squares neither overflow nor vanish."""
    wide = vectors.astype(np.float64)
    lengths: Float64 = np.sqrt(np.vecdot(wide, wide))
    return lengths


def normalised(vectors: Float32, lengths: Float64) -> Float32:
    """`vectors` (n, dim) over their lengths (n,), divided in double and rounded once."""
    unit: Float32 = (vectors / lengths[:, None]).astype(np.float32)
    return unit


def checked_lengths(vectors: Float32, start: int = 0, *, directed: bool = True) -> Float64:
    """Lengths of (n, dim) vectors of which the first is number `start`, each with a finite one.

    Raises BadInput that names the first bad vector; with `directed`, one that is all zeros is bad too.
    """
    lengths = lengths_of(vectors)
    if not (lengths < GREATEST).all():
        bad = start + int(np.argmin(lengths < GREATEST))
        raise BadInput(f"vector {bad} holds NaN or a too large number")
    if directed and not lengths.all():
        bad = start + int(np.argmin(lengths))
        raise BadInput(f"vector {bad} is all zeros and has no direction", remedy="leave it out")
    return lengths


def without(rows: Int64, left_out: Int64) -> Int64:
    """`rows` in their order, but for those in `left_out`."""
    if len(left_out) == 1:  # a query's own row: by far the most common, and five times cheaper so
        kept: Int64 = rows[rows != left_out[0]]
    else:
        kept = rows[~np.isin(rows, left_out)]
    return kept


def _bound(scores: Float32, k: int, margin: float) -> float:
    """What a float32 score must be at least for its exact one to reach the k-th best of `scores`."""
    kth = float(np.partition(scores, len(scores) - k)[len(scores) - k])
    return float(np.nextafter(np.float32(kth - 2 * margin), np.float32(-np.inf)))


def _places(rows: Int64, gathered: Int64 | None, count: int) -> Int64:
    """Where `rows` stand among the gathered ones; those that are not there, or are padding (-1), are left out."""
    if gathered is None:
        return rows[(rows >= 0) & (rows < count)]
    if not count:
        return rows[:0]
    places = np.minimum(np.searchsorted(gathered, rows), count - 1)
    found: Int64 = places[gathered[places] == rows]
    return found


def faiss_module() -> Any:
    """FAISS, imported when it is used."""
    import faiss

    return faiss
