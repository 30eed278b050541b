"""What can be asked of a release, and what that comes to in the space of each feature.

`Query` is the one way in for whoever asks: Python, the command line, a service. A query has parts: items, items to
stay away from, a text, a picture. In a feature's space each part is a vector u of length one, and the query is

    q = mean of u over the parts it is like  -  beta x mean of u over the items it is unlike

(Rocchio 1971, in the form without an original query). Each feature is asked with the parts that it can read: an item
that has a vector of it, a text or a picture where its model reads such. A feature that can read none is refused, and so
is a part that no feature reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from featurestore import remedies
from featurestore.errors import BadInput, NotFound, did_you_mean
from featurestore.index import Index
from featurestore.release import Cell, FeatureMatrix, Release

Mode = Literal["vector", "keyword", "hybrid"]
MODES: tuple[Mode, ...] = get_args(Mode)
GREATEST_K = 10_000
GREATEST_DIVERSE_K = 1_000  # choosing diverse items compares each with all that were chosen before it
GREATEST_WEIGHT = 1e6  # of a feature; the least is one over it
BETA = 0.25  # measured: see docs/similar.md
PREFERRED = ("fused", "text")  # compared by when no feature is asked for, if there
CANCELLED = 1e-6  # length of a combined query below which its direction is rounding

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Image = str | Path | bytes

_REASONS = {
    Cell.NO_INPUT: (
        "has nothing to compute it from, such as no picture or no text",
        "compare by another feature",
    ),
    Cell.ERROR: ("could not be computed", "see why: dualview errors"),
    Cell.ABSENT: ("had not been computed when this release was made", None),
}


class Encoder(Protocol):
    """Makes vectors of texts and pictures; lives on the floor above (`ingest.encode.query.ReleaseEncoder`)."""

    def fitting(self, *, of_text: bool) -> list[str]:
        """Features that a text (or a picture) can ask, best first."""

    def text(self, feature: str, text: str) -> Float32:
        """(dim,) Raises BadInput for a feature that cannot be asked so, or a text without a vector."""

    def image(self, feature: str, image: Image) -> Float32:
        """(dim,) The same of a picture: a path, or a file's bytes."""


@dataclass(frozen=True)
class Query:
    """A question to a release. Raises BadInput where it cannot be meant.

    items: like these; never among the answers. unlike: not like these; neither. text, image: like this.
    features: weight of each feature whose vectors are compared; None for one that fits the query.
    mode: "vector", by cosine; "keyword", by BM25 over titles and texts; "hybrid", both fused by reciprocal rank.
    where: a filter, see `featurestore.filters`. k: 1 to 10,000; fewer answers come where fewer satisfy the filter.
    diversity: 0 for the most relevant, towards 1 for answers that differ from each other. beta: how far to go away
    from `unlike`. explain: give with each answer how its score came about. exact: look at every vector, where an index
    would look at a shortlist.
    """

    items: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    text: str | None = None
    image: Image | None = field(default=None, repr=False)
    features: Mapping[str, float] | None = None
    mode: Mode = "vector"
    where: str | None = None
    k: int = 10
    diversity: float = 0.0
    beta: float = BETA
    explain: bool = False
    exact: bool = False

    def __post_init__(self) -> None:
        check_k(self.k)
        if self.mode not in MODES:
            raise BadInput(f"unknown mode '{self.mode}'", remedy=did_you_mean(self.mode, MODES))
        if not (self.items or self.text is not None or self.image is not None):
            raise BadInput(
                "similar to what? Neither an item, a text nor an image was given",
                remedy="give an ITEM_ID, or --text WORDS, or --image FILE",
            )
        if self.text is not None and not self.text.strip():
            raise BadInput("the query is empty", remedy="give some words")
        if both := set(self.items) & set(self.unlike):
            raise BadInput(
                f"item '{min(both)}' is asked for as like and as unlike", remedy="leave one of the two out"
            )
        if not 0 <= self.diversity <= 1:
            raise BadInput(
                f"diversity is {self.diversity}; it must be from 0 to 1", remedy="0 is none, 0.3 a little"
            )
        if self.diversity and self.k > GREATEST_DIVERSE_K:
            raise BadInput(
                f"k is {self.k:,}; with diversity it is at most {GREATEST_DIVERSE_K:,}",
                remedy="ask for fewer, or without diversity",
            )
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise BadInput(f"beta is {self.beta}; it must be 0 or greater", remedy=f"{BETA} is the usual")
        if self.features is not None:
            check_weights(self.features)
        self._check_mode()

    def _check_mode(self) -> None:
        if self.mode != "vector" and self.text is None:
            raise BadInput(f"mode '{self.mode}' looks for words", remedy="give them: --text WORDS")
        if self.mode == "keyword":
            given = {
                "items": self.items,
                "unlike": self.unlike,
                "an image": self.image is not None,
                "features": self.features,
                "diversity": self.diversity,
            }
            if told := [name for name, value in given.items() if value]:
                raise BadInput(
                    f"mode 'keyword' compares no vectors, and so takes no {' or '.join(told).replace('an ', '')}",
                    remedy="mode hybrid looks for words and compares vectors",
                )


