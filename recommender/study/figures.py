"""Figures of a study, drawn by matplotlib without a display: gains, popularity of the target, quality against cost.

Colours are those of Okabe & Ito (2008), told apart by colour-blind readers, and never the only sign: towers have
markers of their own and their names stand beside what they name. Panels are data sets across, backbones down.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from recommender.study.arms import Table
from recommender.study.findings import LEVEL, MAIN, Findings
from recommender.study.printed import known, number, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#a6761d")  # after the blue
MARKS = ("o", "s", "^", "D", "v", "P", "X", "h")
FEW_USERS = 30  # a bin of fewer is drawn hollow


@dataclass(frozen=True)
class Ink:
    text: str
    faint: str
    page: str
    blue: str  # the first colour, light enough for the page


LIGHT = Ink("#1d2430", "#c9ced6", "#ffffff", "#0072b2")
DARK = Ink("#e6e9ef", "#454c58", "#1d2128", "#7b8cff")


@dataclass(frozen=True)
class Drawing:
    """name: of the file, without ending. draw(ink) makes the figure anew."""

    name: str
    title: str
    caption: str
    draw: Callable[[Ink], Figure]


def drawings(findings: Findings) -> list[Drawing]:
    """The figures that these findings have something for."""
    reference, part = findings.study.reference, "test" if findings.part == "test" else "validation"
    made = []
    if any(known(row["gain_low"]) for row in findings.rows):
        made.append(
            Drawing(
                "gains",
                f"Gain over {reference}",
                f"Relative gain in {part} {MAIN} over {reference}, with 95 % intervals over users. Filled: p < .05 "
                "after Holm's correction.",
                lambda ink: gains(findings, ink),
            )
        )
    if findings.bins:
        made.append(
            Drawing(
                "popularity",
                "By how often training saw the target",
                f"Users by training events of their target: {part} {MAIN} of each tower above that of {reference}. "
                f"Below each bin its share of the users and the level of {reference}. Hollow: fewer than {FEW_USERS} "
                "users.",
                lambda ink: popularity(findings, ink),
            )
        )
    if any(row["seconds_to_best"] and row[MAIN] is not None for row in findings.rows):
        made.append(
            Drawing(
                "cost",
                "Quality against training time",
                f"{part.capitalize()} {MAIN} (bars: standard deviation over seeds) against seconds of training until "
                "the best epoch. The line joins towers that no cheaper one equals.",
                lambda ink: cost(findings, ink),
            )
        )
    return made


def gains(findings: Findings, ink: Ink) -> Figure:
    """Points with intervals, one row a tower, zero is the reference."""
    towers = [t for t in findings.study.towers if t != findings.study.reference]
    found = {(row["table"], row["tower"]): row for row in findings.rows if known(row["gain"])}
    ends = [
        100 * float(row[key])
        for row in found.values()
        for key in ("gain", "gain_low", "gain_high")
        if known(row[key])
    ]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    room = (high - low) or 1.0
    figure, panels = _panels(findings, ink, wide=3.3, high=0.62 + 0.3 * len(towers), left=_widest(towers))
    for axes, table, first, last in panels:
        axes.axvline(0, color=ink.text, linewidth=1)
        for place, tower in enumerate(towers):
            row = found.get((table.title, tower))
            if row is None:
                axes.text(0, place, "  not compared", fontsize=7, color=ink.text, alpha=0.6, va="center")
                continue
            gain = 100 * row["gain"]
            if known(row["gain_low"]):
                axes.plot(
                    [100 * row["gain_low"], 100 * row["gain_high"]],
                    [place] * 2,
                    color=ink.text,
                    linewidth=1.3,
                )
            sure = row["p_holm"] < LEVEL
            axes.plot(
                gain, place, "o", markersize=6.5, markeredgecolor=ink.blue, markeredgewidth=1.5, zorder=3,
                markerfacecolor=ink.blue if sure else ink.page,
            )  # fmt: skip
            axes.text(high + 0.06 * room, place, share(row["gain"]), fontsize=8, color=ink.text, va="center")
        axes.set_xlim(low - 0.06 * room, high + 0.4 * room)
        axes.set_ylim(len(towers) - 0.4, -0.6)
        axes.set_yticks(range(len(towers)), towers if first else [""] * len(towers))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=ink.faint, linewidth=0.5, alpha=0.6)
        axes.spines["left"].set_visible(False)
        _ticks_within(axes, low, high)
        if last:
            axes.set_xlabel(
                f"gain over {findings.study.reference}, %", color=ink.text, fontsize=9, loc="left"
            )
    return figure


def popularity(findings: Findings, ink: Ink) -> Figure:
    """A line a tower over bins of the target's training events: how far it is above the reference there.

    The bins' own levels differ by far more than the towers do, so the reference is the zero line and its level stands
    below each bin. Where it is missing, towers are drawn as they are.
    """
    reference = findings.study.reference
    binned = {one["table"]: one["rows"] for one in findings.bins}
    towers = [tower for tower in findings.study.towers if tower != reference]
    figure, panels = _panels(findings, ink, wide=4.0, high=2.7)
    for axes, table, first, last in panels:
        rows = binned.get(table.title, [])
        if not rows:
            _empty(axes, ink)
            continue
        zero = [row["values"].get(reference, 0.0) for row in rows]
        places = [row["place"] for row in rows]
        ends: list[tuple[float, str]] = []
        span = [0.0]
        for tower in (tower for tower in towers if tower in rows[0]["values"]):
            colour, mark = _style(findings, tower, ink)
            values = [row["values"][tower] - base for row, base in zip(rows, zero, strict=True)]
            axes.plot(places, values, color=colour, linewidth=1.5)
            for row, place, value in zip(rows, places, values, strict=True):
                axes.plot(
                    place, value, mark, markersize=4.8, color=colour, zorder=3,
                    markerfacecolor=ink.page if row["users"] < FEW_USERS else colour,
                )  # fmt: skip
            span += values
            ends.append((values[-1], tower))
        compared = reference in rows[0]["values"]
        if compared:
            axes.plot(
                [places[0] - 0.3, places[-1] + 0.1], [0, 0], "--", color=ink.text, linewidth=1.2, zorder=1
            )
            ends.append((0.0, reference))
        room = (max(span) - min(span)) or 1.0
        low, high = min(span) - 0.08 * room, max(span) + 0.08 * room
        gap = 0.082 * (high - low)
        axes.set_ylim(low, high)
        right = places[-1]
        axes.set_xlim(places[0] - 0.3, right + 0.42 + 0.13 * _longest(list(findings.study.towers)))
        under = [f"\n{reference} {number(base)}" if compared else "" for base in zero]
        axes.set_xticks(
            places,
            [
                f"{row['bin']}\n{100 * row['share']:.0f} %{level}"
                for row, level in zip(rows, under, strict=True)
            ],
            fontsize=7.5,
        )
        axes.grid(axis="y", color=ink.faint, linewidth=0.5, alpha=0.6)
        _house_numbers(axes, signed=compared)
        placed = _apart([value for value, _ in ends], gap, low + gap / 2, high - gap / 2)
        for at, (value, tower) in zip(placed, ends, strict=True):
            colour, _ = _style(findings, tower, ink)
            axes.plot([right + 0.1, right + 0.32], [value, at], color=colour, linewidth=0.8)
            axes.text(right + 0.36, at, tower, fontsize=7.5, color=ink.text, va="center")
        if last:
            axes.set_xlabel(
                "training events of the target; share of users", color=ink.text, fontsize=9, loc="left"
            )
        if first:
            label = f"{MAIN} above {reference}" if compared else MAIN
            axes.set_ylabel(label, color=ink.text, fontsize=9)
    return figure


def cost(findings: Findings, ink: Ink) -> Figure:
    """A point a tower: seconds to the best epoch (logarithmic) against quality."""
    figure, panels = _panels(findings, ink, wide=4.0, high=2.5)
    for axes, table, first, last in panels:
        rows = [row for row in findings.of(table) if row["seconds_to_best"] and row[MAIN] is not None]
        if not rows:
            _empty(axes, ink)
            continue
        x = np.array([row["seconds_to_best"] for row in rows])
        y = np.array([row[MAIN] for row in rows])
        axes.set_xscale("log")
        order = np.argsort(x, kind="stable")
        front = [k for place, k in enumerate(order) if y[k] > max(y[order[:place]], default=-1.0)]
        axes.plot(x[front], y[front], color=ink.faint, linewidth=1.2, zorder=1)
        deviations = np.array([row[f"{MAIN} std"] or 0.0 for row in rows])
        for k, row in enumerate(rows):
            colour, mark = _style(findings, row["tower"], ink)
            axes.errorbar(
                x[k],
                y[k],
                yerr=deviations[k] or None,
                fmt=mark,
                color=colour,
                markersize=6.5,
                elinewidth=1.1,
                zorder=3,
            )
        axes.set_xlim(x.min() / 1.5, x.max() * 1.5 * (x.max() / x.min()) ** 0.15)
        low, high = float((y - deviations).min()), float((y + deviations).max())
        room = 0.14 * ((high - low) or high or 1.0)
        axes.set_ylim(low - room, high + room)
        axes.grid(color=ink.faint, linewidth=0.5, alpha=0.6)
        _plain_log(axes)
        _house_numbers(axes)
        if last:
            axes.set_xlabel("seconds to the best epoch", color=ink.text, fontsize=9, loc="left")
        if first:
            axes.set_ylabel(MAIN, color=ink.text, fontsize=9)
        bars = [(x[k], y[k] + part * deviations[k]) for k in range(len(x)) for part in np.linspace(-1, 1, 15)]
        _name_points(axes, [row["tower"] for row in rows], x, y, ink, [*_between(front, x, y), *bars])
    return figure


def encoded(figure: Figure, kind: str) -> bytes:
    """PNG or SVG, the same bytes for the same figure."""
    import matplotlib

    held = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "study"}):
        figure.savefig(held, format=kind, metadata={"Software": None} if kind == "png" else {"Date": None})
    return held.getvalue()


# parts of a figure


def _panels(
    findings: Findings, ink: Ink, *, wide: float, high: float, left: float = 0.0
) -> tuple[Figure, Iterator[tuple[Axes, Table, bool, bool]]]:
    """A figure, and (axes, table, in the first column, lowest of its column) for each table. Sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tables = list(findings.tables)
    across = (
        max(1, len({t.data for t in tables})) if not any(t.apart for t in tables) else min(3, len(tables))
    )
    if across == 1 and len(tables) > 1:
        across = min(3, len(tables))
        placed = tables
    elif any(t.apart for t in tables):
        placed = tables
    else:  # data sets across, backbones down
        data, backbones = (
            list(dict.fromkeys(names)) for names in zip(*((t.data, t.backbone) for t in tables), strict=True)
        )
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


