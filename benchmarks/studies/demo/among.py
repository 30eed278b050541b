"""Where the hidden products stand among themselves: ranks of the customers whose target is one, from the kept weights.

    python -m benchmarks.studies.demo.among benchmarks/out/study-demo/work

Against the whole shop a new product competes with products that everybody took, and how much a model shies away from
new ones decides; among new ones alone what it makes of their pictures and words does. One file a cell in `among/`: a
rank for each of those customers, in the split's order.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.studies.demo.build import HERE
from featurestore import files
from recommender.cold import users_of
from recommender.evaluate import evaluate
from recommender.study import Study
from recommender.study.state import Sources
from recommender.study.work import Work

AMONG = HERE / "among"


def main() -> None:
    parser = argparse.ArgumentParser(description="Rank the hidden products among themselves, cell by cell.")
    parser.add_argument("out", type=Path, help="folder of the runs, as `study run` had it")
    out = parser.parse_args().out
    study = Study.read(HERE / "study.toml")
    sources = Sources(study)
    files.make_folder(AMONG)
    for cell in study.select(data=["hidden"]):
        record, place = cell.record(), AMONG / f"{cell.name}.ranks.parquet"
        if record is None or record["test"] is None or place.exists():
            continue
        work = Work(cell, out, sources, "cpu", print)
        score, split = work.kept_scorer(record)("test"), work.split
        found = evaluate(
            score, split, "test", (10,), users=users_of(split), among=split.is_hidden, lists=False
        )
        with files.replacing(place) as aside:
            pq.write_table(pa.table({"rank": pa.array(found.ranks, pa.int32())}), aside, compression="zstd")
        print(cell.name, found.metrics["NDCG@10"], flush=True)


if __name__ == "__main__":
    main()
