"""Builds the stores that this study trains on, from the data sets and two encoders as local folders.

    python -m benchmarks.studies.dmesr.build --data FOLDER --models FOLDER [--only ml-1m]

FOLDER of the data sets holds ml-1m-posters/, microlens-50k/ and amazon-scientific/, each with items.csv and
interactions.csv; that of the models holds all-MiniLM-L6-v2/ and efficientnet_lite1/ (timm's tf_efficientnet_lite1). The
stores come to stand in `stores/` beside this file. Killed and started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dualview import Store, materialize
from dualview.console import Progress, say

HERE = Path(__file__).parent
SETS = {"amazon-scientific": "amazon-scientific", "microlens-50k": "microlens-50k", "ml-1m": "ml-1m-posters"}

SENTENCE = """
[features.text]             # the item's whole text
kind = "embed_text"
inputs = ["text"]
encoder = "sentence"
model = "{models}/all-MiniLM-L6-v2"

[features.words]            # its rare words
kind = "embed_text"
inputs = ["text"]
encoder = "tfidf_svd"

[features.text_tokens]      # its parts, each a vector
kind = "embed_tokens"
encoder = "sentence"
model = "{models}/all-MiniLM-L6-v2"
max_tokens = 8
"""
PARTS = {
    "amazon-scientific": 'inputs = ["text"]\nsplit = [". "]\nchunk_words = 16\n',
    "microlens-50k": 'inputs = ["text"]\nsplit = ["#"]\nchunk_words = 16\n',
    "ml-1m": 'inputs = ["title", "genres", "description"]\nchunk_words = 40\n',
}
PICTURES = """
[features.ocr]              # what stands on the poster
kind = "describe"
inputs = ["image"]
encoder = "ocr"

[features.ocr_text]
kind = "embed_text"
inputs = ["ocr"]
encoder = "sentence"
model = "{models}/all-MiniLM-L6-v2"

[features.image]
kind = "embed_image"
inputs = ["image"]
encoder = "timm"
model = "{models}/efficientnet_lite1"
"""


def build(name: str, data: Path, models: Path) -> None:
    root = HERE / "stores" / name
    declared = SENTENCE + PARTS[name] + (PICTURES if name == "ml-1m" else "")
    declared = declared.format(models=models.resolve())
    if not root.exists():
        Store.create(root, features_toml=declared)
    store = Store.open(root)
    folder = data / SETS[name]
    store.ingest(folder / "items.csv", interactions=folder / "interactions.csv")
    with Progress() as progress:
        report = materialize(store, progress=progress)
    say(f"{name}: {report.to_dict()}")
    store.publish()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", choices=SETS, action="append")
    asked = parser.parse_args()
    for name in asked.only or SETS:
        build(name, asked.data, asked.models)


if __name__ == "__main__":
    main()
