"""A store of a million items with a vector each: what every verb takes, each as a process of its own.

    python -m benchmarks.million [--items 1000000] [--dim 128] FOLDER

Vectors are drawn around 5,000 centres, prices and categories (which follow the centres) beside them, all written to
two Parquet files and filled in through the command line. FOLDER must not exist; it is left for a look at it. Printed,
and written to benchmarks/out/million.json: wall time, CPU time and the greatest memory held by each verb's process
(resident, memory-mapped files included), and the disk that tables and derived files take.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import save
from dualview import console
from featurestore import schema

FEATURES = """
[features.vector]
kind = "imported"
inputs = ["title"]
encoder = "imported"
dim = {dim}
"""
CENTRES = 5_000
CATEGORIES = 20
SPREAD = 1.0  # of the vectors around a centre, in each number; the centres' own is 1
PART = 50_000  # rows written at a time
STATUS_SECONDS, MOST_BYTES = 2.0, 4e9  # what is promised


def draw(
    items: int, dim: int, seed: int = 0
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """Vectors (PART, dim) with the centre of each (PART,), until there are `items`."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CENTRES, dim), dtype=np.float32)
    for start in range(0, items, PART):
        chosen = rng.integers(0, CENTRES, min(PART, items - start))
        noise = rng.standard_normal((len(chosen), dim), dtype=np.float32)
        yield centres[chosen] + np.float32(SPREAD) * noise, chosen


def write_parquet(folder: Path, items: int, dim: int) -> tuple[Path, Path]:
    """Two files: the catalogue, and the vectors by item id."""
    catalogue, vectors = folder / "items.parquet", folder / "vectors.parquet"
    rng = np.random.default_rng(1)
    kinds = {"item_id": pa.string(), "title": pa.string(), "price": pa.float64(), "category": pa.string()}
    listed = {"item_id": pa.string(), "vector": pa.list_(pa.float32(), dim)}
    start = 0
    with (
        pq.ParquetWriter(catalogue, pa.schema(kinds.items())) as told,
        pq.ParquetWriter(vectors, pa.schema(listed.items()), compression="none") as given,
    ):
        for values, centres in draw(items, dim):
            ids = [f"item{row:08d}" for row in range(start, start + len(values))]
            columns = {
                "item_id": ids,
                "title": [
                    f"Item {row} of group {centre}" for row, centre in enumerate(centres.tolist(), start)
                ],
                "price": rng.uniform(0, 100, len(ids)).round(2),
                "category": [f"c{centre % CATEGORIES:02d}" for centre in centres.tolist()],
            }
            told.write_table(pa.table(columns, pa.schema(kinds.items())))
            rows = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), dim)
            given.write_table(pa.table({"item_id": ids, "vector": rows}, pa.schema(listed.items())))
            start += len(ids)
    return catalogue, vectors


def fill(store: Path, vectors: Path, dim: int) -> None:
    """Write the vectors as cells of the imported feature, a part at a time, as an encoder would."""
    from dualview import Store
    from featurestore import features
    from featurestore.recipe import Recipe

    opened = Store.open(store)
    recipe = Recipe(kind="imported", inputs=("column:title",), encoder="imported", dim=dim)
    with opened.lock("benchmark"):
        opened.lock_recipe("vector", recipe)
        plan, start = opened.plan("vector"), 0
        for batch in pq.ParquetFile(vectors).iter_batches(PART):
            part = plan.slice(start, len(batch))
            start += len(batch)
            if not part[schema.ITEM_ID].combine_chunks().equals(batch.column("item_id")):
                raise RuntimeError("the plan and the vectors are not in the same order")
            nothing = pa.nulls(len(part), pa.string())
            cells = {
                schema.ITEM_ID: part[schema.ITEM_ID],
                schema.VALUE: batch.column("vector"),
                schema.INPUT_HASH: part[schema.INPUT_HASH],
                schema.STATUS: pa.repeat(pa.scalar(schema.Status.OK.value), len(part)),
                schema.ERROR_CODE: nothing,
                schema.ERROR_MESSAGE: nothing,
                schema.TRANSIENT: pa.repeat(pa.scalar(False), len(part)),
                schema.ATTEMPTS: part[schema.ATTEMPTS],
            }
            features.commit(opened.tables, "vector", recipe, pa.table(cells))


