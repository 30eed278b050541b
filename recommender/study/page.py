"""A study as one HTML file that needs nothing else: escaped by its template, figures inlined for light and dark."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import groupby
from typing import Any

from recommender.study.arms import Table
from recommender.study.figures import Drawing, encoded
from recommender.study.findings import LEVEL, Findings
from recommender.study.panels import DARK
from recommender.study.printed import (
    NONE,
    WINS,
    best_tower,
    columns,
    headline,
    meanings,
    printed,
    printed_wins,
)
from recommender.study.rows import MAIN

TEMPLATE = "page.html"


def render(findings: Findings, drawings: Sequence[tuple[Drawing, bytes]]) -> str:
    """drawings: each with the SVG of its light version."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = (resources.files("recommender.study") / TEMPLATE).read_text(encoding="utf-8")
    study = findings.study
    return environment.from_string(template).render(
        title=study.name,
        headline=headline(findings),
        notes=findings.notes,
        family=findings.family,
        wins_header=[header for _, header in WINS],
        wins=[[printed_wins(row, study.reference)[key] for key, _ in WINS] for row in findings.wins],
        figures=[
            {
                "title": drawing.title,
                "caption": drawing.caption,
                "light": _inlined(light),
                "dark": _inlined(encoded(drawing.draw(DARK), "svg")),
            }
            for drawing, light in drawings
        ],
        tables=[_table(findings, table) for table in findings.tables],
        meanings=meanings(findings),
    )


def _inlined(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


def _table(findings: Findings, table: Table) -> dict[str, Any]:
    shown, rows = columns(findings, table), findings.of(table)
    best = best_tower(rows)
    overs = [(over, len(list(some))) for over, some in groupby(over for _, _, over in shown)]
    starts = {next(place for place, (_, _, o) in enumerate(shown) if o == over) for over, _ in overs if over}
    return {
        "title": table.title,
        "protocol": table.protocol,
        "overs": overs,
        # word joiners, so that "short 3–10" breaks at its space only
        "header": [
            (header.replace("–", "\u2060–\u2060"), place in starts)
            for place, (_, header, _) in enumerate(shown)
        ],
        "rows": [
            {
                "name": row["tower"],
                "kind": "floor" if row["floor"] else "missing" if not row["seeds"] else "",
                "cells": [
                    (printed(row)[key], _mark(row, key, best) + (" start" if place in starts else ""))
                    for place, (key, _, _) in enumerate(shown)
                    if key != "tower"
                ],
            }
            for row in rows
        ],
    }


def _mark(row: Mapping[str, Any], key: str, best: str | None) -> str:
    """The class of a cell: the best mean; a gain that is significant, and which way."""
    if key == MAIN and row["tower"] == best:
        return "best"
    if key in ("gain", "p_holm") and row["p_holm"] is not None and row["p_holm"] < LEVEL:
        return "up" if row["difference"] > 0 else "down"
    if key == "seeds" and row["missing"]:
        return "short"
    return "none" if printed(row)[key] == NONE else ""
