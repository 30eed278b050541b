"""What the figures of a study are drawn with: inks, panels, ticks, and labels that do not cover each other.

Colours are those of Okabe & Ito (2008), told apart by colour-blind readers, and never the only sign: towers have
markers of their own. Panels are data sets across, backbones down; of one data set, or where
some stand apart, three across.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from recommender.study.arms import Table
from recommender.study.findings import Findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#a6761d")  # after the blue
MARKS = ("o", "s", "^", "D", "v", "P", "X", "h")


@dataclass(frozen=True)
class Ink:
    text: str
    faint: str
    page: str
    blue: str  # the first colour, light enough for the page


LIGHT = Ink("#1d2430", "#c9ced6", "#ffffff", "#0072b2")
DARK = Ink("#e6e9ef", "#454c58", "#1d2128", "#7b8cff")


def panels(
    findings: Findings, ink: Ink, *, wide: float, high: float, left: float = 0.0
) -> tuple[Figure, Iterator[tuple[Axes, Table, bool, bool]]]:
    """A figure, and (axes, table, in the first column, lowest of its column) for each table. Sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tables = list(findings.tables)
    data, backbones = (
        list(dict.fromkeys(names)) for names in zip(*((t.data, t.backbone) for t in tables), strict=True)
    )
    if len(data) == 1 or any(t.apart for t in tables):
        across, placed = min(3, len(tables)), tables
    else:
        across = len(data)
        placed = sorted(tables, key=lambda t: (backbones.index(t.backbone), data.index(t.data)))
    down = -(-len(placed) // across)
    figure = Figure(figsize=(wide * across + left + 0.3, high * down + 0.4), dpi=160, facecolor=ink.page)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)

    def each() -> Iterator[tuple[Axes, Table, bool, bool]]:
        for k, table in enumerate(placed):
            axes = figure.add_subplot(down, across, k + 1)
            axes.set_title(table.title, color=ink.text, fontsize=9.5, loc="left")
            axes.set_facecolor(ink.page)
            axes.tick_params(colors=ink.text, labelsize=8)
            for side, spine in axes.spines.items():
                spine.set_visible(side in ("left", "bottom"))
                spine.set_color(ink.faint)
            yield axes, table, k % across == 0, k + across >= len(placed)

    return figure, each()


def style(findings: Findings, tower: str, ink: Ink) -> tuple[str, str]:
    others = [t for t in findings.study.towers if t != findings.study.reference]
    if tower not in others:
        return ink.text, "o"
    place = others.index(tower)
    colours = (ink.blue, *COLOURS)
    return colours[place % len(colours)], MARKS[(place + 1) % len(MARKS)]


def empty(axes: Axes, ink: Ink) -> None:
    axes.text(
        0.5, 0.5, "nothing yet", color=ink.text, alpha=0.6, fontsize=9, ha="center", transform=axes.transAxes
    )
    axes.set_axis_off()


def longest(names: Sequence[str]) -> int:
    return max((len(name) for name in names), default=0)


def widest(names: Sequence[str]) -> float:
    return 0.075 * longest(names)


def spaced(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places for labels near `values`, in their order, `gap` apart and within low..high as far as there is room."""
    n = len(values)
    order = np.argsort(values, kind="stable")
    gap = min(gap, (high - low) / max(n - 1, 1))
    steps = gap * np.arange(n)
    # with the gaps taken out, labels must only not fall: the nearest such places are block means (isotonic regression)
    blocks: list[tuple[float, int]] = []
    for value in np.asarray(values, dtype=np.float64)[order] - steps:
        blocks.append((float(value), 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m), (b, k) = blocks[-2:]
            blocks[-2:] = [((a * m + b * k) / (m + k), m + k)]
    flat = np.repeat([mean for mean, _ in blocks], [size for _, size in blocks]) if n else np.zeros(0)
    answer = np.empty(n)
    answer[order] = np.clip(flat, low, max(low, high - gap * max(n - 1, 0))) + steps
    return [float(place) for place in answer]


def house_numbers(axes: Axes, *, signed: bool = False) -> None:
    """.050 for 0.05, as in the tables, with as many decimals on all ticks; with a sign for differences."""
    from matplotlib.ticker import MaxNLocator

    low, high = axes.get_ylim()
    ticks = [
        tick
        for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        if low <= tick <= high
    ]
    decimals = next(
        n for n in range(1, 9) if n == 8 or all(abs(tick - round(tick, n)) < 1e-9 for tick in ticks)
    )

    def text(tick: float) -> str:
        if signed and abs(tick) < 1e-9:
            return "0"
        return f"{tick:{'+' if signed else ''}.{decimals}f}".replace("0.", ".", 1).replace("-", "−")

    axes.set_yticks(ticks, [text(tick) for tick in ticks])


def between(front: Sequence[int], x: Any, y: Any) -> list[tuple[float, float]]:
    """Points along the straight lines that join some places of a plot whose x is logarithmic."""
    steps = np.linspace(0, 1, 25)
    return [
        (float(x[a] ** (1 - t) * x[b] ** t), float(y[a] * (1 - t) + y[b] * t))
        for a, b in pairwise(front)
        for t in steps
    ]


def ticks_within(axes: Axes, low: float, high: float) -> None:
    """Ticks where there is data, not under the column of numbers beside it."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(5).tick_values(low, high)
    axes.set_xticks([tick for tick in ticks if low <= tick <= high] or [0.0])


def plain_log(axes: Axes) -> None:
    """A few round numbers instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 100 else (1.0,)))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def name_points(
    axes: Axes, names: Sequence[str], x: Any, y: Any, ink: Ink, lines: Sequence[tuple[float, float]]
) -> None:
    """Each point's name on the side of it where it meets least of other points, names, and `lines`, given as points."""
    canvas: Any = axes.figure
    canvas.canvas.draw()  # so that places in pixels are known
    pixels = axes.transData.transform(np.column_stack([x, y]))
    scale = canvas.dpi / 72
    box = axes.get_window_extent()
    taken = [(px - 5 * scale, py - 5 * scale, px + 5 * scale, py + 5 * scale) for px, py in pixels]
    taken += [
        (px - scale, py - scale, px + scale, py + scale)
        for px, py in axes.transData.transform(np.array(lines))
    ]
    sides = [
        (7, 0, "left", "center"), (-7, 0, "right", "center"), (0, 8, "center", "bottom"), (0, -8, "center", "top"),
        (6, 7, "left", "bottom"), (6, -7, "left", "top"), (-6, 7, "right", "bottom"), (-6, -7, "right", "top"),
    ]  # fmt: skip
    for name, (px, py) in zip(names, pixels, strict=True):
        wide, high = 4.4 * len(name) * scale, 9 * scale
        tried = []
        for dx, dy, across, up in sides:
            left = px + dx * scale - {"left": 0.0, "center": 0.5, "right": 1.0}[across] * wide
            low = py + dy * scale - {"bottom": 0.0, "center": 0.5, "top": 1.0}[up] * high
            here = (left, low, left + wide, low + high)
            outside = here[0] < box.x0 or here[2] > box.x1 or here[1] < box.y0 or here[3] > box.y1
            tried.append((sum(_overlap(here, other) for other in taken) + (1e6 if outside else 0.0), here))
        best = int(np.argmin([found for found, _ in tried]))
        taken.append(tried[best][1])
        dx, dy, across, up = sides[best]
        axes.annotate(
            name, (x[list(names).index(name)], y[list(names).index(name)]), (dx, dy), textcoords="offset points",
            fontsize=7.5, color=ink.text, ha=across, va=up,
        )  # fmt: skip


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
