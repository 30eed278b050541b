from __future__ import annotations

import colorsys
import time

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ingest.encode.color_texture import (
    COLOUR_DIM,
    DIM,
    LAYOUT_DIM,
    SHAPE_DIM,
    SIZE,
    ColorTexture,
    ColorTextureEncoder,
    ColorTextureOptions,
    object_mask,
    to_lab,
)
from tests.ingest.tiny_models import picture

SHAPES = ("ellipse", "rectangle", "triangle", "bar")
PATTERNS = ("plain", "rows", "columns", "dots")
# of a striped red disc, every 12th number, by code_version: when it differs, raise ColorTexture.code_version
GOLDEN = {
    1: [
        0.0000,
        0.0000,
        0.0000,
        0.0000,
        0.0000,
        0.0301,
        0.0060,
        -0.0186,
        0.0324,
        0.0136,
        0.0324,
        0.0194,
        0.0043,
        0.0043,
        0.0061,
        0.0057,
        0.0175,
        0.0141,
        0.0000,
        0.0000,
        0.0000,
    ],
}


def encode(*pictures: Image.Image, options: ColorTextureOptions | None = None) -> np.ndarray:
    encoder = ColorTextureEncoder(options)
    return encoder.encode([encoder.prepare(image) for image in pictures])


def product(shape: str, hue: int, pattern: str, rng: np.random.Generator, size: int = 120) -> Image.Image:
    """A product before a light ground: place, size, shade and phase of the pattern vary."""
    r, cx, cy = size * rng.uniform(0.28, 0.38), *(size / 2 + rng.uniform(-6, 6, 2))
    mask = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(mask)
    if shape == "triangle":
        draw.polygon([(cx, cy - r), (cx - r, cy + r), (cx + r, cy + r)], fill=255)
    elif shape == "ellipse":
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=255)
    else:
        high = r if shape == "rectangle" else r / 2.2
        draw.rectangle((cx - r, cy - high, cx + r, cy + high), fill=255)
    shade = hue / 6 + rng.uniform(-0.02, 0.02), rng.uniform(0.65, 0.85), rng.uniform(0.55, 0.75)
    surface = Image.new("RGB", (size, size), tuple(int(255 * c) for c in colorsys.hsv_to_rgb(*shade)))
    draw = ImageDraw.Draw(surface)
    light = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(shade[0], 0.25, 0.97))
    step, phase = rng.uniform(9, 12), rng.uniform(0, 9)
    for at in np.arange(phase - step, size, step):
        if pattern == "rows":
            draw.rectangle((0, at, size, at + step / 2), fill=light)
        elif pattern == "columns":
            draw.rectangle((at, 0, at + step / 2, size), fill=light)
        elif pattern == "dots":
            for other in np.arange(phase - step, size, step):
                draw.ellipse((at, other, at + step / 2, other + step / 2), fill=light)
    image = Image.new("RGB", (size, size), tuple(int(c) for c in rng.integers(238, 255, 3)))
    image.paste(surface, (0, 0), mask)
    return image


def test_output_is_that_of_its_code_version() -> None:
    found = encode(picture("#c03030", stripes=True))[0, ::12]
    np.testing.assert_allclose(found, np.array(GOLDEN[ColorTexture.code_version]), atol=2e-3)


def test_the_nearest_of_a_product_are_those_of_its_colour_and_pattern() -> None:
    rng = np.random.default_rng(0)
    kinds = [(s, h, p) for s in SHAPES for h in range(6) for p in PATTERNS for _ in range(3)]
    vectors = encode(*(product(*kind, rng) for kind in kinds))
    near = vectors @ vectors.T
    np.fill_diagonal(near, -1)
    nearest = np.argsort(-near, axis=1)[:, :2]
    look = np.array([f"{hue}{pattern}" for _, hue, pattern in kinds])
    assert (look[nearest] == look[:, None]).mean() > 0.95
    shape = np.array([kind[0] for kind in kinds])
    assert (shape[nearest] == shape[:, None]).mean() > 0.4  # chance: 0.25; the outline counts least


@pytest.mark.parametrize("part", ["colour", "shape", "texture"])
def test_each_part_alone_sees_its_own_attribute(part: str) -> None:
    rng = np.random.default_rng(1)
    kinds = [(s, h, p) for s in SHAPES for h in range(6) for p in PATTERNS for _ in range(2)]
    weights = dict.fromkeys(("colour", "layout", "shape", "texture"), 0.0) | {part: 1.0}
    vectors = encode(*(product(*kind, rng) for kind in kinds), options=ColorTextureOptions(**weights))
    near = vectors @ vectors.T
    np.fill_diagonal(near, -1)
    own = np.array([kind[{"shape": 0, "colour": 1, "texture": 2}[part]] for kind in kinds])
    assert (own[near.argmax(axis=1)] == own).mean() > 0.95


def test_place_and_size_of_the_object_matter_little() -> None:
    large = picture("#3050c0", size=(120, 120))
    moved = Image.new("RGB", (160, 160), "white")
    moved.paste(large.resize((90, 90)), (55, 10))
    other = picture("#3050c0", shape="rectangle", size=(120, 120), stripes=True)
    a, b, c = encode(large, moved, other)
    assert a @ b > 0.93
    assert a @ b > a @ c + 0.1


def test_the_object_is_cut_out_of_a_plain_ground_with_its_holes_filled() -> None:
    image = picture("#208040", size=(SIZE, SIZE))
    ImageDraw.Draw(image).ellipse((27, 27, 37, 37), fill="white")
    mask = object_mask(to_lab(np.asarray(image))[None])[0]
    assert mask[32, 32] == 1
    assert mask[2, 2] == 0
    assert 0.2 < mask.mean() < 0.4


def test_a_picture_without_a_plain_border_is_looked_at_whole() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8)
    assert object_mask(to_lab(noise)[None]).min() == 1
    vector = encode(Image.fromarray(noise))[0]
    start = COLOUR_DIM + LAYOUT_DIM
    assert not vector[start : start + SHAPE_DIM].any()
    assert vector[:COLOUR_DIM].any()


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (1, 1), "red"),
        Image.new("RGB", (3, 900), "white"),
        Image.new("RGB", (700, 2), "black"),
        Image.new("L", (50, 50), 128),
    ],
)
def test_any_size_and_an_empty_picture_give_a_unit_vector(image: Image.Image) -> None:
    vector = encode(image)
    assert vector.shape == (1, DIM)
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1, rel=1e-5)


def test_a_vector_does_not_hang_on_its_batch() -> None:
    pictures = [picture(c, stripes=s) for c in ("#c03030", "#3030c0", "#30c030") for s in (False, True)]
    together = encode(*pictures)
    for place, image in enumerate(pictures):
        np.testing.assert_allclose(encode(image)[0], together[place], atol=1e-6)


def test_no_pictures_give_no_vectors() -> None:
    assert ColorTextureEncoder().encode([]).shape == (0, DIM)


def test_it_is_fast() -> None:
    encoder = ColorTextureEncoder()
    ready = [encoder.prepare(picture("#c03030", stripes=True))] * 64
    encoder.encode(ready)
    begun = time.process_time()
    encoder.encode(ready)
    assert 64 / (time.process_time() - begun) > 100  # 550 on an idle core
