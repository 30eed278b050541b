"""Outlines of the ten kinds of product, each a little different every time it is drawn.

A product is a list of parts, drawn in order, later ones over earlier ones. A part is a polygon in the
product's own frame (x to the right, y down, both about -0.8 to 0.8) and the layer that says what it is
painted with."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (n, 2)


class Layer(IntEnum):
    """What a part is painted with. 0 is the backdrop."""

    BODY = 1  # the palette in its pattern
    TRIM = 2  # the palette's accent
    PLAIN = 3  # wood, metal or rubber: no palette colour
    DEEP = 4  # the dark inside of an opening


class Part(NamedTuple):
    layer: Layer
    points: Points


def mug(rng: np.random.Generator) -> list[Part]:
    w, h, taper = rng.uniform(0.42, 0.56), rng.uniform(0.42, 0.62), rng.uniform(0.78, 1.0)
    lip = rng.uniform(0.07, 0.11)
    side = [
        (-w, -h),
        (-w * (1 + taper) / 2, 0.0),
        (-w * taper, h * 0.86),
        (-w * taper * 0.8, h),
        (0.0, h + lip * 0.6),
    ]
    outline = spline(side + [(-x, y) for x, y in reversed(side[:-1])])
    reach, top, low = rng.uniform(0.26, 0.36), -h * 0.6, h * rng.uniform(0.35, 0.65)
    handle = spline([(w * 0.9, top), (w + reach, top * 0.8), (w + reach * 0.95, low * 0.6), (w * 0.85, low)])
    return [
        Part(Layer.TRIM, stroke(handle, rng.uniform(0.10, 0.14))),
        Part(Layer.BODY, outline),
        Part(Layer.TRIM, ellipse(0, -h, w, lip)),
        Part(Layer.DEEP, ellipse(0, -h, w * 0.9, lip * 0.72)),
    ]


def lamp(rng: np.random.Generator) -> list[Part]:
    top, low, height = rng.uniform(0.22, 0.40), rng.uniform(0.52, 0.68), rng.uniform(0.62, 0.78)
    y0 = -0.74
    y1, foot = y0 + height, 0.72
    shade = np.array([(-top, y0), (top, y0), (low, y1), (-low, y1)])
    edge = low - (low - top) * 0.11
    parts = [
        Part(Layer.PLAIN, stroke(np.array([(0.0, y1 - 0.1), (0.0, foot)]), rng.uniform(0.05, 0.10))),
        Part(Layer.PLAIN, ellipse(0, foot, rng.uniform(0.26, 0.38), 0.08)),
    ]
    if rng.random() < 0.5:  # a round belly on the stand
        parts.append(Part(Layer.PLAIN, ellipse(0, (y1 + foot) / 2 + 0.08, rng.uniform(0.13, 0.22), 0.2)))
    band = np.array([(-edge, y1 - height * 0.11), (edge, y1 - height * 0.11), (low, y1), (-low, y1)])
    return [*parts, Part(Layer.BODY, shade), Part(Layer.TRIM, band)]


def bag(rng: np.random.Generator) -> list[Part]:
    w, top, h = rng.uniform(0.50, 0.62), rng.uniform(0.85, 1.08), rng.uniform(0.44, 0.56)
    y0 = 0.72 - 2 * h
    body = spline(
        [(-w * top, y0), (-w, 0.66), (-w * 0.93, 0.74), (w * 0.93, 0.74), (w, 0.66), (w * top, y0)],
        tension=0.85,
    )
    arch, gap = rng.uniform(0.34, 0.5), w * rng.uniform(0.42, 0.6)
    loop = spline(
        [
            (-gap, y0 + 0.1),
            (-gap * 0.8, y0 - arch * 0.8),
            (0, y0 - arch),
            (gap * 0.8, y0 - arch * 0.8),
            (gap, y0 + 0.1),
        ]
    )
    parts = [Part(Layer.TRIM, stroke(loop, rng.uniform(0.06, 0.09))), Part(Layer.BODY, body)]
    if rng.random() < 0.6:
        parts.append(Part(Layer.TRIM, rectangle(-w * top * 0.995, y0, w * top * 0.995, y0 + 0.09)))
    if rng.random() < 0.4:
        parts.append(Part(Layer.PLAIN, rectangle(-0.11, 0.3, 0.11, 0.44)))
    return parts


def vase(rng: np.random.Generator) -> list[Part]:
    neck, belly, foot = rng.uniform(0.16, 0.28), rng.uniform(0.42, 0.58), rng.uniform(0.22, 0.34)
    where, lip = rng.uniform(-0.05, 0.35), rng.uniform(0.04, 0.07)
    flare = neck * rng.uniform(1.05, 1.4)
    side = [(-flare, -0.74), (-neck, -0.5), (-belly, where), (-foot * 1.08, 0.6), (-foot, 0.74), (0.0, 0.77)]
    outline = spline(side + [(-x, y) for x, y in reversed(side[:-1])], tension=0.2)
    return [
        Part(Layer.BODY, outline),
        Part(Layer.TRIM, ellipse(0, -0.74, flare, lip)),
        Part(Layer.DEEP, ellipse(0, -0.74, flare * 0.82, lip * 0.65)),
    ]


def bottle(rng: np.random.Generator) -> list[Part]:
    w, neck, shoulder = rng.uniform(0.27, 0.36), rng.uniform(0.11, 0.17), rng.uniform(-0.36, -0.2)
    side = [
        (-neck, -0.6),
        (-neck * 1.05, shoulder - 0.1),
        (-w, shoulder + 0.16),
        (-w, 0.2),
        (-w, 0.66),
        (-w * 0.86, 0.76),
    ]
    outline = spline(side + [(-x, y) for x, y in reversed(side)], tension=0.7)
    low = rng.uniform(0.46, 0.58)
    parts = [
        Part(Layer.BODY, outline),
        Part(Layer.PLAIN, rectangle(-neck * 1.25, -0.8, neck * 1.25, -0.56)),
        Part(Layer.TRIM, rectangle(-w, low, w, low + rng.uniform(0.08, 0.13))),
    ]
    if rng.random() < 0.4:
        loop = spline([(-neck, -0.7), (-neck - 0.14, -0.84), (neck + 0.14, -0.84), (neck, -0.7)])
        parts.insert(0, Part(Layer.TRIM, stroke(loop, 0.04)))
    return parts


def cushion(rng: np.random.Generator) -> list[Part]:
    w, h, pinch = rng.uniform(0.6, 0.72), rng.uniform(0.46, 0.68), rng.uniform(0.04, 0.12)
    corners = np.array([(-w, -h), (w, -h), (w, h), (-w, h)])
    edge: list[Points] = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        t = np.linspace(0, 1, 16, endpoint=False)[:, None]
        inward = -(a + b) / 2 / np.linalg.norm((a + b) / 2)
        edge.append(a + (b - a) * t + inward * pinch * np.sin(np.pi * t) ** 0.8)
    outline = np.concatenate(edge)
    parts = [Part(Layer.BODY, outline)]
    if rng.random() < 0.75:
        parts.append(
            Part(Layer.TRIM, stroke(np.concatenate([outline, outline[:1]]), rng.uniform(0.035, 0.06)))
        )
    else:
        parts.extend(Part(Layer.TRIM, ellipse(x, y, 0.07, 0.07)) for x, y in corners)
    return parts


def shirt(rng: np.random.Generator) -> list[Part]:
    w, sleeve, drop = rng.uniform(0.40, 0.48), rng.uniform(0.26, 0.36), rng.uniform(0.30, 0.46)
    half = [
        (0.16, -0.66), (w * 0.95, -0.56), (w + sleeve, -0.56 + drop), (w + sleeve - 0.2, -0.56 + drop + 0.16),
        (w, -0.22), (w * rng.uniform(0.95, 1.12), 0.72),
    ]  # fmt: skip
    outline = np.array(half + [(-x, y) for x, y in reversed(half)])
    neck = spline([(-0.17, -0.67), (0.0, -0.67 + rng.uniform(0.14, 0.26)), (0.17, -0.67)])
    cuff = [np.array(half[2]), np.array(half[3])]
    parts = [Part(Layer.BODY, outline), Part(Layer.DEEP, neck), Part(Layer.TRIM, stroke(neck, 0.055))]
    mirrored = np.array([-1.0, 1.0])
    return [
        *parts,
        *(Part(Layer.TRIM, stroke(side, 0.06)) for side in (np.array(cuff), np.array(cuff) * mirrored)),
    ]


def umbrella(rng: np.random.Generator) -> list[Part]:
    w, rise, ribs = rng.uniform(0.68, 0.8), rng.uniform(0.56, 0.72), int(rng.integers(4, 7))
    arc = np.linspace(np.pi, 2 * np.pi, 40)
    dome = np.stack([w * np.cos(arc), rise * np.sin(arc)], axis=1) - np.array([0, 0.02])
    hem: list[Points] = []
    knots = np.linspace(w, -w, ribs + 1)
    for a, b in pairwise(knots):
        t = np.linspace(0, 1, 10)
        hem.append(np.stack([a + (b - a) * t, -0.02 - 0.085 * np.sin(np.pi * t)], axis=1))
    stick = np.array([(0.0, -rise - 0.12), (0.0, 0.62)])
    hook = spline([(0.0, 0.5), (0.0, 0.7), (0.1, 0.8), (0.22, 0.74), (0.23, 0.64)])
    return [
        Part(Layer.PLAIN, stroke(stick, 0.045)),
        Part(Layer.TRIM, stroke(hook, rng.uniform(0.07, 0.1))),
        Part(Layer.BODY, np.concatenate([dome, *hem])),
        Part(Layer.TRIM, ellipse(0, -rise - 0.02, 0.09, 0.045)),
    ]


def notebook(rng: np.random.Generator) -> list[Part]:
    w, h, spine = rng.uniform(0.46, 0.58), rng.uniform(0.62, 0.74), rng.uniform(0.12, 0.22)
    parts = [
        Part(Layer.PLAIN, rectangle(-w + 0.06, -h + 0.05, w + 0.06, h + 0.06)),  # the pages
        Part(Layer.BODY, rectangle(-w, -h, w, h)),
        Part(Layer.TRIM, rectangle(-w, -h, -w + spine, h)),
    ]
    if rng.random() < 0.5:
        x = w - rng.uniform(0.14, 0.24)
        parts.append(Part(Layer.PLAIN, rectangle(x, -h, x + 0.05, h)))
    else:
        y = rng.uniform(-0.35, 0.0)
        parts.append(Part(Layer.PLAIN, rectangle(-0.16, y, 0.3, y + 0.2)))
    return parts


def shoe(rng: np.random.Generator) -> list[Part]:
    ankle, toe, tongue = rng.uniform(-0.68, -0.46), rng.uniform(-0.14, 0.02), rng.uniform(-0.06, 0.1)
    back = [(-0.74, 0.34), (-0.76, 0.0), (-0.7, ankle), (-0.3, ankle + 0.02)]
    front = [(tongue, ankle + 0.22), (0.36, toe), (0.68, toe + 0.1), (0.8, 0.34)]
    upper = spline(back + front, tension=0.9)
    sole = rectangle(-0.8, 0.32, 0.84, 0.32 + rng.uniform(0.12, 0.19))
    toecap = spline([(0.58, 0.34), (0.6, toe + 0.1), (0.7, toe + 0.13), (0.8, 0.34)])
    heel = spline([(-0.745, 0.34), (-0.76, 0.0), (-0.74, ankle * 0.4), (-0.6, 0.1), (-0.6, 0.34)])
    parts = [Part(Layer.BODY, upper), Part(Layer.TRIM, toecap), Part(Layer.TRIM, heel)]
    start, end = np.array((-0.26, ankle + 0.12)), np.array((0.26, toe - 0.02))
    for t in np.linspace(0.15, 0.95, 4):
        lace = start + (end - start) * t + np.array([(-0.07, 0.1), (0.05, -0.05)])
        parts.append(Part(Layer.PLAIN, stroke(lace, 0.04)))
    return [*parts, Part(Layer.PLAIN, sole)]


SHAPES: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "mug": mug,
    "lamp": lamp,
    "bag": bag,
    "vase": vase,
    "bottle": bottle,
    "cushion": cushion,
    "shirt": shirt,
    "umbrella": umbrella,
    "notebook": notebook,
    "shoe": shoe,
}


def spline(points: list[tuple[float, float]], *, tension: float = 0.5, steps: int = 10) -> Points:
    """Points on a Catmull-Rom curve through `points`; tension 1 gives straight lines, 0.5 the usual curve."""
    p = np.asarray(points, dtype=np.float64)
    padded = np.concatenate([p[:1], p, p[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    a, b, c, d = padded[:-3, None], padded[1:-2, None], padded[2:-1, None], padded[3:, None]
    slack = 1 - tension
    m0, m1 = (c - a) * slack, (d - b) * slack
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * b
        + (t**3 - 2 * t**2 + t) * m0
        + (3 * t**2 - 2 * t**3) * c
        + (t**3 - t**2) * m1
    )
    return np.concatenate([curve.reshape(-1, 2), p[-1:]])


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], axis=1)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Points:
    """Corners are slightly rounded."""
    r = 0.22 * min(x1 - x0, y1 - y0, 0.3)
    quarter = np.linspace(0, np.pi / 2, 5)
    arc = r * np.stack([np.cos(quarter), np.sin(quarter)], axis=1)
    turns = [
        ((x1 - r, y1 - r), (1, 1)),
        ((x0 + r, y1 - r), (-1, 1)),
        ((x0 + r, y0 + r), (-1, -1)),
        ((x1 - r, y0 + r), (1, -1)),
    ]
    rounded = [np.array(centre) + arc * np.array(sign) for centre, sign in turns]
    return np.concatenate([corner if k % 2 == 0 else corner[::-1] for k, corner in enumerate(rounded)])


def stroke(path: Points, width: float) -> Points:
    """The outline of a line of constant width along `path`."""
    along = np.gradient(path, axis=0)
    length = np.linalg.norm(along, axis=1, keepdims=True)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.maximum(length, 1e-9) * (width / 2)
    return np.concatenate([path + across, (path - across)[::-1]])