def run(what: str, *command: str) -> dict[str, object]:
    """One process: seconds of wall and CPU time, and the most memory that it held. Raises where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, code, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    wall = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{what} ended with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    row: dict[str, object] = {
        "what": what,
        "seconds": wall,
        "cpu": used.ru_utime + used.ru_stime,
        "bytes": used.ru_maxrss * unit,
    }
    console.say(f"{what}: {wall:.1f} s, {used.ru_maxrss * unit / 1e9:.2f} GB")
    return row


def disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def queries(store: Path, count: int = 200) -> list[dict[str, object]]:
    """Milliseconds of one query in a warm process, wall and CPU, with and without filters: medians of `count`.

    The masks of filters are kept by the release, as in a process that serves.
    """
    from dualview import Store
    from featurestore.search import nearest

    release = Store.open(store).release()
    rows = np.random.default_rng(2).choice(release.n_items, count, replace=False)
    found = []
    for where in (None, "price < 1", "price < 30", "category = 'c03'"):
        for exact in (False, True):
            asked = rows[:10] if exact else rows
            nearest(release, "vector", row=int(asked[0]), where=where, exact=exact)
            spent = []
            for row in asked.tolist():
                start = np.array([time.perf_counter(), time.process_time()])
                nearest(release, "vector", row=row, where=where, exact=exact)
                spent.append([time.perf_counter(), time.process_time()] - start)
            wall, cpu = np.median(spent, axis=0) * 1e3
            named = f"one warm query, {where or 'no filter'}{', exact' if exact else ''}"
            found.append({"what": named, "milliseconds": float(wall), "cpu": float(cpu)})
    return found


def selectivities(store: Path, count: int = 50) -> list[dict[str, object]]:
    """Recall@10 and CPU milliseconds of a query where a share of all rows is allowed, drawn by chance or along a
    direction of the vectors.
    """
    from dualview import Store
    from featurestore import tuning

    index = Store.open(store).release().index("vector")
    rng = np.random.default_rng(3)
    rows = rng.choice(len(index), count, replace=False)
    along = index.vectors @ rng.standard_normal(index.dim).astype(np.float32)
    found = []
    for share in (0.0001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.3, 0.6, 1.0):
        for drawn, by in (("by chance", rng.random(len(index), np.float32)), ("along the vectors", along)):
            allowed = by >= np.quantile(by, 1 - share)
            allowed.setflags(write=False)
            index.search_row(int(rows[0]), 10, allowed)
            start = time.process_time()
            for row in rows.tolist():
                index.search_row(row, 10, allowed)
            spent = (time.process_time() - start) / count * 1e3
            recall = tuning.measure(index, rows, allowed=allowed)
            found.append({"what": f"{share:.2%} allowed, {drawn}", "recall": recall, "cpu": spent})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument(
        "--fill", action="store_true", help=argparse.SUPPRESS
    )  # the process that writes vectors
    args = parser.parse_args()
    store = args.folder / "store"
    if args.fill:
        fill(store, args.folder / "vectors.parquet", args.dim)
        return
    args.folder.mkdir(parents=True)
    catalogue, _ = write_parquet(args.folder, args.items, args.dim)
    from dualview import Store

    Store.create(store, FEATURES.format(dim=args.dim))
    here, some = str(store), f"item{args.items // 2:08d}"
    similar = ("-m", "dualview", "similar", here, some, "--json")
    size = ("--items", str(args.items), "--dim", str(args.dim))
    rows = [
        run("ingest from Parquet", "-m", "dualview", "ingest", here, str(catalogue)),
        run("vectors written", "-m", "benchmarks.million", str(args.folder), "--fill", *size),
        run("status, first", "-m", "dualview", "status", here),
        run("status, unchanged", "-m", "dualview", "status", here),
        run("materialize, nothing to do", "-m", "dualview", "materialize", here),
        run("publish", "-m", "dualview", "publish", here),
        run("publish, unchanged", "-m", "dualview", "publish", here),
        run("similar", *similar),
        run("similar, 1% by price", *similar, "--where", "price < 1"),
        run("similar, 30% by price", *similar, "--where", "price < 30"),
        run("similar, exact", *similar, "--exact"),
        run("status after publish", "-m", "dualview", "status", here),
    ]
    facts = Store.open(store).release().facts("vector")["index"]
    rows += [{"what": f"disk of {part}", "bytes": disk(store / part)} for part in ("tables", "derived")]
    rows += queries(store)
    rows += selectivities(store)
    rows.append({"what": "index", **facts})
    save("million", rows)
    for row in rows[12:]:
        console.say(", ".join(f"{name} {value}" for name, value in row.items()))
    slow = [
        row
        for row in rows
        if row["what"] == "status, unchanged" and float(str(row["seconds"])) > STATUS_SECONDS
    ]
    large = [row for row in rows if "seconds" in row and float(str(row["bytes"])) > MOST_BYTES]
    for row in (*slow, *large):
        console.warn(f"above what is promised: {row}")
    if slow or large:
        sys.exit(2)


if __name__ == "__main__":
    main()
