"""Figures of a report as data URIs: drawn by matplotlib without a display, in a light and a dark version."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8]

FEW = 12  # more groups than this are named in the map, not in a legend
# twelve colours told apart on white and on near-black
COLOURS = (
    "#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#d8a31a", "#9d755d", "#ff7fa8", "#6a8f00",
    "#7c6fe0", "#8a8a8a",
)  # fmt: skip


@dataclass(frozen=True)
class Ink:
    text: str
    faint: str


INKS = {"light": Ink("#1d2430", "#c9ced6"), "dark": Ink("#e6e9ef", "#454c58")}


@dataclass(frozen=True)
class Drawn:
    """A figure in both colour schemes."""

    light: str
    dark: str
    width: int
    height: int


def project(vectors: Floats, method: Literal["pca", "tsne"] = "tsne", seed: int = 0) -> Floats:
    """(n, d) to (n, 2) for a map. t-SNE keeps neighbourhoods (distances between groups mean nothing), PCA is
    linear.

    With fewer than eight rows t-SNE has no neighbourhoods to keep and PCA is used.
    """
    from sklearn.decomposition import PCA

    rows = np.asarray(vectors, dtype=np.float64)
    n, d = rows.shape
    if n < 3 or d < 2:
        flat = np.zeros((n, 2))
        flat[:, : min(d, 2)] = rows[:, :2]
        return flat
    fewer = PCA(min(50, n, d), random_state=seed).fit_transform(rows)
    if method == "pca" or n < 8:
        return np.asarray(fewer[:, :2])
    from sklearn.manifold import TSNE

    places = TSNE(perplexity=min(30.0, n / 4), init="pca", random_state=seed, max_iter=300).fit_transform(
        fewer
    )
    return np.asarray(places)


def scatter(points: Floats, groups: Sequence[str], colours: Mapping[str, str] | None = None) -> Drawn:
    """A map: one dot an item, coloured by group. Up to FEW groups have a legend, more are named where they
    lie."""
    names = sorted(set(groups))
    paint = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(names)} | dict(colours or {})
    labels = np.asarray(groups)

    def draw(figure: Figure, ink: Ink) -> None:
        axes = figure.add_axes((0.005, 0.005, 0.99, 0.99 if len(names) > FEW else 0.88))
        for name in names:
            of = points[labels == name]
            axes.scatter(
                of[:, 0], of[:, 1], s=13, color=paint[name], label=name, linewidths=0.3, edgecolors="#8d95a3"
            )
        axes.set_axis_off()
        axes.margins(0.06)
        if len(names) <= FEW:
            figure.legend(
                ncols=min(len(names), 4), loc="upper center", frameon=False, labelcolor=ink.text, fontsize=9,
                markerscale=2, handletextpad=0.1, columnspacing=1.0,
            )  # fmt: skip
            return
        for name in names:
            x, y = np.median(points[labels == name], axis=0)
            axes.annotate(
                name,
                (x, y),
                (0, 6),
                textcoords="offset points",
                fontsize=7,
                color=ink.text,
                ha="center",
                va="bottom",
            )

    return _drawn(draw, 6.0, 4.6)


def picture_map(
    points: Floats, pictures: Sequence[Pixels | bytes | None], side: int = 48, across: int = 30
) -> Drawn:
    """A mosaic without gaps: pictures laid on a grid so that they stay as near as can be to where their
    points lie.

    Of more pictures than the grid has cells (across x 0.55 across) every so-manieth is shown; fewer make a
    smaller grid."""
    from PIL import Image
    from scipy.optimize import linear_sum_assignment

    some = np.array([k for k, picture in enumerate(pictures) if picture is not None], dtype=np.int64)
    across = min(across, max(1, int(np.sqrt(len(some) / 0.55))))
    down = max(1, round(across * 0.55))
    chosen = (
        some[np.unique(np.linspace(0, len(some) - 1, min(across * down, len(some))).astype(int))]
        if len(some)
        else some
    )
    sheet = Image.new("RGBA", (across * side, down * side), (0, 0, 0, 0))
    if len(chosen):
        # by rank, not by distance: the gaps between groups are closed
        places = points[chosen].argsort(axis=0).argsort(axis=0) / max(len(chosen) - 1, 1)
        cells = np.stack(np.meshgrid(np.linspace(0, 1, across), np.linspace(1, 0, down)), axis=-1).reshape(
            -1, 2
        )
        cost = ((places[:, None] - cells[None]) ** 2 * (1, 0.55**2)).sum(axis=2)
        for row, cell in zip(*linear_sum_assignment(cost), strict=True):
            picture = _opened(pictures[int(chosen[row])]).resize(
                (side - 2, side - 2), Image.Resampling.LANCZOS
            )
            sheet.paste(picture, (int(cell) % across * side + 1, int(cell) // across * side + 1))
    held = io.BytesIO()
    sheet.save(held, "WEBP", quality=82)
    uri = _uri("image/webp", held.getvalue())
    return Drawn(uri, uri, across * side, down * side)


def curves(
    runs: Mapping[str, Sequence[tuple[int, float, float]]], metric: str, reference: Mapping[str, float]
) -> Drawn:
    """Training curves: for each run (epoch, loss, validation metric); `reference`: horizontal lines such as
    popularity."""

    def draw(figure: Figure, ink: Ink) -> None:
        left, right = figure.subplots(1, 2)
        for k, (name, rows) in enumerate(runs.items()):
            epochs, losses, found = (list(column) for column in zip(*rows, strict=True))
            left.plot(epochs, losses, color=COLOURS[k % len(COLOURS)], label=name, linewidth=1.8)
            right.plot(epochs, found, color=COLOURS[k % len(COLOURS)], label=name, linewidth=1.8)
            best = int(np.argmax(found))
            right.plot(epochs[best], found[best], "o", color=COLOURS[k % len(COLOURS)], markersize=5)
        for k, (name, value) in enumerate(reference.items()):
            right.axhline(value, color=ink.text, linewidth=1, linestyle=("--", ":", "-.")[k % 3], label=name)
        for axes, title in ((left, "training loss"), (right, metric)):
            axes.set_title(title, color=ink.text, fontsize=10, loc="left")
            axes.set_xlabel("epoch", color=ink.text, fontsize=9)
            axes.tick_params(colors=ink.text, labelsize=8)
            axes.grid(color=ink.faint, linewidth=0.5, alpha=0.6)
            axes.patch.set_alpha(0)
            for side, spine in axes.spines.items():
                spine.set_visible(side in ("left", "bottom"))
                spine.set_color(ink.faint)
        right.set_ylim(0, right.get_ylim()[1] * 1.06)
        right.legend(frameon=False, labelcolor=ink.text, fontsize=8, loc="best")
        figure.tight_layout(pad=0.8)

    return _drawn(draw, 8.4, 3.2)


def picture_uri(data: bytes | None, side: int = 160) -> str | None:
    """A stored picture (any format that Pillow reads) as a small JPEG; None where there is none."""
    if data is None:
        return None
    picture = _opened(data)
    picture.thumbnail((side, side))
    held = io.BytesIO()
    picture.save(held, "JPEG", quality=85)
    return _uri("image/jpeg", held.getvalue())


def _opened(picture: Pixels | bytes | None) -> Any:
    from PIL import Image

    if isinstance(picture, bytes):
        return Image.open(io.BytesIO(picture)).convert("RGB")
    return Image.fromarray(np.asarray(picture, dtype=np.uint8)).convert("RGB")


def _drawn(draw: Any, width: float, height: float, dpi: int = 130) -> Drawn:
    """`draw(figure, ink)` once in each scheme, on nothing (transparent)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    uris = {}
    for scheme, ink in INKS.items():
        figure = Figure(figsize=(width, height), dpi=dpi)
        figure.patch.set_alpha(0)
        FigureCanvasAgg(figure)
        draw(figure, ink)
        held = io.BytesIO()
        figure.savefig(held, format="png", metadata={"Software": None})
        uris[scheme] = _uri("image/png", held.getvalue())
    return Drawn(uris["light"], uris["dark"], round(width * dpi), round(height * dpi))


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
