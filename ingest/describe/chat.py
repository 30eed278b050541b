"""What every chat model is sent of a request, in whatever way it is reached, so that two ways give one answer."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from pydantic import Field

from ingest.describe.base import PromptedOptions

if TYPE_CHECKING:
    from PIL import Image

    from ingest.describe.base import Request, Turn

MAX_PIXELS = 1_003_520  # 1,280 patches of 28 x 28 pixels
# what tokenizers read as a turn's end or a picture's place, wherever it stands
MARKS = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|<(?:im_start|im_end|endoftext|assistant|user|system|image|video|image_pad)>|\[/?INST\]"
    r"|\[IMG(?:_BREAK|_END)?\]|<</?SYS>>|</?(?:s|image|image_soft_token)>|<(?:start|end)_of_(?:turn|image)>|<[be]os>",
    re.IGNORECASE,
)


class PicturedOptions(PromptedOptions):
    max_pixels: int = Field(
        default=MAX_PIXELS,
        ge=28 * 28,
        description="A larger picture is shrunk in proportion to at most so many pixels before a model sees it.",
    )


def within(picture: Image.Image, max_pixels: int) -> Image.Image:
    """RGB, shrunk in proportion to at most `max_pixels`; a smaller one is left as it is."""
    from PIL.Image import Resampling

    width, height = picture.size
    if width * height > max_pixels:
        scale = math.sqrt(max_pixels / (width * height))
        picture = picture.convert("RGB").resize(
            (max(1, math.floor(width * scale)), max(1, math.floor(height * scale))), Resampling.LANCZOS
        )
    return picture.convert("RGB")


def unmarked(text: str) -> str:
    """A text whose marks of a chat are taken apart by a blank, so that what an item says never ends its own turn."""
    return MARKS.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", text)


def parts(turn: Turn, max_pixels: int) -> list[str | Image.Image]:
    """A turn's texts, without marks of a chat, and pictures, in order.

    Texts that follow each other are one text, as a chat template sees them.
    """
    found: list[str | Image.Image] = []
    for part in turn.parts:
        if not isinstance(part, str):
            found.append(within(part, max_pixels))
        elif found and isinstance(found[-1], str):
            found[-1] += part
        else:
            found.append(part)
    return [unmarked(part) if isinstance(part, str) else part for part in found]


def pictures(request: Request) -> int:
    return sum(not isinstance(part, str) for turn in request.turns for part in turn.parts)
