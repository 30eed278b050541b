"""A feature's vectors laid out in two dimensions, for the map of the catalogue.

`pca` is linear: the two directions in which the vectors differ most (scikit-learn's PCA). `neighbours` keeps who is
near whom and says nothing of distances between groups: t-SNE (van der Maaten & Hinton 2008; scikit-learn's Barnes-Hut)
of at most 2,000 landmarks, and every other item at the weighted mean of the landmarks that are nearest to its vector,
so that a map of 100,000 items takes seconds more than one of 2,000. Both see directions only, as the search does, and
give the same map each time.

A map is kept in STORE/cache/maps under the hash of the vectors it was made of: never out of date, erased by `gc` and
`forget` as all of cache/ is. Of a store that may only be read they are kept in memory, the last few.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from featurestore import files
from featurestore.errors import BadInput, did_you_mean
from featurestore.release import Release

Float32 = npt.NDArray[np.float32]
Layout = Literal["pca", "neighbours"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

LANDMARKS = 2_000
NEAREST = 4  # landmarks that place an item
FITTED = 100_000  # vectors that PCA is fitted on, at most
ROWS = 20_000  # vectors that are worked on at a time
FEWER = 50  # dimensions that t-SNE and the search for landmarks see
CODE = 1  # part of a kept map's name; raised when a map comes out otherwise


REMEMBERED = 8  # maps of stores that cannot be written
_unwritten: dict[Path, tuple[Float32, float | None]] = {}


@dataclass(frozen=True, eq=False)
class CatalogueMap:
    """points: (n, 2) float32 from -1 to 1, one scale on both axes. rows: (n,) int32, each one's row in the release.

    explained: share of the variance that the two directions of `pca` hold; None of `neighbours`.
    """

    points: Float32
    rows: npt.NDArray[np.int32]
    explained: float | None


def catalogue_map(release: Release, feature: str, layout: Layout = "pca") -> CatalogueMap:
    """The map of a published feature, computed unless it is kept. Raises NotFound, BadInput for one without one vector
    an item or an unknown layout.
    """
    if layout not in LAYOUTS:
        raise BadInput(f"unknown layout '{layout}'", remedy=did_you_mean(layout, LAYOUTS))
    if feature not in release.searchable:
        release.index(feature)  # says why not
    matrix = release.matrix(feature)
    rows = matrix.rows
    source = release.facts(feature)["files"]["values"]["derived"]
    kept = release.root / "cache" / "maps" / f"{source}-{layout}-{CODE}.npy"
    with suppress(OSError, ValueError):  # not there, or not whole
        stored = np.load(kept, allow_pickle=False)
        if stored.shape == (len(rows) + 1, 2):
            return CatalogueMap(stored[1:], rows, _share(stored[0, 0]))
    if (unwritten := _unwritten.get(kept)) is not None:
        return CatalogueMap(unwritten[0], rows, unwritten[1])  # the same vectors may be other rows by now
    points, explained = project(np.asarray(matrix.values), layout)
    about = np.array([[np.nan if explained is None else explained, 0]], np.float32)
    try:
        with files.replacing(kept) as aside, aside.open("wb") as file:
            np.save(file, np.concatenate([about, points]), allow_pickle=False)
    except OSError:
        if len(_unwritten) >= REMEMBERED:
            _unwritten.pop(next(iter(_unwritten)))
        _unwritten[kept] = points, explained
    return CatalogueMap(points, rows, explained)


def project(vectors: Float32, layout: Layout) -> tuple[Float32, float | None]:
    """(n, d) to (n, 2) within -1 to 1, and the share of the variance that PCA explains."""
    n, d = vectors.shape
    if n < 3 or d < 2:
        flat = np.zeros((n, 2), np.float32)
        flat[:, : min(d, 2)] = vectors[:, :2]
        return _scaled(flat), None
    fewer, explained = _fewer(vectors)
    if not _spread(fewer):  # all alike: there is nothing to lay out
        return np.zeros((n, 2), np.float32), None
    if layout == "pca" or n < 8:
        return _scaled(fewer[:, :2]), explained
    return _scaled(_neighbours(fewer)), None


def _fewer(vectors: Float32) -> tuple[Float32, float]:
    """The leading directions of the vectors' directions, a part of the rows at a time."""
    from sklearn.decomposition import PCA

    n, d = vectors.shape
    fitted = _unit(vectors[np.unique(np.linspace(0, n - 1, min(n, FITTED)).astype(np.int64))])
    with np.errstate(invalid="ignore"):  # the variance of vectors that are all alike is nothing
        pca = PCA(min(FEWER, d, len(fitted)), svd_solver="covariance_eigh").fit(fitted)
    parts = [pca.transform(_unit(vectors[at : at + ROWS])) for at in range(0, n, ROWS)]
    return np.concatenate(parts).astype(np.float32), float(pca.explained_variance_ratio_[:2].sum())


def _neighbours(fewer: Float32) -> Float32:
    """t-SNE of some, and the others among those that they are nearest to."""
    from sklearn.manifold import TSNE

    n = len(fewer)
    chosen = np.sort(np.random.default_rng(0).permutation(n)[:LANDMARKS])
    landmarks = fewer[chosen]
    if not _spread(landmarks):  # t-SNE would divide by it
        return fewer[:, :2]
    tsne = TSNE(perplexity=min(30.0, len(chosen) / 4), init="pca", random_state=0, max_iter=500)
    places = np.asarray(tsne.fit_transform(landmarks), np.float32)
    if len(chosen) == n:
        return places
    points = np.concatenate([_among(fewer[at : at + ROWS], landmarks, places) for at in range(0, n, ROWS)])
    points[chosen] = places
    return points


def _spread(points: Float32) -> bool:
    """Whether directions of unit vectors differ by more than rounding along the first of them."""
    return bool(np.ptp(points[:, 0]) > 1e-5)


def _among(rows: Float32, landmarks: Float32, places: Float32) -> Float32:
    """(m, 2): each row at the mean of its nearest landmarks, the nearer the heavier."""
    squares = (rows**2).sum(1)[:, None] - 2 * rows @ landmarks.T + (landmarks**2).sum(1)
    near = np.argpartition(squares, NEAREST, axis=1)[:, :NEAREST]
    distance = np.maximum(np.take_along_axis(squares, near, axis=1), 1e-9)
    weight = 1 / distance
    weight /= weight.sum(1, keepdims=True)
    return np.asarray((places[near] * weight[:, :, None]).sum(1), np.float32)


def _unit(vectors: Float32) -> Float32:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float32 = vectors / np.maximum(length, 1e-12)
    return unit


def _scaled(points: Float32) -> Float32:
    """Centred, within -1 to 1, both axes by one factor."""
    if not len(points):
        return points.astype(np.float32)
    centred = points - (points.max(0) + points.min(0)) / 2
    return np.asarray(centred / max(float(np.abs(centred).max()), 1e-12), np.float32)


def _share(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)
