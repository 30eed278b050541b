"""`color_texture`: the built-in image encoder. Colours, shape and pattern of what the picture shows, in plain numpy.

It needs no download and no fitting. What stands on a plain ground (most product photographs) is cut out first: pixels
unlike the border's colour are the object, and colour, shape and pattern are measured on it alone. In a picture without
a plain border the whole frame is the object, and the shape's part falls silent.

    part      size  what
    colour     47   soft histogram of the object in CIELAB: 12 hues x 3 lightnesses, 11 greys
    layout     27   mean colour of a 3 x 3 grid over the frame
    shape     136   the object's outline in its own square: 8 x 8 cover, 3 x 3 cells x 8 edge directions
    texture    36   inside the object: edge directions at two scales, local binary patterns, contrast
Each part is brought to length 1 (signed square root first, so that a few large bins do not rule), weighted, joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from ingest.encode.base import Maker, Options, Resolved, Tools, Vectors, normalised, register

if TYPE_CHECKING:
    from featurestore.recipe import Recipe
    from ingest.encode.models import Models

Float = npt.NDArray[np.floating[Any]]

SIZE = 64  # pictures are looked at as SIZE x SIZE
HUES, LIGHTS, GREYS = 12, 3, 11
BATCH = 64  # pictures encoded at once
GRID = 8  # cover of the object in its own square
CELLS, DIRECTIONS = 3, 8
LAYOUT = 3
BINARY = 10  # rotation-invariant uniform local binary patterns
COLOUR_DIM = HUES * LIGHTS + GREYS
LAYOUT_DIM = LAYOUT * LAYOUT * 3
SHAPE_DIM = GRID * GRID + CELLS * CELLS * DIRECTIONS
TEXTURE_DIM = 2 * (DIRECTIONS + 1) + 2 * (BINARY - 1)
DIM = COLOUR_DIM + LAYOUT_DIM + SHAPE_DIM + TEXTURE_DIM

NEAR, FAR = 6.0, 14.0  # CIELAB distance from the border's colour: below NEAR it is ground, above FAR object
PLAIN, BUSY = (
    0.75,
    0.45,
)  # share of border pixels near the border's colour: from PLAIN on it is cut out, below BUSY not at all


class ColorTextureOptions(Options):
    colour: float = Field(default=1.0, ge=0, description="Weight of the object's colours.")
    layout: float = Field(default=0.2, ge=0, description="Weight of where in the frame which colour is.")
    shape: float = Field(default=0.4, ge=0, description="Weight of the object's outline.")
    texture: float = Field(default=1.3, ge=0, description="Weight of the pattern on the object.")


@register("color_texture", kind="embed_image", options=ColorTextureOptions)
class ColorTexture(Maker[ColorTextureOptions]):
    code_version: ClassVar[int] = 1
    needs_model: ClassVar[bool] = False

    def resolve(
        self, options: ColorTextureOptions, model: str | None, models: Models, device: str = "auto"
    ) -> Resolved:
        return Resolved(options=options.model_dump(mode="json"), dim=DIM)

    def load(self, recipe: Recipe, tools: Tools) -> ColorTextureEncoder:
        return ColorTextureEncoder(
            ColorTextureOptions.model_validate(recipe.options), tools.batch_size or BATCH
        )


class ColorTextureEncoder:
    """Vectors of DIM numbers, normalised."""

    dim = DIM

    def __init__(self, options: ColorTextureOptions | None = None, batch_size: int = BATCH) -> None:
        weights = options or ColorTextureOptions()
        self.batch_size = batch_size
        self._weights = (weights.colour, weights.layout, weights.shape, weights.texture)

    def prepare(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """(SIZE, SIZE, 3) uint8. The picture is fitted into the square, the rest filled with its border's colour."""
        return fit_square(image)

    def encode(self, prepared: Sequence[Any]) -> Vectors:
        if not prepared:
            return np.zeros((0, DIM), np.float32)
        lab = to_lab(np.stack(prepared))  # (n, SIZE, SIZE, 3)
        obj = object_mask(lab)  # (n, SIZE, SIZE) in 0..1
        parts = (colours(lab, obj), layout(lab), shape(obj), texture(lab, obj))
        joined = [
            w * normalised(np.sign(p) * np.sqrt(np.abs(p))) for w, p in zip(self._weights, parts, strict=True)
        ]
        return normalised(np.concatenate(joined, axis=1).astype(np.float32))


def fit_square(image: Image.Image) -> npt.NDArray[np.uint8]:
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    scale = SIZE / max(rgb.size)
    size = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
    small = np.asarray(rgb.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR))
    if size == (SIZE, SIZE):
        return small
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    square = np.empty((SIZE, SIZE, 3), np.uint8)
    square[:] = np.median(border, axis=0)
    top, left = (SIZE - size[1]) // 2, (SIZE - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = small
    return square


