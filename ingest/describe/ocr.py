"""`ocr`: the text that stands on a picture, read by RapidOCR (PP-OCRv4 in ONNX; its models are inside the package).

Nothing is asked and nothing made up: what is read above a confidence, line by line from top to bottom, is the text; a
picture without any is an empty answer, which becomes `no_input`. The models read Chinese and Latin letters.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from featurestore.errors import CellError, MissingExtra, ModelUnavailable
from featurestore.files import sha256_file
from ingest.describe.base import RUNTIME, Answer, DescribeOptions, Maker, Request, Resolved, register

if TYPE_CHECKING:
    from PIL import Image

    from featurestore.recipe import Recipe
    from ingest.encode.base import Tools
    from ingest.encode.models import Models

PACKAGE = "rapidocr-onnxruntime"
MODULE = "rapidocr_onnxruntime"


class OcrOptions(DescribeOptions):
    min_confidence: float = Field(
        default=0.7, ge=0, le=1, description="Lines that are read with less confidence are left out."
    )
    threads: int = Field(
        default=1, ge=1, le=64, description="Processor threads for one picture.", json_schema_extra=RUNTIME
    )


@register("ocr", options=OcrOptions)
class Ocr(Maker[OcrOptions]):
    needs_model: ClassVar[bool] = False

    def resolve(
        self, options: OcrOptions, model: str | None, models: Models, device: str = "auto"
    ) -> Resolved:
        return Resolved(options=options.recipe() | {"reader": _identity()})

    def load(self, recipe: Recipe, options: OcrOptions, tools: Tools) -> OcrDescriber:
        here, wanted = _identity(), recipe.options["reader"]
        if here != wanted:
            raise ModelUnavailable(
                f"the recipe was made with {_name(wanted)}, and {_name(here)} is installed",
                remedy=f"pip install {_name(wanted).replace(' ', '==')}, or give the feature another name to read anew",
            )
        return OcrDescriber(float(str(recipe.options["min_confidence"])), options.threads)


@dataclass(frozen=True)
class Piece:
    """One stretch of text, and the box that it fills in the picture, in pixels."""

    text: str
    left: float
    top: float
    right: float
    bottom: float


class OcrDescriber:
    """Pictures one after the other: the answer of a request is the text of all its pictures."""

    def __init__(self, min_confidence: float, threads: int) -> None:
        self._engine: Any = _engine(min_confidence, threads)

    def describe(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | CellError]]:
        for place, request in enumerate(requests):
            pictures = [part for turn in request.turns for part in turn.parts if not isinstance(part, str)]
            begun = time.monotonic()
            text = "\n".join(filter(None, (self.read(picture) for picture in pictures)))
            yield place, Answer(text, "stop", None, None, time.monotonic() - begun)

    def read(self, picture: Image.Image) -> str:
        """Lines of text from top to bottom; "" for a picture without text."""
        found, _ = self._engine(np.asarray(picture.convert("RGB"))[:, :, ::-1])
        pieces = [_piece(box, text) for box, text, _ in found or [] if text.strip()]
        return "\n".join(" ".join(piece.text for piece in line) for line in lines(pieces))

    def close(self) -> None:
        self._engine = None


def lines(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Pieces in reading order: lines from top to bottom, within a line from left to right.

    Two pieces stand on one line if the middle of each is between top and bottom of the other, so that two small lines
    beside a large word stay two.
    """
    found: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda p: (p.top + p.bottom, p.left)):
        if found and _level(found[-1][0], piece):
            found[-1].append(piece)
        else:
            found.append([piece])
    return [sorted(line, key=lambda p: (p.left, p.top)) for line in found]


def _level(a: Piece, b: Piece) -> bool:
    return a.top <= (b.top + b.bottom) / 2 <= a.bottom and b.top <= (a.top + a.bottom) / 2 <= b.bottom


def _piece(box: Any, text: str) -> Piece:
    across, down = np.asarray(box, np.float64).T
    return Piece(text.strip(), *(float(v) for v in (across.min(), down.min(), across.max(), down.max())))


def _engine(min_confidence: float, threads: int) -> Any:
    try:
        import cv2
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise _missing(str(error)) from error
    cv2.setNumThreads(threads)
    return RapidOCR(text_score=min_confidence, intra_op_num_threads=threads, inter_op_num_threads=1)


def _identity() -> dict[str, Any]:
    """Package, version and the hash of each of its models: all that decides what is read."""
    try:
        release, spec = version(PACKAGE), find_spec(MODULE)
    except PackageNotFoundError as error:
        raise _missing("it is not installed") from error
    assert spec is not None
    assert spec.origin is not None
    models = sorted((Path(spec.origin).parent / "models").glob("*.onnx"))
    return {"package": PACKAGE, "version": release, "models": {m.name: sha256_file(m) for m in models}}


def _name(identity: Any) -> str:
    return f"{identity['package']} {identity['version']}"


def _missing(reason: str) -> MissingExtra:
    return MissingExtra(
        f"encoder 'ocr' needs the package {PACKAGE}: {reason}",
        remedy="pip install 'dualview[ocr]'; where libGL is missing (a server without a screen): "
        "pip uninstall opencv-python && pip install opencv-python-headless",
    )
