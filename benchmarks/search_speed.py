"""`similar` from a warm Retriever against a bare FAISS flat index over the same vectors.

python -m benchmarks.search_speed [--rows 20000] [--dim 384] [--queries 300]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness import Comparison, measure, save
from benchmarks.store_speed import synthetic_store
from dualview import Retriever, Store


def comparison(store: Store, queries: int, k: int = 10) -> Comparison:
    import faiss

    retriever = Retriever.open(store)
    release = store.release()
    ids, values = store.matrix("vector", release="latest")
    unit = np.array(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)
    bare = faiss.IndexFlatIP(unit.shape[1])
    bare.add(unit)
    rows = np.random.default_rng(1).choice(len(ids), queries, replace=False)
    asked = [str(ids[row]) for row in rows]

    def ours() -> None:
        for item in asked:
            retriever.similar(item, feature="vector", k=k)

    def peer() -> None:
        for row in rows:
            bare.search(unit[row : row + 1], k + 1)

    return Comparison(
        "similar, one query at a time",
        f"Retriever.similar against faiss.IndexFlatIP.search, {len(release.ids):,} x {unit.shape[1]}",
        ours,
        peer,
        queries,
        "queries",
        0.8,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=300)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = synthetic_store(Path(folder) / "store", args.rows, args.dim)
        save("search_speed", [measure(comparison(store, args.queries))])


if __name__ == "__main__":
    main()
