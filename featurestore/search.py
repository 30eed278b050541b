"""The nearest items to an item or to a vector, by one feature of a release.

`nearest` is the lean path: rows in, rows and scores out. `similar` makes a table of it. Texts and pictures come as
vectors: the encoders that make them live on the floor above.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.errors import BadInput, NotFound
from featurestore.release import Cell, Release

SCORE = "score"
PREFERRED = ("fused", "text")  # compared by when no feature is asked for, if there
GREATEST_K = 10_000

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_REASONS = {
    Cell.NO_INPUT: (
        "has nothing to compute it from, such as no picture or no text",
        "compare by another feature",
    ),
    Cell.ERROR: ("could not be computed", "see why: dualview errors"),
    Cell.ABSENT: (
        "had not been computed when this release was made",
        "dualview materialize, then publish again",
    ),
}


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
) -> tuple[Float32, Int32]:
    """The same without names: scores (n,) float32 and rows of the release (n,) int32, n <= k."""
    if not 1 <= k <= GREATEST_K:
        raise BadInput(f"k is {k}; it must be from 1 to {GREATEST_K:,}", remedy="give a k in that range")
    index, matrix = release.index(feature), release.matrix(feature)
    complete = len(matrix) == release.n_items  # every item has a vector: rows of both are the same
    allowed = None
    if where is not None:
        mask = release.mask(where)
        allowed = mask if complete else mask[matrix.rows]
    if row is not None:
        place = row if complete else matrix.place_of(row)
        if place < 0:
            raise _without_vector(release, feature, row)
        scores, rows = index.search_row(place, k, allowed)
    else:
        assert vector is not None
        query = np.asarray(vector, np.float32)
        if query.shape not in ((index.dim,), (1, index.dim)):
            raise BadInput(
                f"the query has shape {query.shape}, vectors of '{feature}' have {index.dim} numbers",
                remedy="encode it with the model that made the feature",
            )
        both = index.search(query, k, allowed)
        kept = both[1][0] >= 0
        scores, rows = both[0][0][kept], both[1][0][kept]
    return scores, rows if complete else matrix.rows[rows]


def default_feature(release: Release) -> str:
    """What items are compared by unless a feature is asked for: "fused", else "text", else the first with vectors."""
    known = release.searchable
    for name in (*PREFERRED, *known[:1]):
        if name in known:
            return name
    raise NotFound(
        f"release {release.name} has no feature that items can be compared by",
        remedy="declare one in features.toml, materialize it and publish again",
    )


def _without_vector(release: Release, feature: str, row: int) -> NotFound:
    reason, remedy = _REASONS[release.cell(feature, row)]
    return NotFound(f"item '{release.ids[row]}' has no vector of '{feature}': it {reason}", remedy=remedy)


def _table(release: Release, scores: Float32, rows: Int32) -> pa.Table:
    picked = release.shown.take(pa.array(rows))
    columns = [picked.column(0), pa.array(scores), *picked.columns[1:]]
    return pa.Table.from_arrays(columns, schema=_schema(release))


def _schema(release: Release) -> pa.Schema:
    """Of an answer. An attribute called "score" makes way."""
    first, *rest = release.shown.schema
    rest = [f.with_name(f"catalogue.{SCORE}") if f.name == SCORE else f for f in rest]
    return pa.schema([first, pa.field(SCORE, pa.float32()), *rest])
