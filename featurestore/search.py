"""The nearest items to whatever is asked: one way in for Python, the command line and services.

`search` answers a `Query`. `similar` and `nearest` are the lean path that most queries take: one item or one vector,
one feature. `nearest` gives rows and scores, the others a table.

What a score is: by vectors, the sum of weight x cosine, which with one feature of weight 1 is the cosine; by keywords,
BM25; both fused, the sum of 1 / (60 + rank), of the item's rank by vectors and its rank by words. A diverse answer
keeps these scores but not their order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore import blend, explain, rerank
from featurestore.errors import BadInput
from featurestore.query import (
    Asked,
    Bool,
    Encoder,
    Int64,
    Query,
    ask,
    check_k,
    chosen_features,
    default_feature,
    without_vector,
)
from featurestore.release import Release

SCORE = "score"
METADATA = b"dualview.answer"  # of an answer's schema: how it came about, JSON
WINDOW, LEAST_WINDOW = 10, 100  # fused are the best 10 k of each ranking, and at least 100

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


def similar(
    release: Release,
    *,
    item: str | None = None,
    vector: npt.ArrayLike | None = None,
    feature: str | None = None,
    where: str | None = None,
    k: int = 10,
) -> pa.Table:
    """The k items nearest to an item, which is never among them, or to a vector of the feature's model.

    feature: whose vectors to compare, by cosine; without it `default_feature`. where: a filter, see
    `featurestore.filters`. k: 1 to 10,000; fewer rows come where fewer satisfy the filter.

    Returns item_id, score (float32, best first, ties by id), then the catalogue's columns.
    Raises NotFound for an unknown item or feature, or an item without a vector; BadInput for a bad vector, filter or k.
    """
    if (item is None) == (vector is None):
        raise BadInput("similar takes an item or a vector, one of the two")
    chosen = default_feature(release) if feature is None else feature
    release.facts(chosen)  # a feature that is not there is said before an item that is not
    scores, rows = (
        nearest(release, chosen, row=release.row_of(item), where=where, k=k)
        if item is not None
        else nearest(release, chosen, vector=vector, where=where, k=k)
    )
    return _table(release, scores, rows)


def nearest(
    release: Release,
    feature: str,
    *,
    row: int | None = None,
    vector: npt.ArrayLike | None = None,
    where: str | None = None,
    k: int = 10,
    exact: bool = False,
) -> tuple[Float32, Int32]:
    """The same without names: scores (n,) float32 and rows of the release (n,) int32, n <= k.

    exact: look at every vector, where the index would look at a shortlist.
    """
    check_k(k)
    index, matrix = release.index(feature), release.matrix(feature)
    complete = len(matrix) == release.n_items  # every item has a vector: rows of both are the same
    allowed = None
    if where is not None:
        mask = release.mask(where)
        allowed = mask if complete else mask[matrix.rows]
    if row is not None:
        place = row if complete else matrix.place_of(row)
        if place < 0:
            raise without_vector(release, feature, row)
        scores, rows = index.search_row(place, k, allowed, exact=exact)
    else:
        assert vector is not None
        query = np.asarray(vector, np.float32)
        if query.shape not in ((index.dim,), (1, index.dim)):
            raise BadInput(
                f"the query has shape {query.shape}, vectors of '{feature}' have {index.dim} numbers",
                remedy="encode it with the model that made the feature",
            )
        both = index.search(query, k, allowed, exact=exact)
        kept = both[1][0] >= 0
        scores, rows = both[0][0][kept], both[1][0][kept]
    return scores, rows if complete else matrix.rows[rows]


def nearest_rows(
    release: Release, feature: str, rows: Sequence[int], *, where: str | None = None, k: int = 10
) -> list[tuple[Float32, Int32]]:
    """What `nearest` answers for each item of `rows`, by one search for all: cheaper than one each from eight on."""
    check_k(k)
    index, matrix = release.index(feature), release.matrix(feature)
    complete = len(matrix) == release.n_items
    allowed = None
    if where is not None:
        mask = release.mask(where)
        allowed = mask if complete else mask[matrix.rows]
    places = list(rows) if complete else [matrix.place_of(row) for row in rows]
    if any(place < 0 for place in places):
        raise without_vector(release, feature, next(r for r, at in zip(rows, places, strict=True) if at < 0))
    if len(places) == 1:
        found = [index.search_row(places[0], k, allowed)]
    else:
        found = index.search_rows(places, k, allowed)
    return found if complete else [(scores, matrix.rows[at]) for scores, at in found]


def search(release: Release, query: Query, encoder: Encoder | None = None) -> pa.Table:
    """Answer a query: item_id, score (float32), then the catalogue's columns, best first, ties by id.

    encoder: makes vectors of texts and pictures, where the query has such. With `query.explain`, columns follow the
    score that say how it came about, and `facts` of the answer what holds for all of it.

    Raises BadInput, NotFound, and what the encoder raises.
    """
    allowed = None if query.where is None else release.mask(query.where)
    if query.mode == "keyword":
        answer = _by_words(release, query, allowed)
    elif (lean := _lean(release, query, encoder)) is not None:
        answer = lean
    else:
        asked = ask(release, query, encoder)
        answer = (_by_vectors if query.mode == "vector" else _by_both)(release, query, asked, allowed)
    if not len(answer.rows):
        answer.notes.append(explain.nothing(query, allowed))
    told: dict[str, Any] = {"notes": answer.notes} if answer.notes else {}
    if not query.explain:
        return _table(release, answer.scores, answer.rows, told=told)
    told = explain.told(release, query, answer.asked, allowed) | answer.facts | told
    return _table(release, answer.scores, answer.rows, answer.columns, told)


def facts(answer: pa.Table) -> dict[str, Any]:
    """What an answer says of itself: "notes" for the user, where there are some; with `explain` also the release,
    the features with recipe, index and route, the words, and how many rows a filter left.
    """
    told: dict[str, Any] = json.loads((answer.schema.metadata or {}).get(METADATA, b"{}"))
    return told


@dataclass
class _Answer:
    """Scores and rows in the order of the answer, columns that explain them, and facts."""

    scores: Float32
    rows: npt.NDArray[Any]
    asked: list[Asked] = field(default_factory=list)
    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)  # NaN and -1: there is none
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


# ---- by vectors


def _lean(release: Release, query: Query, encoder: Encoder | None) -> _Answer | None:
    """The answer to one part by one feature of weight 1; None for any other query."""
    parts = len(query.items) + (query.text is not None) + (query.image is not None)
    if parts != 1 or query.unlike or query.mode != "vector" or query.diversity:
        return None
    features = chosen_features(release, query, encoder)
    ((feature, weight), *more) = features.items()
    if more or weight != 1:
        return None
    release.facts(feature)  # a feature that is not there is said before an item that is not
    asked = ask(release, query, encoder) if query.explain or not query.items else []
    row = release.row_of(query.items[0]) if query.items else None
    vector = None if query.items else asked[0].vector
    scores, rows = nearest(
        release, feature, row=row, vector=vector, where=query.where, k=query.k, exact=query.exact
    )
    return _Answer(scores, rows, asked, {f"part.{feature}": scores})


def _by_vectors(release: Release, query: Query, asked: list[Asked], allowed: Bool | None) -> _Answer:
    pool = rerank.pool_size(query.k) if query.diversity else query.k
    found = blend.top(asked, pool, allowed, _own(release, query), exact=query.exact)
    answer = _Answer(found.scores, found.rows, asked, _part_columns(asked, found.parts))
    return _diverse(answer, asked, query, found.scores) if query.diversity else answer


def _by_both(release: Release, query: Query, asked: list[Asked], allowed: Bool | None) -> _Answer:
    """Ranks by vectors and ranks by words, fused. Either ranking is read down to a window."""
    assert query.text is not None
    pool = rerank.pool_size(query.k) if query.diversity else query.k
    window = max(LEAST_WINDOW, WINDOW * query.k)
    own = _own(release, query)
    by_vectors = blend.top(asked, window, allowed, own, exact=query.exact).rows
    words, by_words = release.words.search(query.text, window, allowed, own)
    rows, parts = rerank.reciprocal_rank([by_vectors, by_words])
    rows, parts = rows[:pool], parts[:pool]
    cosines = blend.parts(asked, rows)
    answer = _Answer(parts.sum(axis=1).astype(np.float32), rows, asked)
    answer.columns = {
        "vector_rank": _ranks(by_vectors, rows),
        "vector_rrf": parts[:, 0],
        "keyword_rank": _ranks(by_words, rows),
        "keyword_rrf": parts[:, 1],
        "vector_score": blend.score(cosines),
        **_part_columns(asked, cosines),
        "bm25": _values(by_words, words, rows),
    }
    answer.facts["fusion"] = {"method": "reciprocal rank", "k": rerank.RRF_K, "window": window}
    if not len(by_words) and (unknown := release.words.unknown(query.text)):
        answer.notes.append(
            f"no item has a word of the text ({explain.listed(unknown)}): answered by vectors alone"
        )
    greatest = 2 / (rerank.RRF_K + 1)  # first in both rankings: relevance is brought to 0..1, as cosines are
    return _diverse(answer, asked, query, parts.sum(axis=1) / greatest) if query.diversity else answer


def _by_words(release: Release, query: Query, allowed: Bool | None) -> _Answer:
    assert query.text is not None
    index = release.words
    if not index.known(query.text):
        unknown = index.unknown(query.text)
        near = [f"'{word}'" for word in map(index.near, unknown) if word]
        said = explain.listed(unknown) or f"there is no word in '{query.text}'"
        raise BadInput(
            f"no item of release {release.name} has a word of the query: {said}",
            remedy=f"did you mean {', '.join(near)}?" if near else "ask in other words, or by mode vector",
        )
    scores, rows = index.search(query.text, query.k, allowed)
    return _Answer(scores, rows)


def _diverse(answer: _Answer, asked: list[Asked], query: Query, relevance: npt.ArrayLike) -> _Answer:
    """The k of a pool that are relevant and differ from each other."""
    order = rerank.diverse(relevance, blend.directions(asked, answer.rows), query.k, query.diversity)
    columns = {name: column[order] for name, column in answer.columns.items()}
    columns["relevance_rank"] = order + 1
    facts = answer.facts | {"diversity": {"diversity": query.diversity, "pool": len(answer.rows)}}
    return _Answer(answer.scores[order], answer.rows[order], asked, columns, facts, answer.notes)


def _own(release: Release, query: Query) -> Int64:
    """Rows of the items that a query names."""
    return np.asarray([release.row_of(item) for item in (*query.items, *query.unlike)], np.int64)


# ---- explaining


def _part_columns(asked: list[Asked], parts: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[Any]]:
    return {f"part.{one.feature}": column for one, column in zip(asked, parts.T, strict=True)}


def _ranks(ranking: npt.ArrayLike, rows: Int64) -> Int64:
    """Rank of each of `rows`, from 1; -1 where the ranking does not hold it."""
    at = {int(row): rank for rank, row in enumerate(np.asarray(ranking), start=1)}
    return np.asarray([at.get(int(row), -1) for row in rows], np.int64)


def _values(ranking: npt.ArrayLike, values: Float32, rows: Int64) -> npt.NDArray[np.float64]:
    at = dict(zip(np.asarray(ranking).tolist(), values.tolist(), strict=True))
    return np.asarray([at.get(int(row), np.nan) for row in rows], np.float64)


# ---- tables


def _table(
    release: Release,
    scores: Float32,
    rows: npt.NDArray[Any],
    columns: dict[str, npt.NDArray[Any]] | None = None,
    told: dict[str, Any] | None = None,
) -> pa.Table:
    """An answer with the catalogue's columns. One of them that is called like a column of ours makes way."""
    ours = {SCORE: pa.array(scores, pa.float32())}
    ours |= {name: _column(values) for name, values in (columns or {}).items()}
    picked = release.shown.take(pa.array(rows))
    first, *rest = picked.schema
    fields = [
        first,
        *(pa.field(name, values.type) for name, values in ours.items()),
        *(f.with_name(f"catalogue.{f.name}") if f.name in ours else f for f in rest),
    ]
    schema = pa.schema(fields, metadata={METADATA: json.dumps(told)} if told else None)
    return pa.Table.from_arrays([picked.column(0), *ours.values(), *picked.columns[1:]], schema=schema)


def _column(values: npt.NDArray[Any]) -> pa.Array:
    """Ranks, of which -1 is none, or numbers, of which NaN is none."""
    missing = values < 0 if np.issubdtype(values.dtype, np.integer) else np.isnan(values)
    return pa.array(values, mask=missing)