_LINEAR = np.arange(256) / 255.0
_LINEAR = np.where(_LINEAR <= 0.04045, _LINEAR / 12.92, ((_LINEAR + 0.055) / 1.055) ** 2.4).astype(np.float32)
_XYZ = np.array(  # sRGB to XYZ, each row over the D65 white
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    np.float32,
)
_XYZ /= _XYZ.sum(axis=1, keepdims=True)


def to_lab(rgb: npt.NDArray[np.uint8]) -> Float:
    """sRGB uint8 (..., 3) to CIELAB float32 (..., 3): lightness 0..100, a and b around 0."""
    xyz = _LINEAR[rgb] @ _XYZ.T
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + np.float32(16 / 116))
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1
    ).astype(np.float32)


def object_mask(lab: Float) -> Float:
    """(n, S, S) in 0..1: where the object is. All ones where the border is not plain, or nothing differs from it."""
    frame = (lab[:, :2], lab[:, -2:], lab[:, :, :2], lab[:, :, -2:])
    border = np.concatenate([side.reshape(len(lab), -1, 3) for side in frame], axis=1)
    ground = np.median(border, axis=1)[:, None]  # (n, 1, 3)
    plain = np.mean(np.linalg.norm(border - ground, axis=2) < NEAR + 2, axis=1)
    trust = np.clip((plain - BUSY) / (PLAIN - BUSY), 0, 1)[:, None, None]
    distance = np.linalg.norm(lab - ground[:, None], axis=3)
    cut = np.clip((distance - NEAR) / (FAR - NEAR), 0, 1)
    cut = np.maximum(cut, enclosed(cut > 0.5))
    cut[cut.mean(axis=(1, 2)) < 0.005] = 1.0
    mask: Float = (trust * cut + (1 - trust)).astype(np.float32)
    return mask


