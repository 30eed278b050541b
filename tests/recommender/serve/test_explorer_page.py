"""The explorer's files by themselves: nothing from elsewhere, no markup out of data, and colours that can be read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "recommender" / "serve" / "page"
FILES = sorted(path for path in PAGE.rglob("*") if path.is_file())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]


def test_no_file_names_another_host() -> None:
    allowed = {"http://www.w3.org/2000/svg"}  # a name, never fetched
    for path in FILES:
        found = set(
            re.findall(r"""(?:https?:)?//[\w.-]+\.\w{2,}[\w./-]*""", path.read_text(encoding="utf-8"))
        )
        assert found <= allowed, path


def test_no_script_makes_markup_or_code_of_data() -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|createContextualFragment"
    for path in SCRIPTS:
        assert not re.search(forbidden, path.read_text(encoding="utf-8")), path
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|style=", page)


def test_every_import_and_link_names_a_file() -> None:
    for path in SCRIPTS:
        for name in re.findall(
            r"""(?:from|import)\s*\(?\s*["'](\.[^"']+)["']""", path.read_text(encoding="utf-8")
        ):
            assert (path.parent / name).resolve().is_file(), (path, name)
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    named = re.findall(r'(?:src|href)="page/([^"]+)"', page)
    assert named
    for name in named:
        assert (PAGE / name).is_file(), name


def test_a_wheel_holds_every_file() -> None:
    with (PAGE.parents[2] / "pyproject.toml").open("rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]["recommender"]
    packed = {path for pattern in patterns for path in PAGE.parents[1].glob(pattern)}
    assert set(FILES) <= packed


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, from 1 to 21."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


TEXT = [
    *((text, ground) for text in ("ink", "soft", "accent") for ground in ("page", "surface", "sunk")),
    *(("bad", ground) for ground in ("surface", "page", "bad-tint")),
    *[
        ("accent", "tint"),
        ("on-accent", "accent"),
        ("warm", "warm-tint"),
        ("ink", "bad-tint"),
        ("ink", "tint"),
    ],
]
CONTROLS = [
    *((edge, ground) for edge in ("edge", "accent") for ground in ("page", "surface")),
    *((f"f{n}", "surface") for n in range(8)),
]


@pytest.mark.parametrize("scheme", [":root {", ':root[data-theme="dark"] {'])
def test_colours_meet_wcag_aa(scheme: str) -> None:
    style = (PAGE / "style" / "tokens.css").read_text(encoding="utf-8")
    block = style.split(scheme, 1)[1].split("}", 1)[0]
    tokens = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    weak = [
        (one, other, round(contrast(tokens[one], tokens[other]), 2))
        for pairs, least in ((TEXT, 4.5), (CONTROLS, 3.0))
        for one, other in pairs
        if contrast(tokens[one], tokens[other]) < least
    ]
    assert not weak
