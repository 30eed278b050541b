"""Stores with a log and stored features whose recipes and fits a test chooses, for what reads releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore import features
from featurestore.interactions import upsert_interactions
from featurestore.items import upsert_items
from featurestore.recipe import Recipe
from featurestore.store import Store

DIM = 6
TOML = """
[features.text]
kind = "embed_text"
inputs = ["title"]
encoder = "tfidf_svd"

[features.brought]
kind = "imported"
inputs = ["title"]
encoder = "imported"

[features.fused]
kind = "fuse"
inputs = ["feature:text"]
encoder = "fuse"
"""
FITTED = {"at": "2026-11-21T10:00:00+00:00", "items": 20, "texts": 20}
TEXT = Recipe(
    kind="embed_text",
    inputs=("column:title",),
    encoder="tfidf_svd",
    dim=DIM,
    artifacts={"tfidf": "a" * 64},
)
BROUGHT = Recipe(
    kind="imported",
    inputs=("column:title",),
    encoder="imported",
    dim=DIM,
    options={"sha256": "b" * 64, "ids_sha256": "c" * 64},
)


def fused(weights: str = "d") -> Recipe:
    """Reads `text` through weights of this name."""
    inputs = (f"feature:text@{TEXT.id}",)
    return Recipe(kind="fuse", inputs=inputs, encoder="fuse", dim=DIM, artifacts={"weights": weights * 64})


def ring(users: int = 40, items: int = 20, seed: int = 0) -> pa.Table:
    """Users who walk round a ring of items, by a clock that they share: after item i comes i + 1."""
    random = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for user in range(users):
        first, start = int(random.integers(items)), int(random.integers(100))
        for place in range(int(random.integers(4, 12))):
            item, at = f"i{(first + place) % items:03d}", start + 10 * place
            rows.append({"user_id": f"u{user:03d}", "item_id": item, "timestamp": at})
    n = len(rows)
    table = pa.Table.from_pylist(rows)
    blank = {"position": pa.nulls(n, pa.int64()), "value": pa.nulls(n, pa.float64())}
    for name, column in {"event": pa.array(["view"] * n), **blank}.items():
        table = table.append_column(name, column)
    return table


def compute(store: Store, feature: str, recipe: Recipe, fitted: dict[str, Any] | None = None) -> None:
    """Lock a recipe, and give every item a vector under it."""
    with store.lock("test"):
        store.lock_recipe(feature, recipe, fitted)
        todo = features.work(store.plan(feature))
        ids, n = todo["item_id"].to_pylist(), len(todo)
        drawn = [np.random.default_rng([len(feature), int(i[1:])]).normal(size=DIM).tolist() for i in ids]
        rows = {
            "item_id": todo["item_id"],
            "value": pa.array(drawn, pa.list_(pa.float32(), DIM)),
            "input_hash": todo["input_hash"],
            "status": ["ok"] * n,
            "error_code": pa.nulls(n, pa.string()),
            "error_message": pa.nulls(n, pa.string()),
            "transient": pa.nulls(n, pa.bool_()),
            "attempts": pa.array([0] * n, pa.int32()),
        }
        if n:
            features.commit(store.tables, feature, recipe, pa.table(rows))


def build(root: Path, items: int = 20) -> Store:
    """A store with `text`, fitted on items, and `brought`, imported; `fused` is declared and not computed."""
    store = Store.create(root, TOML)
    ids = [f"i{n:03d}" for n in range(items)]
    with store.lock("test"):
        upsert_items(store.tables, pa.table({"item_id": ids, "title": [f"Title {i}" for i in ids]}))
        upsert_interactions(store.tables, ring(items=items))
    compute(store, "text", TEXT, FITTED)
    compute(store, "brought", BROUGHT)
    return store


def saw(split_hash: str, release: str = "0001", run: str = "dmesr-001") -> dict[str, Any]:
    """What a lock says of a fit on the training events of a split."""
    events = {"release": release, "split": "leave-one-out", "split_hash": split_hash, "run": run}
    return FITTED | {"events": events}
