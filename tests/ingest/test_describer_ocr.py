"""The ocr describer: text that is drawn here is read; a picture without text is not given any."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from featurestore.errors import ModelUnavailable
from featurestore.recipe import Recipe
from featurestore.schema import ValueKind
from ingest.describe.base import Answer, Request, Turn, maker
from ingest.describe.ocr import OcrDescriber, OcrOptions, Piece, lines
from ingest.encode.base import Tools
from ingest.encode.models import Models

pytest.importorskip("rapidocr_onnxruntime", reason="its packages have no release for this Python")


def poster(*texts: tuple[str, tuple[int, int], int]) -> Image.Image:
    picture = Image.new("RGB", (420, 300), "white")
    for text, place, size in texts:
        ImageDraw.Draw(picture).text(place, text, "black", ImageFont.load_default(size))
    return picture


def request(picture: Image.Image) -> Request:
    return Request("i", (Turn("user", (picture,)),))


@pytest.fixture(scope="module")
def reader() -> OcrDescriber:
    return OcrDescriber(0.5, threads=1)


def test_text_on_a_picture_is_read_from_top_to_bottom_and_from_left_to_right(reader: OcrDescriber) -> None:
    picture = poster(("WARS", (230, 40), 50), ("STAR", (30, 40), 50), ("return", (60, 180), 36))
    pictures = [picture, Image.new("RGB", (200, 150), "navy")]
    found = dict(reader.describe([request(p) for p in pictures]))
    texts = [found[k].text for k in (0, 1) if isinstance(found[k], Answer)]  # type: ignore[union-attr]
    assert texts == ["STAR WARS\nreturn", ""]
    assert texts[0] == reader.read(picture), "reading is deterministic"


def test_what_is_read_with_little_confidence_is_left_out() -> None:
    assert OcrDescriber(1.0, threads=1).read(poster(("STAR", (30, 40), 50))) == ""


def test_a_recipe_names_the_reader_s_models_and_another_reader_is_refused(tmp_path: Path) -> None:
    made, models = maker("ocr"), Models(tmp_path)
    resolved = made.resolve(OcrOptions(threads=2), None, models)
    assert resolved.model is None
    assert len(resolved.options["reader"]["models"]) == 3
    assert "threads" not in resolved.options
    recipe = Recipe(
        kind="describe", inputs=("image",), encoder="ocr", options=resolved.options, value=ValueKind.TEXT
    )
    tools = Tools(models, artifacts=None)  # type: ignore[arg-type]
    made.load(recipe, OcrOptions(), tools).close()
    older = resolved.options | {"reader": resolved.options["reader"] | {"version": "1.2.3"}}
    with pytest.raises(ModelUnavailable, match=r"rapidocr-onnxruntime 1\.2\.3"):
        made.load(recipe.model_copy(update={"options": older}), OcrOptions(), tools)


def test_two_small_lines_beside_a_large_word_stay_two() -> None:
    large = Piece("LARGE", 0, 0, 100, 60)
    upper, lower = Piece("upper", 110, 0, 150, 20), Piece("lower", 110, 40, 150, 60)
    assert [[p.text for p in line] for line in lines([lower, large, upper])] == [
        ["upper"],
        ["LARGE"],
        ["lower"],
    ]


sides = st.floats(0, 500, allow_nan=False)
pieces = st.builds(
    lambda text, x, y, w, h: Piece(text, x, y, x + w, y + h), st.text(max_size=4), sides, sides, sides, sides
)


@given(st.lists(pieces, max_size=12), st.randoms())
def test_every_piece_is_read_once_whatever_order_it_was_found_in(found: list[Piece], random: object) -> None:
    read = lines(found)
    assert sorted(map(repr, found)) == sorted(repr(piece) for line in read for piece in line)
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert [sorted(map(repr, line)) for line in lines(shuffled)] == [sorted(map(repr, line)) for line in read]