def enclosed(solid: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Solid pixels with the holes in them filled: all that cannot be reached from the frame's edge (n, S, S)."""
    free = ~solid
    outside = np.zeros_like(free)
    for side in ((0, slice(None)), (-1, slice(None)), (slice(None), 0), (slice(None), -1)):
        outside[:, *side] = free[:, *side]
    last = -1
    while (count := int(outside.sum())) != last:
        last = count
        for axis in (1, 2):
            flow, way = np.moveaxis(outside, axis, 0), np.moveaxis(free, axis, 0)
            for i in range(1, SIZE):
                flow[i] |= flow[i - 1] & way[i]
            for i in range(SIZE - 2, -1, -1):
                flow[i] |= flow[i + 1] & way[i]
    return ~outside


def _histogram(weight: Float, *axes: tuple[Float, int, bool]) -> Float:
    """(n, bins of all axes): weights summed in bins, each shared between the two nearest centres along every axis.

    weight: (n, ...). axes: (position in bins, same shape as weight; number of bins; whether the last meets the first).
    """
    n = len(weight)
    first = np.broadcast_to(np.arange(n).reshape(-1, *[1] * (weight.ndim - 1)), weight.shape)
    shares: list[tuple[npt.NDArray[np.int64], Float]] = [(first, weight)]
    total = n
    for position, bins, circular in axes:
        low = np.floor(position)
        part = position - low
        below = low.astype(np.int64)
        above = (below + 1) % bins if circular else np.minimum(below + 1, bins - 1)
        shares = [
            (index * bins + place, share * near)
            for index, share in shares
            for place, near in ((below % bins, 1 - part), (above, part))
        ]
        total *= bins
    counts: Float = np.zeros(total, np.float64)
    for index, share in shares:
        counts += np.bincount(index.ravel(), share.ravel(), total)
    return counts.reshape(n, -1).astype(np.float32)


def colours(lab: Float, obj: Float) -> Float:
    """(n, 47): the object's colours, hues apart from greys. A pixel's chroma decides how much of it is a hue."""
    light, a, b = lab[..., 0], lab[..., 1], lab[..., 2]
    hue = np.arctan2(b, a) / np.float32(2 * np.pi) * HUES % HUES
    chromatic = np.clip((np.hypot(a, b) - 8) / 16, 0, 1)
    level = np.clip((light - 25) / 25, 0, LIGHTS - 1)
    hues = _histogram(obj * chromatic, (hue, HUES, True), (level, LIGHTS, False))
    greys = _histogram(obj * (1 - chromatic), (np.clip(light / 10, 0, GREYS - 1), GREYS, False))
    shares: Float = np.concatenate([hues, greys], axis=1) / obj.sum(axis=(1, 2))[:, None]
    return shares


def layout(lab: Float) -> Float:
    """(n, 27): mean colour of each cell of a 3 x 3 grid, lightness around middle grey."""
    edges = np.linspace(0, SIZE, LAYOUT + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(lab, edges[:-1], axis=1), edges[:-1], axis=2)
    spans = np.diff(edges).astype(np.float32)
    means: Float = sums / (spans[:, None] * spans)[None, :, :, None]
    means[..., 0] -= 50
    return means.reshape(len(lab), -1)


def shape(obj: Float) -> Float:
    """(n, 136): cover and outline of the object in the square around it. Zeros where the object fills the frame."""
    square = _own_square(obj)  # (n, SIZE, SIZE)
    n, step = len(obj), SIZE // GRID
    cover = square.reshape(n, GRID, step, GRID, step).mean(axis=(2, 4)).reshape(n, -1)
    cover -= cover.mean(axis=1, keepdims=True)
    power, direction = _edges(_halved(square))
    cell = np.arange(SIZE // 2) * CELLS // (SIZE // 2)
    place = np.broadcast_to((cell[:, None] * CELLS + cell).astype(np.float32), power.shape)
    outline = _histogram(power, (place, CELLS * CELLS, False), (direction * DIRECTIONS, DIRECTIONS, True))
    whole = (obj.min(axis=(1, 2)) > 0.5)[:, None]
    joined = np.concatenate(
        [normalised(cover.astype(np.float32)), normalised(outline.astype(np.float32))], axis=1
    )
    return np.where(whole, 0, joined).astype(np.float32)


def _own_square(obj: Float) -> Float:
    """The object enlarged to fill the frame along its longer side, centred, its proportions kept."""
    square = np.zeros_like(obj)
    place = np.arange(SIZE, dtype=np.float32) + 0.5
    for one, mask in zip(square, obj, strict=True):
        rows, columns = np.flatnonzero((mask > 0.5).any(axis=1)), np.flatnonzero((mask > 0.5).any(axis=0))
        if not len(rows):
            continue
        side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 3
        y = ((rows[0] + rows[-1] + 1) / 2 + (place / SIZE - 0.5) * side).astype(np.int32)
        x = ((columns[0] + columns[-1] + 1) / 2 + (place / SIZE - 0.5) * side).astype(np.int32)
        inside_y, inside_x = (y >= 0) & (y < SIZE), (x >= 0) & (x < SIZE)
        one[np.ix_(inside_y, inside_x)] = mask[np.ix_(y[inside_y], x[inside_x])]
    return square


def _halved(planes: Float) -> Float:
    """Every 2 x 2 pixels become their mean: (n, S, S, ...) -> (n, S/2, S/2, ...)."""
    rows = planes[:, ::2] + planes[:, 1::2]
    half: Float = (rows[:, :, ::2] + rows[:, :, 1::2]) / 4
    return half


def _edges(plane: Float) -> tuple[Float, Float]:
    """Strength and direction (0..1, half a turn, so that dark-to-light equals light-to-dark) of the gradient."""
    dy, dx = np.zeros_like(plane), np.zeros_like(plane)
    dy[:, 1:-1] = plane[:, 2:] - plane[:, :-2]
    dx[:, :, 1:-1] = plane[:, :, 2:] - plane[:, :, :-2]
    return np.hypot(dx, dy), (np.arctan2(dy, dx) / np.float32(np.pi)) % 1


def texture(lab: Float, obj: Float) -> Float:
    """(n, 36): the pattern inside the object, its outline left out. A plain object has its own bins (`flat`)."""
    parts = []
    for scale in (1, 2):
        planes, mask = lab, obj
        if scale == 2:
            planes, mask = _halved(lab), _halved(obj)
        inner = _eroded(mask, 2)
        area = np.maximum(inner.sum(axis=(1, 2)), 1)[:, None]
        # edges between colours of equal lightness count too
        grey = planes[..., 0] + 0.5 * planes[..., 1] + 0.25 * planes[..., 2]
        power, direction = _edges(grey)
        found = _histogram(power * inner, (direction * DIRECTIONS, DIRECTIONS, True)) / area
        total = found.sum(axis=1, keepdims=True)
        parts += [found / (total + 4), 4 / (total + 4)]
        counts = _binary_patterns(grey, inner)
        parts.append(counts / area)
    return np.concatenate(parts, axis=1).astype(np.float32)


def _eroded(mask: Float, by: int) -> Float:
    for _ in range(by):
        inner = mask.copy()
        for axis in (1, 2):
            for shift in (1, -1):
                np.minimum(inner, np.roll(mask, shift, axis), out=inner)
        mask = inner
    return mask


def _binary_patterns(grey: Float, inner: Float) -> Float:
    """(n, 9): how often, inside, k of the eight neighbours are brighter in one run (k = 1..8), or in several runs."""
    around = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
    brighter = [np.roll(grey, shift, (1, 2)) > grey + 3 for shift in around]
    count = np.zeros(grey.shape, np.int8)
    changes = np.zeros(grey.shape, np.int8)
    for place, bit in enumerate(brighter):
        count += bit
        changes += bit != brighter[place - 1]
    kind = np.where(changes > 2, BINARY - 1, count)  # 0: nothing brighter, which is no pattern
    return _histogram(inner, (kind.astype(np.float32), BINARY, False))[:, 1:]