def check_k(k: int) -> None:
    if not 1 <= k <= GREATEST_K:
        raise BadInput(f"k is {k}; it must be from 1 to {GREATEST_K:,}", remedy="give a k in that range")


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse weights that are negative or so great or small that float32 scores lose the order, and those that leave
    nothing to compare by. Raises BadInput.
    """
    for name, weight in weights.items():
        if not (weight == 0 or 1 / GREATEST_WEIGHT <= weight <= GREATEST_WEIGHT):
            raise BadInput(
                f"the weight of feature '{name}' is {weight}; it must be 0, or from {1 / GREATEST_WEIGHT} to "
                f"{GREATEST_WEIGHT:,.0f}",
                remedy="items to stay away from are given as unlike",
            )
    if not any(weights.values()):
        raise BadInput(
            "no feature has a weight above 0, so there is nothing to compare by",
            remedy="give at least one feature a weight",
        )


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


def without_vector(release: Release, feature: str, row: int) -> NotFound:
    """Why the item in `row` cannot be compared by `feature`."""
    reason, remedy = _REASONS[release.cell(feature, row)]
    return NotFound(
        f"item '{release.ids[row]}' has no vector of '{feature}': it {reason}",
        remedy=remedy or remedies.fill_and_publish(release, feature),
    )


def chosen_features(release: Release, query: Query, encoder: Encoder | None) -> dict[str, float]:
    """The features that a query is answered by, with their weights; those of weight 0 are left out.

    Where none was asked for: for items `default_feature`; for a text or a picture the first feature that can be asked
    so; for both the first that reads both, else the first of each.
    """
    if query.features is not None:
        for name in query.features:
            release.declared(name)  # a misspelled name is refused whatever its weight
        return {name: float(weight) for name, weight in query.features.items() if weight}
    asked = [of_text for of_text in (True, False) if (query.text if of_text else query.image) is not None]
    if not asked:
        return {default_feature(release): 1.0}
    fitting = [_encoder(encoder).fitting(of_text=of_text) for of_text in asked]
    for of_text, found in zip(asked, fitting, strict=True):
        if not found:
            raise BadInput(
                f"release {release.name} has no feature that {'a text' if of_text else 'a picture'} can ask",
                remedy="declare one in features.toml, materialize and publish",
            )
    common = [name for name in fitting[0] if all(name in found for found in fitting)]
    return dict.fromkeys(common[:1] or [found[0] for found in fitting], 1.0)


@dataclass(frozen=True, eq=False)
class Asked:
    """A query in the space of one feature.

    vector: (dim,) float32, of any length above 0. read: the parts that it was made of. unread: those that have no
    vector of this feature.
    """

    feature: str
    weight: float
    vector: Float32
    matrix: FeatureMatrix
    index: Index
    complete: bool  # every item has a vector, so that rows of the matrix are rows of the release
    read: tuple[str, ...]
    unread: tuple[str, ...]

    def places(self, rows: npt.ArrayLike) -> Int64:
        """Rows of the matrix for rows of the release; -1 where an item has no vector."""
        return _places(self.matrix, self.complete, rows)

    def rows(self, places: npt.ArrayLike) -> Int64:
        """The way back."""
        found = np.asarray(places, np.int64)
        return found if self.complete else np.asarray(self.matrix.rows[found], np.int64)

    def allowed(self, mask: Bool | None) -> Bool | None:
        """A mask over the release's rows as one over the matrix's."""
        return mask if mask is None or self.complete else mask[self.matrix.rows]

    def parts(self, rows: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(m,) what this feature adds to each row's score: weight x cosine; NaN where the item has no vector."""
        places = self.places(rows)
        there = places >= 0
        found = np.full(len(places), np.nan)
        found[there] = self.weight * self.index.score(self.vector, places[there]).astype(np.float64)
        return found


