"""`similar` from a warm Retriever against a bare FAISS flat index over the same vectors, and hybrid search against
LanceDB's own: BM25 and vectors, both looked through whole, fused by reciprocal rank.

python -m benchmarks.search_speed [--rows 20000] [--dim 384] [--queries 300]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness import Comparison, measure, save
from benchmarks.store_speed import synthetic_store
from benchmarks.synthetic import zipf_texts
from dualview import Retriever, Store
from featurestore.query import Query
from featurestore.search import search

WORDS, QUERY_WORDS = 12, 3


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


class Given:
    """An encoder of which every query's vector is known: only the search is measured."""

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self.vectors = vectors

    def fitting(self, *, of_text: bool) -> list[str]:
        return ["vector"] if of_text else []

    def text(self, feature: str, text: str) -> np.ndarray:
        return self.vectors[text]

    def image(self, feature: str, image: object) -> np.ndarray:
        raise TypeError("there are texts only")


def hybrid_comparison(
    store: Store, folder: Path, queries: int, where: str | None = None, k: int = 10
) -> Comparison:
    """where: a filter, in the words that both understand."""
    import lancedb
    import pyarrow as pa
    from lancedb.index import FTS
    from lancedb.rerankers import RRFReranker

    release = store.release()
    values = release.matrix("vector").values
    rng = np.random.default_rng(1)
    texts = zipf_texts(queries, QUERY_WORDS, seed=1)
    encoder = Given({text: rng.standard_normal(values.shape[1]).astype(np.float32) for text in texts})
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(values).ravel()), values.shape[1])
    columns = {"item_id": release.ids.tolist(), "title": release.catalogue["title"], "vector": vectors}
    table = lancedb.connect(folder).create_table(f"t{where is None}", pa.table(columns))
    table.create_index("title", config=FTS(stem=False, remove_stop_words=False))
    reranker = RRFReranker()

    def ours() -> None:
        for text in texts:
            query = Query(text=text, features={"vector": 1.0}, mode="hybrid", where=where, k=k)
            assert len(search(release, query, encoder)) == k

    def peer() -> None:
        for text in texts:
            asked = table.search(query_type="hybrid").vector(encoder.vectors[text]).text(text)
            asked = asked.distance_type("cosine").rerank(reranker).limit(k)
            (asked if where is None else asked.where(where, prefilter=True)).to_arrow()

    shape = f"{len(release.ids):,} x {values.shape[1]}, texts of {WORDS} words"
    return Comparison(
        f"hybrid, one query at a time{' under a filter' if where else ''}",
        f"search(mode='hybrid') against LanceDB's hybrid with RRFReranker, {shape}"
        + (f", {where}" if where else ""),
        ours,
        peer,
        queries,
        "queries",
        1.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=300)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        texts = zipf_texts(args.rows, WORDS)
        store = synthetic_store(Path(folder) / "store", args.rows, args.dim, titles=texts)
        few = f"item_id < 'item{args.rows // 100:08d}'"  # one item in a hundred
        hybrid = [
            hybrid_comparison(store, Path(folder) / "lance", min(args.queries, 50), where)
            for where in (None, few)
        ]
        cases = [comparison(store, args.queries), *hybrid]
        save("search_speed", [measure(case) for case in cases])


if __name__ == "__main__":
    main()
