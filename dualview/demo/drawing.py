"""Paints one product: outline, palette and pattern in, a small picture out.

`render` takes no theme, no words and no factory, so none of them can leak into a picture. Nuisance is drawn
on purpose: outline, size, place, tilt, mirroring, wavelength, phase and angle of the pattern, backdrop, light
and the exact hues differ from picture to picture of one style.

Outlines are drawn four times too large, patterns twice, and averaged down.
"""

from __future__ import annotations

import colorsys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dualview.demo.shapes import SHAPES, Layer, Points

if TYPE_CHECKING:
    from PIL.Image import Image

Field = NDArray[np.floating[Any]]  # float32

PALETTES: dict[str, tuple[str, str, str]] = {  # name -> ground, figure, accent
    "terracotta": ("#D0603F", "#4A2A22", "#E9C48A"),
    "marine": ("#1F3A5F", "#E3A72F", "#F2F0E6"),
    "meadow": ("#3B7A3E", "#D5E3A6", "#B5651D"),
    "plum": ("#6A2C70", "#F2A7CC", "#F7E27A"),
    "lagoon": ("#1B9A8C", "#FF8A66", "#FDF0D5"),
    "soot": ("#33383D", "#F2DD45", "#D64550"),
    "sky": ("#74BCEE", "#1F5FA8", "#FBFCFF"),
    "rose": ("#EAA2AB", "#7D1D3F", "#FFE9D6"),
}
PATTERNS = ("plain", "stripes", "dots", "checks", "zigzag")

BACKDROPS = ("#ECE9E4", "#E4E8EB", "#EEE7DA", "#E9E4EC", "#E3EAE2", "#F3F1EE", "#DDDEE2")
MATERIALS = ("#B98B5E", "#8C6239", "#D9B98A", "#9AA0A6", "#C9CCD1", "#5B5F66", "#EFEDE8")

WAVELENGTH = 0.30  # of a pattern, in units of the product's frame (which is 2 wide)
TURN = {"plain": 0.0, "stripes": 90.0, "dots": 20.0, "checks": 0.0, "zigzag": 0.0}  # degrees, before jitter


def render(category: str, palette: str, pattern: str, rng: np.random.Generator, px: int = 144) -> Image:
    """One product as an RGB picture of px x px, unlike any other."""
    labels, mirror, frame = _outline(category, rng, px)
    ground, figure, accent = (_jittered(colour, rng) for colour in PALETTES[palette])
    material = _jittered(MATERIALS[int(rng.integers(len(MATERIALS)))], rng)

    cover = [_cover(labels, layer) for layer in Layer]
    solid = np.minimum(sum(cover[1:], cover[0]), 1.0)
    share = _halved(_pattern(pattern, frame, mirror, rng, 2 * px))[..., None]
    paints = {
        Layer.BODY: ground + (figure - ground) * share,
        Layer.TRIM: accent,
        Layer.PLAIN: material,
        Layer.DEEP: ground * 0.42,
    }
    picture = _backdrop(solid, rng, px)
    light = _light(solid, rng, px)[..., None]
    picture *= (1 - solid)[..., None]
    for layer, mask in zip(Layer, cover, strict=True):
        picture += mask[..., None] * np.clip(paints[layer] * light, 0, 1)
    from PIL import Image

    grain = rng.normal(0, 0.006, (px, px, 1)).astype(np.float32)
    return Image.fromarray((np.clip(picture + grain, 0, 1) * 255 + 0.5).astype(np.uint8), "RGB")


def _outline(category: str, rng: np.random.Generator, px: int) -> tuple[Image, float, NDArray[np.float64]]:
    """Labels (4 px, 4 px) of what covers each point, the mirroring, and the 2x2 matrix from picture to
    product."""
    from PIL import Image, ImageDraw

    parts = SHAPES[category](rng)
    tilt = np.deg2rad(np.clip(rng.normal(0, 4.5), -11, 11))
    size = rng.uniform(0.92, 1.14) * np.array([rng.uniform(0.94, 1.06), 1.0])
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    to_picture = turn @ np.diag(size * (mirror, 1.0))
    shift = rng.uniform(-0.07, 0.07, 2)
    big = 4 * px
    sheet = Image.new("L", (big, big), 0)
    pen = ImageDraw.Draw(sheet)
    for layer, points in parts:
        placed: Points = (points @ to_picture.T + shift + 1) * (big / 2)
        pen.polygon(placed.ravel().tolist(), fill=int(layer))
    return sheet, mirror, np.linalg.inv(to_picture)