def ask(release: Release, query: Query, encoder: Encoder | None) -> list[Asked]:
    """The query in the space of each of its features. Raises BadInput, NotFound, ModelUnavailable."""
    like = {item: release.row_of(item) for item in query.items}
    unlike = {item: release.row_of(item) for item in query.unlike}
    weights = chosen_features(release, query, encoder)
    if not like:
        _check_readable(release, query, _encoder(encoder), weights)
    asked = [
        _asked(release, query, encoder, like, unlike, feature, weight) for feature, weight in weights.items()
    ]
    read = {part for one in asked for part in one.read}
    for part in (part for one in asked for part in one.unread):
        if part not in read:
            names = ", ".join(one.feature for one in asked)
            raise BadInput(
                f"{part} cannot be compared by {names}",
                remedy="leave it out, or add a feature that it has or that reads it",
            )
    return asked


def _check_readable(release: Release, query: Query, encoder: Encoder, features: Iterable[str]) -> None:
    """Refuse, before anything is encoded, a feature that can read neither the text nor the picture."""
    given = [of_text for of_text in (True, False) if (query.text if of_text else query.image) is not None]
    readable = {name for of_text in given for name in encoder.fitting(of_text=of_text)}
    for feature in features:
        release.index(feature)
        if feature in readable:
            continue
        if query.text is not None:  # its encoder says best why not
            encoder.text(feature, query.text)
        elif query.image is not None:
            encoder.image(feature, query.image)


def _asked(
    release: Release,
    query: Query,
    encoder: Encoder | None,
    like: dict[str, int],
    unlike: dict[str, int],
    feature: str,
    weight: float,
) -> Asked:
    index, matrix = release.index(feature), release.matrix(feature)
    complete = len(matrix) == release.n_items
    read: list[str] = []
    unread: list[str] = []

    def of_items(rows: dict[str, int]) -> list[Float32]:
        places = _places(matrix, complete, list(rows.values()))
        for item, place in zip(rows, places, strict=True):
            (read if place >= 0 else unread).append(f"item '{item}'")
        return list(index.unit(places[places >= 0]))

    positive = of_items(like)
    for name, value, of_text in (("the text", query.text, True), ("the picture", query.image, False)):
        if value is None:
            continue
        able = _encoder(encoder)
        if feature in able.fitting(of_text=of_text):
            vector = able.text(feature, str(value)) if of_text else able.image(feature, query.image or b"")
            positive.append(np.asarray(vector, np.float32))
            read.append(name)
        else:
            unread.append(name)
    if not positive:
        raise without_vector(release, feature, next(iter(like.values())))
    negative = of_items(unlike)
    if len(positive) == 1 and not negative:
        vector = positive[0]
    else:
        vector = _combined(positive, negative, query.beta)
    if not vector.any():
        raise BadInput(
            f"what is asked for cancels out by '{feature}': no direction is left",
            remedy="ask with other items, or a smaller beta",
        )
    return Asked(feature, weight, vector, matrix, index, complete, tuple(read), tuple(unread))


def _combined(positive: list[Float32], negative: list[Float32], beta: float) -> Float32:
    """Mean of directions less beta x mean of directions; zeros where nothing but rounding is left."""
    combined = np.mean([_unit(vector) for vector in positive], axis=0)
    if negative:
        combined = combined - beta * np.mean([_unit(vector) for vector in negative], axis=0)
    left = float(np.linalg.norm(combined)) > CANCELLED
    return np.asarray(combined if left else np.zeros_like(combined), np.float32)


def _places(matrix: FeatureMatrix, complete: bool, rows: npt.ArrayLike) -> Int64:
    wanted = np.asarray(rows, np.int64)
    if complete or not len(matrix):
        return wanted if complete else np.full(len(wanted), -1, np.int64)
    places = np.minimum(np.searchsorted(matrix.rows, wanted.astype(matrix.rows.dtype)), len(matrix) - 1)
    return np.where(matrix.rows[places] == wanted, places, -1).astype(np.int64)


def _unit(vector: npt.ArrayLike) -> npt.NDArray[np.float64]:
    wide = np.asarray(vector, np.float64)
    unit: npt.NDArray[np.float64] = wide / np.linalg.norm(wide)
    return unit


def _encoder(encoder: Encoder | None) -> Encoder:
    if encoder is None:
        raise BadInput(
            "a text or a picture needs the store's encoders, which are not here",
            remedy="ask the store: Store.similar; or ask with items",
        )
    return encoder
