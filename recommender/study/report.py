"""The report of a study, from its records alone: tables, tests, figures, and how sure one can be.

    write(study, results(study), "out")         REPORT.md, report.html, figures/, cells.csv, comparisons.csv
    rows(study, results(study))                 the main tables, one dict a row

A grid that is not whole, or whose test is closed, gives a report of what is there that says what is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featurestore.files import write_bytes, write_text
from recommender.study.arms import Cell, Grid, Study, grid_of, read_cells
from recommender.study.figures import drawings, encoded
from recommender.study.findings import Findings, analyse
from recommender.study.page import render
from recommender.study.panels import LIGHT
from recommender.study.printed import COMPARISONS, MEASURED, columns, markdown, printed, tidy

__all__ = ["Findings", "Grid", "analyse", "columns", "grid_of", "printed", "read_cells", "rows", "write"]


def write(study: Study, cells: Sequence[Cell], out: str | Path) -> list[Path]:
    """Write the report into the folder `out`; returns its files, REPORT.md first. Raises NotFound where nothing is
    trained."""
    return write_found(analyse(study, cells), out)


def write_found(findings: Findings, out: str | Path) -> list[Path]:
    """The same from what `analyse` found, for who also wants the rows and not to test twice."""
    out = Path(out)
    written, pictures, drawn = [], [], []
    for drawing in drawings(findings):
        figure = drawing.draw(LIGHT)
        images = {kind: encoded(figure, kind) for kind in ("png", "svg")}
        for kind, data in images.items():
            written.append(out / "figures" / f"{drawing.name}.{kind}")
            write_bytes(written[-1], data)
        drawn.append((drawing, images["svg"]))
        pictures.append((f"figures/{drawing.name}.png", drawing.title, drawing.caption))
    texts = {
        "REPORT.md": markdown(findings, pictures),
        "report.html": render(findings, drawn),
        "cells.csv": tidy(findings.measured, MEASURED),
        "comparisons.csv": tidy(findings.comparisons, COMPARISONS),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return [*(out / name for name in texts), *written]


def rows(study: Study, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One dict a row of the main tables: numbers, None where there is none. `printed` turns one into text."""
    return [dict(row) for row in analyse(study, cells).rows]