def _style(findings: Findings, tower: str, ink: Ink) -> tuple[str, str]:
    others = [t for t in findings.study.towers if t != findings.study.reference]
    if tower not in others:
        return ink.text, "o"
    place = others.index(tower)
    colours = (ink.blue, *COLOURS)
    return colours[place % len(colours)], MARKS[(place + 1) % len(MARKS)]


def _empty(axes: Axes, ink: Ink) -> None:
    axes.text(
        0.5, 0.5, "nothing yet", color=ink.text, alpha=0.6, fontsize=9, ha="center", transform=axes.transAxes
    )
    axes.set_axis_off()


def _longest(names: Sequence[str]) -> int:
    return max((len(name) for name in names), default=0)


def _widest(names: Sequence[str]) -> float:
    return 0.075 * _longest(names)


def _apart(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
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


def _house_numbers(axes: Axes, *, signed: bool = False) -> None:
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


def _between(front: Sequence[int], x: Any, y: Any) -> list[tuple[float, float]]:
    """Points along the straight lines that join some places of a plot whose x is logarithmic."""
    steps = np.linspace(0, 1, 25)
    return [
        (float(x[a] ** (1 - t) * x[b] ** t), float(y[a] * (1 - t) + y[b] * t))
        for a, b in pairwise(front)
        for t in steps
    ]


def _ticks_within(axes: Axes, low: float, high: float) -> None:
    """Ticks where there is data, not under the column of numbers beside it."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(5).tick_values(low, high)
    axes.set_xticks([tick for tick in ticks if low <= tick <= high] or [0.0])


def _plain_log(axes: Axes) -> None:
    """A few round numbers instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 100 else (1.0,)))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _name_points(
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
