"""A small shop on disk and in a store, and an encoder whose every call is seen, for tests of what is computed when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from featurestore.store import Store
from ingest.encode import base
from ingest.load import ingest
from tests.ingest.tiny_models import picture

ROWS: list[dict[str, Any]] = [
    {"item_id": "a", "title": "red shoe", "brand": "Runwell", "tags": ["sport", "red"], "image": "a.png"},
    {"item_id": "b", "title": "blue shoe", "brand": "Runwell", "tags": ["sport"], "image": "b.png"},
    {"item_id": "c", "title": "green mug", "brand": "Cuppa", "tags": [], "image": "c.png"},
    {"item_id": "d", "title": "tall mug", "brand": None, "tags": None, "image": "a.png"},
    {"item_id": "e", "title": "red shoe", "brand": "Runwell", "tags": ["sport", "red"], "image": None},
    {"item_id": "f", "title": None, "brand": None, "tags": None, "image": None},
]
SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("brand", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("image", pa.string()),
    ]
)


def pictures(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, colour in (("a", "#c03030"), ("b", "#3030c0"), ("c", "#30a030")):
        picture(colour).save(folder / f"{name}.png")
    return folder


def fill(store: Store, rows: Sequence[dict[str, Any]] = ROWS) -> None:
    """Ingest rows; the pictures lie beside the store."""
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    ingest(store, table, images_root=pictures(store.root.parent / "pictures"))


def edited(item_id: str, **changes: Any) -> list[dict[str, Any]]:
    return [row | changes if row["item_id"] == item_id else row for row in ROWS]


class Seen:
    """A text encoder that remembers its texts. `answer` makes the vectors."""

    def __init__(self, dim: int, answer: Callable[[Sequence[str]], np.ndarray] | None = None) -> None:
        self.dim, self.batch_size = dim, 4
        self.texts: list[str] = []
        self.answer = answer or self.plain

    def plain(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[len(text), *([1.0] * (self.dim - 1))] for text in texts], np.float32)

    def encode(self, texts: Sequence[str], role: str = "document") -> np.ndarray:
        self.texts += texts
        return self.answer(texts)


class SeenOptions(base.TextOptions):
    dim: int = 3


class SeenMaker(base.Maker[SeenOptions]):
    name, kind, options = "seen", "embed_text", SeenOptions
    code_version: ClassVar[int] = 1
    needs_model: ClassVar[bool] = False

    def __init__(self) -> None:
        self.encoder = Seen(3)

    def resolve(self, options: Any, model: Any, models: Any, device: str = "auto") -> base.Resolved:
        return base.Resolved(options.model_dump(mode="json"), options.dim)

    def load(self, recipe: Any, tools: Any) -> Seen:
        return self.encoder


def scribble(folder: Path, name: str) -> None:
    """Another picture under the same name."""
    Image.new("RGB", (40, 40), "#808000").save(folder / name)
