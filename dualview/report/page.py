"""The page of a report: typed sections in, one HTML file out that needs nothing else.

Every text is escaped by the template (jinja2 autoescape); pictures and figures are inlined, so the file can
be mailed. Colours follow the reader's light or dark scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

from dualview.report import figures
from featurestore.files import write_text


@dataclass(frozen=True)
class KeyFigure:
    value: str
    label: str
    meaning: str = ""


@dataclass(frozen=True)
class KeyFigures:
    """A few large numbers."""

    kind: ClassVar[str] = "key"
    title: str
    figures: Sequence[KeyFigure]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """One item of a contact sheet. `image`: bytes of a picture, or None. `match`: whether it is what was
    looked for."""

    title: str
    image: bytes | None = None
    note: str = ""
    score: float | None = None
    match: bool | None = None

    @property
    def uri(self) -> str | None:
        return figures.picture_uri(self.image)


@dataclass(frozen=True)
class SheetRow:
    query: Picture
    neighbours: Sequence[Picture]
    heading: str = ""


@dataclass(frozen=True)
class ContactSheet:
    """Items and their neighbours in pictures. `caption` says what to look at; `query_label` what the first
    one is."""

    kind: ClassVar[str] = "sheet"
    title: str
    caption: str
    rows: Sequence[SheetRow]
    query_label: str = "query"
    match_label: str = "match"


@dataclass(frozen=True)
class MapPanel:
    """A map of items. points: (n, 2). Either `groups` (one label an item, coloured) or `pictures` (one an
    item or None)."""

    caption: str
    points: figures.Floats
    groups: Sequence[str] | None = None
    colours: Mapping[str, str] | None = None
    pictures: Sequence[figures.Pixels | bytes | None] | None = None

    def drawn(self) -> figures.Drawn:
        if self.pictures is not None:
            return figures.picture_map(self.points, self.pictures)
        return figures.scatter(self.points, self.groups or ["items"] * len(self.points), self.colours)


@dataclass(frozen=True)
class CatalogueMap:
    kind: ClassVar[str] = "map"
    title: str
    caption: str
    panels: Sequence[MapPanel]


@dataclass(frozen=True)
class TrainingCurve:
    """runs: name -> (epoch, loss, validation metric) rows. reference: name -> value of a horizontal line."""

    kind: ClassVar[str] = "curve"
    title: str
    caption: str
    runs: Mapping[str, Sequence[tuple[int, float, float]]]
    metric: str = "validation NDCG@10"
    reference: Mapping[str, float] = field(default_factory=dict)

    def drawn(self) -> figures.Drawn:
        return figures.curves(self.runs, self.metric, self.reference)

    @property
    def alt(self) -> str:
        parts = [
            f"{name}: best {max(row[2] for row in rows):.4f} of {len(rows)} epochs"
            for name, rows in self.runs.items()
        ]
        return f"{self.metric} by epoch. " + "; ".join(parts)


@dataclass(frozen=True)
class MetricsTable:
    """rows: the first cell names the row. meanings: (term, one plain sentence) for each number that needs
    it."""

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    meanings: Sequence[tuple[str, str]] = ()
    best: Mapping[str, str] = field(
        default_factory=dict
    )  # column -> "high" or "low": the best cell is marked

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers, gaps aside."""
        cells = [row[column] for row in self.rows if row[column] is not None]
        return bool(cells) and all(isinstance(value, int | float) for value in cells)

    def is_best(self, column: int, value: object) -> bool:
        way = self.best.get(self.columns[column])
        numbers = [row[column] for row in self.rows if isinstance(row[column], int | float)]
        if way is None or not isinstance(value, int | float) or len(numbers) < 2:
            return False
        return value == (max(numbers) if way == "high" else min(numbers))  # type: ignore[type-var]


Section = KeyFigures | ContactSheet | CatalogueMap | TrainingCurve | MetricsTable


def build_report(
    path: str | Path, *, title: str, sections: Sequence[Section], subtitle: str = "", footer: str = ""
) -> Path:
    """Write the page to `path` (whole or not at all) and return it."""
    write_text(Path(path), render_page(title=title, sections=sections, subtitle=subtitle, footer=footer))
    return Path(path)


def render_page(*, title: str, sections: Sequence[Section], subtitle: str = "", footer: str = "") -> str:
    from jinja2 import Environment, StrictUndefined

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters["cell"] = cell
    page.filters["number"] = lambda value: isinstance(value, int | float) and not isinstance(value, bool)
    template = (resources.files("dualview") / "templates" / "report.html").read_text(encoding="utf-8")
    return page.from_string(template).render(title=title, sections=sections, subtitle=subtitle, footer=footer)


def cell(value: Any) -> str:
    """A value as a table shows it: 1234 -> 1,234; 0.1234567 -> 0.1235; None -> a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)
