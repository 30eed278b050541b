"""Text throughput of `materialize` against the sentence-transformers library's own `encode`.

    python -m benchmarks.text_speed [--model FOLDER] [--texts 1500]

Without `--model` a model of all-MiniLM-L6-v2's shape with random weights is made: its speed is the same, its vectors
are worthless.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import tempfile
from pathlib import Path

from benchmarks.harness import Comparison, measure, save
from benchmarks.tiny import minilm_shape
from dualview import Store, materialize
from dualview.demo.catalogue import CatalogueSettings, draw_catalogue
from ingest.document import documents

FEATURES = """
[features.text]
kind = "embed_text"
inputs = ["text"]
encoder = "sentence"
model = "{model}"
"""


def comparison(folder: Path, model: Path, texts: int) -> Comparison:
    import pyarrow as pa
    from sentence_transformers import SentenceTransformer

    drawn = draw_catalogue(CatalogueSettings(items=texts)).rows
    table = pa.table({name: [row[name] for row in drawn] for name in ("item_id", "title", "description")})
    template = Store.create(folder / "template", features_toml=FEATURES.format(model=model))
    template.ingest(table)
    written = documents(table, ["title", "description"])
    number = itertools.count()
    prepared: list[Store] = []

    def before() -> None:
        copy = folder / f"copy{next(number)}"
        shutil.copytree(template.root, copy)
        prepared.append(Store.open(copy))

    return Comparison(
        "text to stored vectors",
        f"materialize (read, encode, hash, commit) against loading the model and encoding, {texts:,} product texts",
        lambda: materialize(prepared[-1], device="cpu"),
        lambda: SentenceTransformer(str(model), device="cpu").encode(
            written, batch_size=32, show_progress_bar=False
        ),
        texts,
        "texts",
        0.9,
        before=before,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--texts", type=int, default=1500)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or minilm_shape(Path(folder) / "minilm")
        save("text_speed", [measure(comparison(Path(folder), model.resolve(), args.texts))])


if __name__ == "__main__":
    main()
