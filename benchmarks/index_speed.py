"""Queries of an approximate index against plain FAISS with the same lists, codes and settings, refined the same way.

    python -m benchmarks.index_speed [--rows 200000] [--dim 128] [--queries 200]

The peer is FAISS's IndexRefineFlat over the same IVF index: it holds all vectors in memory a second time and scores the
shortlist in float32, where we read them from the release's matrix and score in double. Under a filter it looks through
as many more lists as fewer rows are allowed, as its documentation advises.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from benchmarks.harness import Comparison, measure, save
from benchmarks.million import draw
from featurestore import ann, tuning
from featurestore.ann import Setting, Shortlist
from featurestore.exact import Bool

K = 10
TARGET = 0.6  # of plain FAISS's speed, without a filter and with


def searches(
    index: Shortlist, rows: np.ndarray, allowed: Bool | None
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Ours and FAISS's way to ask for the neighbours of each of `rows`."""
    import faiss

    everything = index.unit(np.arange(len(index)))
    refined = faiss.IndexRefineFlat(index.ivf, faiss.swig_ptr(everything))
    unit = index.unit(rows)
    setting = index.setting
    share = 1.0 if allowed is None else np.count_nonzero(allowed) / len(index)
    probes = min(index.ivf.nlist, int(np.ceil(setting.nprobe / share)))
    selector = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    inner = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
    params = faiss.IndexRefineSearchParameters(k_factor=setting.shortlist / (K + 1), base_index_params=inner)

    def ours() -> None:
        for row in rows.tolist():
            index.search_row(row, K, allowed)

    def peer() -> None:
        for line in range(len(unit)):
            refined.search(unit[line : line + 1], K + 1, params=params)

    return ours, peer


def comparisons(index: Shortlist, queries: int) -> list[Comparison]:
    rng = np.random.default_rng(1)
    rows = rng.choice(len(index), queries, replace=False)
    found = []
    for share in (None, 0.01, 0.1):
        allowed = None if share is None else rng.random(len(index)) < share
        if allowed is not None:
            allowed.setflags(write=False)
        ours, peer = searches(index, rows, allowed)
        named = "no filter" if share is None else f"{share:.0%} allowed"
        found.append(
            Comparison(
                f"approximate search, {named}",
                f"Index.search_row against faiss.IndexRefineFlat, {len(index):,} x {index.dim}, {named}",
                ours,
                peer,
                queries,
                "queries",
                TARGET,
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--queries", type=int, default=200)
    args = parser.parse_args()
    vectors = np.concatenate([values for values, _ in draw(args.rows, args.dim)])
    built = ann.build(vectors, Setting(1, K))
    index = built.with_setting(tuning.tune(built, 0.99, "vector").setting)
    save("index_speed", [measure(case) for case in comparisons(index, args.queries)])


if __name__ == "__main__":
    main()