def _pattern(
    name: str, frame: NDArray[np.float64], mirror: float, rng: np.random.Generator, px: int
) -> Field:
    """Share of the figure colour at each point, 0 to 1. The pattern follows the product's own frame."""
    if name == "plain":
        return np.zeros((px, px), dtype=np.float32)
    x, y = _grid(px)
    wave = WAVELENGTH * rng.uniform(0.84, 1.2)
    angle = np.deg2rad(TURN[name] * mirror + rng.normal(0, 6))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) @ frame / wave
    u = np.float32(turn[0, 0]) * x + np.float32(turn[0, 1]) * y + np.float32(rng.uniform())
    v = np.float32(turn[1, 0]) * x + np.float32(turn[1, 1]) * y + np.float32(rng.uniform())
    soft = np.float32(px / 2 * wave / 2)  # the edge between two colours is about two points wide
    if name == "stripes":
        return _edge(np.abs(_saw(u)) - np.float32(rng.uniform(0.21, 0.29)), soft)
    if name == "dots":
        row = np.floor(v)
        across = _saw(u + 0.5 * np.mod(row, 2))
        return _edge(np.hypot(across, _saw(v - 0.5)) - np.float32(rng.uniform(0.26, 0.33)), soft)
    if name == "checks":  # gingham: half where one thread is coloured, whole where both are
        half = (_edge(np.abs(_saw(u)) - 0.25, soft), _edge(np.abs(_saw(v)) - 0.25, soft))
        return np.asarray((half[0] + half[1]) * 0.5, dtype=np.float32)
    bend = np.abs(_saw(u * np.float32(0.8))) * np.float32(1.1)
    return _edge(np.abs(_saw(v + bend)) - np.float32(rng.uniform(0.22, 0.28)), soft)


def _backdrop(solid: Field, rng: np.random.Generator, px: int) -> Field:
    """A pale wall and table, lit from one side, with the product's soft shadow."""
    x, y = _grid(px)
    wall = _jittered(BACKDROPS[int(rng.integers(len(BACKDROPS)))], rng, hue=0.01)
    horizon, drop = rng.uniform(0.45, 0.8), rng.uniform(0.03, 0.08)
    tone = 1 + rng.normal(0, 0.025) * x - 0.03 * y - drop * np.clip((y - horizon) * 12, 0, 1)
    shadow = np.roll(_blurred(solid, 5, px), (int(px * 0.035), int(rng.integers(-5, 6))), axis=(0, 1))
    tone = tone * (1 - rng.uniform(0.16, 0.30) * shadow)
    return np.asarray(np.clip(wall * tone[..., None], 0, 1), dtype=np.float32)


def _light(solid: Field, rng: np.random.Generator, px: int) -> Field:
    """How bright each point of the product is: a soft light from one side, darker towards the outline."""
    x, y = _grid(px)
    side, above = rng.normal(0, 0.09), rng.uniform(0.02, 0.10)
    round_off = np.float32(0.80) + np.float32(0.22) * _blurred(solid, 6, px)
    return np.asarray(rng.uniform(0.95, 1.06) * (1 + side * x - above * y) * round_off, dtype=np.float32)


def _blurred(mask: Field, radius: float, px: int) -> Field:
    from PIL import Image, ImageFilter

    small = Image.fromarray((mask * 255).astype(np.uint8), "L").reduce(2)
    soft = small.filter(ImageFilter.GaussianBlur(radius / 2 * px / 144)).resize(
        (px, px), Image.Resampling.BILINEAR
    )
    return np.asarray(soft, dtype=np.float32) / 255


def _jittered(colour: str, rng: np.random.Generator, hue: float = 0.012) -> Field:
    """An RGB colour near `colour`, float in [0, 1]."""
    r, g, b = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    h, s, v = colorsys.rgb_to_hsv(r, g, b)
    near = colorsys.hsv_to_rgb(
        (h + rng.normal(0, hue)) % 1.0,
        min(s * rng.uniform(0.9, 1.1), 1.0),
        min(v * rng.uniform(0.93, 1.07), 1.0),
    )
    return np.array(near, dtype=np.float32)


def _edge(distance: Field, soft: np.float32) -> Field:
    """1 where `distance` is negative, 0 where it is positive, smooth between."""
    return np.asarray(np.clip(np.float32(0.5) - distance * soft, 0, 1))


def _saw(t: Field) -> Field:
    """Distance to the nearest integer, with its sign: -0.5 to 0.5."""
    return np.asarray(t - np.round(t))


def _cover(labels: Image, layer: Layer) -> Field:
    """How much of each point of the picture a layer covers: (px, px), 0 to 1."""
    alone = labels.point([255 if value == layer else 0 for value in range(256)])
    return np.asarray(alone.reduce(4), dtype=np.float32) / 255


def _halved(values: Field) -> Field:
    """Mean over blocks of two by two points."""
    return np.asarray(
        (values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]) * np.float32(0.25)
    )


@lru_cache(maxsize=4)
def _grid(px: int) -> tuple[Field, Field]:
    """x and y of each point, both from -1 to 1."""
    axis = ((np.arange(px, dtype=np.float32) + 0.5) / px) * 2 - 1
    return np.broadcast_to(axis, (px, px)), np.broadcast_to(axis[:, None], (px, px))
