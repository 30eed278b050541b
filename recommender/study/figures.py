"""Figures of a study, drawn by matplotlib without a display: gains, popularity of the target, quality against cost.

What a tower is called stands beside what is drawn of it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recommender.study.findings import LEVEL, Findings
from recommender.study.panels import (
    Ink,
    between,
    empty,
    house_numbers,
    longest,
    name_points,
    panels,
    plain_log,
    spaced,
    style,
    ticks_within,
    widest,
)
from recommender.study.printed import known, number, share
from recommender.study.rows import MAIN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW_USERS = 30  # a bin of fewer is drawn hollow


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
    figure, drawn = panels(findings, ink, wide=3.3, high=0.62 + 0.3 * len(towers), left=widest(towers))
    for axes, table, first, last in drawn:
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
        ticks_within(axes, low, high)
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
    figure, drawn = panels(findings, ink, wide=4.0, high=2.7)
    for axes, table, first, last in drawn:
        rows = binned.get(table.title, [])
        if not rows:
            empty(axes, ink)
            continue
        zero = [row["values"].get(reference, 0.0) for row in rows]
        places = [row["place"] for row in rows]
        ends: list[tuple[float, str]] = []
        span = [0.0]
        for tower in (tower for tower in towers if tower in rows[0]["values"]):
            colour, mark = style(findings, tower, ink)
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
        axes.set_xlim(places[0] - 0.3, right + 0.42 + 0.13 * longest(list(findings.study.towers)))
        under = [f"\n{number(base)}" if compared else "" for base in zero]
        axes.set_xticks(
            places,
            [
                f"{row['bin']}\n{100 * row['share']:.0f} %{level}"
                for row, level in zip(rows, under, strict=True)
            ],
            fontsize=7.5,
        )
        axes.grid(axis="y", color=ink.faint, linewidth=0.5, alpha=0.6)
        house_numbers(axes, signed=compared)
        placed = spaced([value for value, _ in ends], gap, low + gap / 2, high - gap / 2)
        for at, (value, tower) in zip(placed, ends, strict=True):
            colour, _ = style(findings, tower, ink)
            axes.plot([right + 0.1, right + 0.32], [value, at], color=colour, linewidth=0.8)
            axes.text(right + 0.36, at, tower, fontsize=7.5, color=ink.text, va="center")
        if last:
            told = "training events of the target; share of users" + (f"; {reference}" if compared else "")
            axes.set_xlabel(told, color=ink.text, fontsize=9, loc="left")
        if first:
            label = f"{MAIN} above {reference}" if compared else MAIN
            axes.set_ylabel(label, color=ink.text, fontsize=9)
    return figure


def cost(findings: Findings, ink: Ink) -> Figure:
    """A point a tower: seconds to the best epoch (logarithmic) against quality."""
    figure, drawn = panels(findings, ink, wide=4.0, high=2.5)
    for axes, table, first, last in drawn:
        rows = [row for row in findings.of(table) if row["seconds_to_best"] and row[MAIN] is not None]
        if not rows:
            empty(axes, ink)
            continue
        x = np.array([row["seconds_to_best"] for row in rows])
        y = np.array([row[MAIN] for row in rows])
        axes.set_xscale("log")
        order = np.argsort(x, kind="stable")
        front = [k for place, k in enumerate(order) if y[k] > max(y[order[:place]], default=-1.0)]
        axes.plot(x[front], y[front], color=ink.faint, linewidth=1.2, zorder=1)
        deviations = np.array([row[f"{MAIN} std"] or 0.0 for row in rows])
        for k, row in enumerate(rows):
            colour, mark = style(findings, row["tower"], ink)
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
        plain_log(axes)
        house_numbers(axes)
        if last:
            axes.set_xlabel("seconds to the best epoch", color=ink.text, fontsize=9, loc="left")
        if first:
            axes.set_ylabel(MAIN, color=ink.text, fontsize=9)
        bars = [(x[k], y[k] + part * deviations[k]) for k in range(len(x)) for part in np.linspace(-1, 1, 15)]
        name_points(axes, [row["tower"] for row in rows], x, y, ink, [*between(front, x, y), *bars])
    return figure


def encoded(figure: Figure, kind: str) -> bytes:
    """PNG or SVG, the same bytes for the same figure."""
    import matplotlib

    held = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "study"}):
        figure.savefig(held, format=kind, metadata={"Software": None} if kind == "png" else {"Date": None})
    return held.getvalue()
