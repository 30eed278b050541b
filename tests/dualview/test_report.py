"""Reports: one file that needs nothing else, everything escaped, every picture described."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dualview.report import figures
from dualview.report.page import (
    CatalogueMap,
    ContactSheet,
    KeyFigure,
    KeyFigures,
    MapPanel,
    MetricsTable,
    Picture,
    Section,
    SheetRow,
    TrainingCurve,
    build_report,
    cell,
    render_page,
)

EVIL = "<script>alert('x')</script> & \"more\""


def _photo(shade: int = 90, size: tuple[int, int] = (300, 200), kind: str = "PNG") -> bytes:
    held = io.BytesIO()
    Image.new("RGB", size, (shade, 120, 200)).save(held, kind)
    return held.getvalue()


def _decoded(uri: str) -> Image.Image:
    kind, data = re.fullmatch(r"data:(image/[a-z]+);base64,(.*)", uri).groups()  # type: ignore[union-attr]
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert Image.MIME[picture.format or ""] == kind
    return picture


@pytest.fixture(scope="module")
def sections() -> list[Section]:
    points = np.random.default_rng(0).normal(size=(30, 2))
    return [
        KeyFigures("Figures", [KeyFigure("2,000", EVIL, EVIL)]),
        ContactSheet(
            EVIL,
            EVIL,
            [
                SheetRow(
                    Picture(EVIL, _photo(), EVIL),
                    [Picture("near", _photo(40), score=0.93, match=True), Picture("bare", None, match=False)],
                )
            ],
        ),
        CatalogueMap(
            "Map",
            "near is alike",
            [
                MapPanel("groups", points, [EVIL, "b"] * 15),
                MapPanel("pictures", points, pictures=[_photo()] * 29 + [None]),
            ],
        ),
        TrainingCurve("Training", "", {EVIL: [(1, 7.0, 0.1), (2, 6.5, 0.2)]}, reference={"popularity": 0.01}),
        MetricsTable(
            "Table",
            ["run", "NDCG@10"],
            [["a", 0.123456], ["b", 0.2]],
            EVIL,
            [(EVIL, EVIL)],
            {"NDCG@10": "high"},
        ),
    ]


@pytest.fixture(scope="module")
def page(sections: list[Section]) -> str:
    return render_page(title=EVIL, subtitle=EVIL, footer=EVIL, sections=sections)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader


def test_every_tag_is_closed_and_nothing_outside_is_asked_for(page: str) -> None:
    reader = _read(page)
    assert not reader.open
    links = [
        value
        for _, attrs in reader.tags
        for name, value in attrs.items()
        if name in ("src", "href", "srcset")
    ]
    assert links
    assert all(link is not None and link.startswith(("data:image/", "#s")) for link in links)
    assert "http" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_names_from_the_catalogue_are_escaped_wherever_they_stand(page: str) -> None:
    assert "<script" not in page
    assert "alert(&#39;x&#39;)" in page
    assert not [tag for tag, _ in _read(page).tags if tag == "script"]


def test_every_picture_has_an_alternative_text(page: str) -> None:
    pictures = [attrs for tag, attrs in _read(page).tags if tag == "img"]
    assert len(pictures) == 5, "two products, two maps, one pair of curves"
    assert all(attrs.get("alt") for attrs in pictures)


def test_an_item_without_a_picture_says_so_and_a_match_is_marked(page: str) -> None:
    assert page.count("no picture") == 1
    assert page.count("✓ match") == 1
    assert "0.930" in page


def test_figures_follow_the_colour_scheme(page: str) -> None:
    sources = [attrs for tag, attrs in _read(page).tags if tag == "source"]
    assert [attrs["media"] for attrs in sources] == ["(prefers-color-scheme: dark)"] * 3
    drawn = figures.curves({"a": [(1, 2.0, 0.1)]}, "NDCG", {})
    assert drawn.light != drawn.dark
    assert _decoded(drawn.light).size == (drawn.width, drawn.height)


def test_the_best_cell_of_a_column_is_marked_and_numbers_are_short(page: str) -> None:
    assert re.search(r'class="n best">0\.2000<', page)
    assert re.search(r'class="n">0\.1235<', page)
    table = MetricsTable("t", ["run", "loss"], [["a", 3], ["b", 2]], best={"loss": "low"})
    assert table.is_best(1, 2)
    assert not table.is_best(1, 3)
    assert not table.is_best(0, "a")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (True, "yes"),
        (12345, "12,345"),
        (0.12345, "0.1235"),
        (3.14159, "3.14"),
        (1234.5, "1,234.5"),
        ("x", "x"),
    ],
)
def test_cells_are_shown_briefly(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_a_report_is_written_whole_and_replaces_the_one_before(
    sections: list[Section], tmp_path: Path
) -> None:
    path = build_report(tmp_path / "deep" / "report.html", title="One", sections=sections[:1])
    build_report(path, title="Two", sections=sections[:1])
    text = path.read_text(encoding="utf-8")
    assert "<title>Two</title>" in text
    assert "One" not in text
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_pictures_are_made_small_and_kept_in_proportion() -> None:
    uri = figures.picture_uri(_photo(size=(400, 200)), side=100)
    assert uri is not None
    assert _decoded(uri).size == (100, 50)
    assert figures.picture_uri(None) is None


def test_a_projection_keeps_neighbours_together() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(12)[:4] * 10
    vectors = np.repeat(centres, 25, axis=0) + rng.normal(0, 0.3, (100, 12))
    for method in ("pca", "tsne"):
        points = figures.project(vectors, method=method)
        assert points.shape == (100, 2)
        distance = np.linalg.norm(points[:, None] - points[None], axis=2)
        np.fill_diagonal(distance, np.inf)
        assert (distance.argmin(axis=1) // 25 == np.arange(100) // 25).mean() > 0.95


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_a_projection_of_few_items_is_still_a_map(n: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(n, 8)).astype(np.float32)
    assert figures.project(vectors).shape == (n, 2)


def test_a_mosaic_has_no_gaps_and_shows_each_picture_at_most_once() -> None:
    rng = np.random.default_rng(1)
    colours = [np.full((4, 4, 3), (k, 255 - k, 128), dtype=np.uint8) for k in range(0, 250, 2)]
    drawn = figures.picture_map(rng.normal(size=(len(colours), 2)), colours, side=10)
    sheet = np.asarray(_decoded(drawn.light).convert("RGBA"))
    centres = sheet[5::10, 5::10]
    assert (centres[..., 3] == 255).mean() > 0.9
    assert drawn.width == centres.shape[1] * 10
    assert centres[..., 3].size <= len(colours) + centres.shape[1]


def test_a_mosaic_without_any_picture_is_empty() -> None:
    drawn = figures.picture_map(np.zeros((3, 2)), [None, None, None], side=10)
    assert _decoded(drawn.light).convert("RGBA").getextrema()[3] == (0, 0)


def test_many_groups_are_named_in_the_map_instead_of_a_legend() -> None:
    points = np.random.default_rng(0).normal(size=(40, 2))
    few, many = (figures.scatter(points, [str(k % n) for k in range(40)]) for n in (3, 20))
    assert _decoded(few.light).size == _decoded(many.light).size == (few.width, few.height)
