"""Reading vectors: from the table, and from a release, each against the least that the format allows.

python -m benchmarks.store_speed [--rows 100000] [--dim 384]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.harness import Comparison, drop_cached, measure, save
from dualview import Store
from featurestore import schema

FEATURES = """
[features.vector]
kind = "imported"
inputs = ["title"]
encoder = "imported"
dim = {dim}
"""


def synthetic_store(
    folder: Path, rows: int, dim: int, seed: int = 0, titles: list[str] | None = None
) -> Store:
    """A published store of `rows` items with one random vector each, written through the ordinary calls."""
    from benchmarks.synthetic import fill

    store = Store.create(folder, features_toml=FEATURES.format(dim=dim))
    vectors = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    fill(store, "vector", vectors, titles)
    store.publish()
    return store


def raw_loop(dataset: object, rows: int, dim: int) -> np.ndarray:
    """The plain pylance loop into a preallocated array."""
    values = np.empty((rows, dim), np.float32)
    ids: list[pa.Array] = []
    start = 0
    for batch in dataset.to_batches(columns=[schema.ITEM_ID, schema.VALUE], batch_size=65536):  # type: ignore[attr-defined]
        column = batch.column(1)
        values[start : start + len(column)] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
        ids.append(batch.column(0))
        start += len(column)
    return values


def comparisons(store: Store, rows: int, dim: int) -> list[Comparison]:
    table = store.tables.folder / f"{store.feature_table('vector')}.lance"
    release = store.release()
    matrix = release.matrix("vector").values
    assert isinstance(matrix, np.memmap)
    plain = Path(store.root) / "plain.npy"
    np.save(plain, np.asarray(matrix))
    size = rows * dim * 4 / 1e6
    return [
        Comparison(
            "store to array, cold",
            "Store.matrix(feature) against a raw pylance to_batches loop",
            lambda: store.matrix("vector"),
            lambda: raw_loop(store.tables.dataset(store.feature_table("vector")), rows, dim),
            size,
            "MB",
            0.8,
            before=lambda: drop_cached(table),
        ),
        Comparison(
            "published matrix, every byte summed",
            "Store.matrix(feature, release) + sum against np.load + sum",
            lambda: float(store.matrix("vector", release="latest")[1].sum(dtype=np.float64)),
            lambda: float(np.load(plain).sum(dtype=np.float64)),
            size,
            "MB",
            0.8,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = synthetic_store(Path(folder) / "store", args.rows, args.dim)
        save("store_speed", [measure(case) for case in comparisons(store, args.rows, args.dim)])


if __name__ == "__main__":
    main()
