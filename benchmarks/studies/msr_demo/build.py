"""Makes what this study reads: a small shop as raw files, and the tiny model that is fine-tuned.

python -m benchmarks.studies.msr_demo.build benchmarks/out/msr-demo

FOLDER/shop holds items.csv, events.csv and pictures, as a shop would have them, and about.parquet and summary.parquet:
what a good describing model would say of each text, and of text and picture. No model of that kind can be run here, so
they are written from the truth of the drawn shop. FOLDER/model is the language model; `base` tells what it was taught.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dualview.demo.catalogue import CATEGORIES, PALETTE_NAMES, THEME_NAMES, CatalogueSettings
from dualview.demo.drawing import PATTERNS
from dualview.demo.taste import TasteSettings
from dualview.demo.truth import drawn_with, make_shop
from featurestore.errors import Conflict

CATALOGUE = CatalogueSettings(items=600)
TASTE = TasteSettings(users=1500, drift=0.1)


def make_texts(shop: Path) -> list[str]:
    """about.parquet and summary.parquet; returns every text that the model may meet, for its vocabulary."""
    items = json.loads((shop / "truth.json").read_text(encoding="utf-8"))["items"]
    ids = [row["item_id"] for row in items]
    about = [f"{row['theme']} {row['category']}" for row in items]
    look = [f"{row['palette']} {row['pattern']}" for row in items]
    said = {"about": about, "summary": [f"{a}, {b}" for a, b in zip(about, look, strict=True)]}
    for name, texts in said.items():
        pq.write_table(pa.table({"item_id": ids, "text": texts}), shop / f"{name}.parquet")
    return [*PALETTE_NAMES, *PATTERNS, *THEME_NAMES, *CATEGORIES]


def titles(shop: Path) -> list[str]:
    import pyarrow.csv as csv

    found: list[str] = csv.read_csv(shop / "items.csv")["title"].to_pylist()
    return found


def build(folder: Path, catalogue: CatalogueSettings, taste: TasteSettings, steps: int) -> None:
    """What is there already is kept. steps: of teaching the model."""
    from benchmarks.studies.msr_demo import base

    shop = folder / "shop"
    if not (shop / "truth.json").exists():
        make_shop(shop, catalogue, taste)
    elif not drawn_with(shop, catalogue, taste):
        raise Conflict(f"{shop} holds another shop", remedy="give another folder, or delete this one")
    words = make_texts(shop)
    if not (folder / "model" / "model.safetensors").exists():
        begun = time.monotonic()
        base.save(folder / "model", [*words, *titles(shop)], steps=steps)
        print(f"the model was taught for {time.monotonic() - begun:.0f} s")


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(
        description="Draw the shop of the study and teach its model to compare texts."
    )
    parser.add_argument("folder", type=Path, help="where both go")
    parser.add_argument("--steps", type=int, default=1500, help="of teaching")
    asked = parser.parse_args()
    build(asked.folder, CATALOGUE, TASTE, asked.steps)
    print(asked.folder)


if __name__ == "__main__":
    main()
