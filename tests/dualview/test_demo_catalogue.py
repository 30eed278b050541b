"""The drawn catalogue: what each modality carries, and that nothing leaks."""

from __future__ import annotations

import csv
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dualview.demo import drawing, words
from dualview.demo.catalogue import (
    CATEGORIES,
    PALETTE_NAMES,
    CatalogueSettings,
    draw_catalogue,
    draw_latents,
    write_catalogue,
)
from dualview.demo.drawing import PATTERNS, render
from dualview.demo.truth import chance, dependence, nearest, precision_at_5

SMALL = CatalogueSettings(items=60, seed=3)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_catalogue(draw_catalogue(SMALL), folder)
    return folder


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_items_csv_has_a_row_an_item_and_every_named_picture_exists(shop: Path) -> None:
    rows = list(csv.DictReader((shop / "items.csv").open(encoding="utf-8")))
    assert [row["item_id"] for row in rows] == list(draw_latents(SMALL).item_ids)
    assert all(row["title"] and row["brand"] and float(row["price"]) > 0 for row in rows)
    named = {row["image"] for row in rows if row["image"]}
    assert named == {f"images/{path.name}" for path in (shop / "images").iterdir()}
    assert all(_pixels(shop / name).shape == (144, 144, 3) for name in named)


def test_the_same_seed_draws_the_same_shop_and_another_seed_another(shop: Path, tmp_path: Path) -> None:
    write_catalogue(draw_catalogue(SMALL), tmp_path)
    for path in [shop / "items.csv", *(shop / "images").iterdir()]:
        assert path.read_bytes() == (tmp_path / path.relative_to(shop)).read_bytes()
    assert draw_catalogue(CatalogueSettings(items=60, seed=4)).rows != draw_catalogue(SMALL).rows


def test_no_two_pictures_of_one_style_and_kind_are_equal() -> None:
    rng = np.random.default_rng(0)
    drawn = [np.asarray(render("mug", "sky", "plain", rng), dtype=int) for _ in range(4)]
    assert min(np.abs(a - b).mean() for a, b in combinations(drawn, 2)) > 1


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_product_is_large_inside_the_frame_and_wears_its_palette(category: str, pattern: str) -> None:
    picture = np.asarray(render(category, "lagoon", pattern, np.random.default_rng(7)), dtype=float)
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert np.ptp(edge, axis=1).mean() < 40, "the frame shows the pale backdrop"
    chroma = np.ptp(picture, axis=2)
    assert 0.08 < (chroma > 60).mean() < 0.75
    coral = (picture[..., 0] > picture[..., 1] + 50).mean() / (chroma > 60).mean()
    assert coral < 0.12 if pattern == "plain" else coral > 0.12


def test_latent_attributes_are_balanced_and_independent_of_one_another() -> None:
    latents = draw_latents(CatalogueSettings())
    columns = {
        name: getattr(latents, name) for name in ("palette", "pattern", "theme", "category", "factory")
    }
    for name, column in columns.items():
        counts = np.bincount(column)
        assert counts.max() - counts.min() <= 1, name
    for a, b in combinations(columns, 2):
        assert abs(dependence(columns[a], columns[b])) < 4.5, (a, b)
    assert dependence(columns["theme"], columns["theme"]) > 100


def test_no_word_names_a_colour_a_pattern_or_a_factory() -> None:
    colours = (
        "colour color red blue green yellow orange purple violet pink black white grey gray brown teal navy coral "
        "cream golden gilt mustard beige"
    )
    patterns = "pattern stripe striped dot dotted check checked gingham zig zigzag spotted"
    names = [
        *PALETTE_NAMES,
        *PATTERNS,
        *colours.split(),
        *patterns.split(),
        *(f"factory {k}" for k in range(1, 13)),
    ]
    text = " ".join(row["title"] + " " + row["description"] for row in draw_catalogue().rows).lower()
    assert not [name for name in names if re.search(rf"\b{name}s?\b", text)]


def test_words_do_not_depend_on_how_a_product_looks_nor_pictures_on_what_is_said() -> None:
    catalogue = draw_catalogue()
    latents = catalogue.latents
    length = np.array([len(row["description"]) // 40 for row in catalogue.rows])
    pictured = np.array([bool(row["image"]) for row in catalogue.rows]).astype(int)
    brand = np.unique([row["brand"] for row in catalogue.rows], return_inverse=True)[1]
    for told in (length, pictured, brand):
        assert abs(dependence(latents.style, told)) < 4.5
    for hidden in (brand, pictured, latents.factory):
        assert abs(dependence(latents.theme, hidden)) < 4.5
    assert "theme" not in render.__code__.co_varnames
    assert {"palette", "pattern", "style"}.isdisjoint(words.THEMES[0]._fields)


def test_some_items_have_no_picture_and_some_no_description() -> None:
    rows = draw_catalogue().rows
    assert 0.015 < np.mean([not row["image"] for row in rows]) < 0.05
    assert 0.015 < np.mean([not row["description"] for row in rows]) < 0.05


def test_every_theme_has_words_enough_and_no_word_twice() -> None:
    assert len(words.THEMES) == 40
    for theme in words.THEMES:
        assert len(set(theme.titles)) >= 4
        assert len(set(theme.things)) >= 4
        assert len(set(theme.doings)) >= 2
    titles = [title for theme in words.THEMES for title in theme.titles]
    assert len(titles) == len(set(titles))


def test_precision_at_5_counts_shared_labels_and_missing_neighbours_as_wrong() -> None:
    labels = {"a": "x", "b": "x", "c": "y", "d": "y"}
    assert precision_at_5({"a": ["b", "c", "d"]}, labels) == pytest.approx(1 / 5)
    assert precision_at_5({"a": ["b"] * 5, "c": ["a"] * 5}, labels) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no item"):
        precision_at_5({}, labels)


def test_chance_is_what_random_neighbours_attain() -> None:
    rng = np.random.default_rng(0)
    labels = {f"i{k}": str(k % 5) for k in range(100)}
    ids = list(labels)
    random = nearest(ids, rng.normal(size=(100, 30)).astype(np.float32))
    assert chance(labels) == pytest.approx(19 / 99)
    assert precision_at_5(random, labels) == pytest.approx(chance(labels), abs=0.06)


def test_nearest_never_names_the_item_itself() -> None:
    same = np.ones((7, 3), dtype=np.float32)
    ids = [f"i{k}" for k in range(7)]
    found = nearest(ids, same)
    assert found["i0"] == ["i1", "i2", "i3", "i4", "i5"]
    assert all(item not in near for item, near in found.items())


def test_palettes_are_hex_triples_and_every_kind_of_product_has_an_outline() -> None:
    assert set(drawing.SHAPES) == set(CATEGORIES)
    assert all(
        re.fullmatch(r"#[0-9A-Fa-f]{6}", colour) for three in drawing.PALETTES.values() for colour in three
    )
