"""Does a store stay small under many small updates? One-item ingests, each followed by materialize; a publish now and
then; what is on disk and how long an update takes, as it goes on.

    python -m benchmarks.growth [--updates 500] [--publish-every 50] [--items 160]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from dualview import Store
from dualview.demo.catalogue import CatalogueSettings
from dualview.demo.taste import TasteSettings
from dualview.demo.truth import make_shop
from featurestore.gc import size

COLUMNS = ("update", "versions", "fragments", "tables MB", "derived MB", "store MB", "s/update")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--publish-every", type=int, default=50)
    parser.add_argument("--items", type=int, default=160)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = _made(Path(folder), asked.items)
        print(" | ".join(COLUMNS))
        begun = time.perf_counter()
        for number in range(1, asked.updates + 1):
            item = {"item_id": [f"P{number % asked.items:03d}"], "title": [f"A cup for round {number}"]}
            store.ingest(pa.table(item))
            store.materialize()
            if number % asked.publish_every == 0:
                seconds = (time.perf_counter() - begun) / asked.publish_every
                store.publish()
                print(" | ".join([str(number), *_measured(store), f"{seconds:.2f}"]), flush=True)
                begun = time.perf_counter()
        report = store.gc(keep=2)
        print(f"gc --keep 2 freed {report.bytes / 1e6:.1f} MB: " + " | ".join(_measured(store)))


def _made(folder: Path, items: int) -> Store:
    make_shop(folder / "shop", CatalogueSettings(items=items, seed=3, px=64), TasteSettings(users=120))
    store = Store.create(folder / "store", preset="offline")
    store.ingest(folder / "shop" / "items.csv", folder / "shop" / "events.csv")
    store.materialize()
    return store


def _measured(store: Store) -> list[str]:
    """The greatest count of versions and of fragments of a table, and megabytes on disk."""
    datasets = [store.tables.dataset(name) for name in store.tables.names()]
    parts = (store.root / "tables", store.root / "derived", store.root)
    return [
        str(max(len(each.versions()) for each in datasets)),
        str(max(len(each.get_fragments()) for each in datasets)),
        *(f"{size(part) / 1e6:.1f}" for part in parts),
    ]


if __name__ == "__main__":
    main()
