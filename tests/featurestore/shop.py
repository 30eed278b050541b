"""A small store for tests of releases, search and SQL: items, a log and three features, written without an encoder."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore import features, interactions, items, schema
from featurestore.recipe import Recipe
from featurestore.schema import Status, ValueKind
from featurestore.store import Store

DIM = 8
N_ITEMS = 60
TOML = """
[features.vector]
kind = "imported"
inputs = ["title"]
encoder = "imported"

[features.picture]
kind = "imported"
inputs = ["image"]
encoder = "imported"

[features."told.short"]
kind = "imported"
inputs = ["title"]
encoder = "imported"

[features.tokens]
kind = "imported"
inputs = ["title"]
encoder = "imported"

[features.private]
kind = "imported"
inputs = ["title"]
encoder = "imported"
publish = false
"""
RECIPES = {
    "vector": Recipe(kind="imported", inputs=("column:title",), encoder="imported", dim=DIM),
    "picture": Recipe(kind="imported", inputs=("image",), encoder="imported", dim=3),
    "told.short": Recipe(kind="imported", inputs=("column:title",), encoder="imported", value=ValueKind.TEXT),
    "tokens": Recipe(
        kind="imported", inputs=("column:title",), encoder="imported", value=ValueKind.VECTORS, dim=4
    ),
    "private": Recipe(kind="imported", inputs=("column:title",), encoder="imported", dim=2),
}


def ids(n: int = N_ITEMS) -> list[str]:
    return [f"i{number:03d}" for number in range(n)]


def catalogue(n: int = N_ITEMS) -> pa.Table:
    """Rows in no order; each tenth item has no picture; a price is unknown where the number ends in 7."""
    order = np.random.default_rng(1).permutation(n).tolist()
    named = ids(n)
    return pa.table(
        {
            "item_id": [named[i] for i in order],
            "title": [f"Thing {i}" for i in order],
            "price": pa.array([None if i % 10 == 7 else float(i) for i in order], pa.float64()),
            "tags": pa.array(
                [["even" if i % 2 == 0 else "odd", f"t{i % 5}"] for i in order], pa.list_(pa.string())
            ),
            "image": [None if i % 10 == 0 else f"{i}.jpg" for i in order],
            "_image_sha256": [None if i % 10 == 0 else f"{i:064d}" for i in order],
        }
    )


def log(n_users: int = 12, seed: int = 2) -> pa.Table:
    rng = np.random.default_rng(seed)
    n = n_users * 5
    return pa.table(
        {
            "user_id": [f"u{u}" for u in rng.integers(0, n_users, n)],
            "item_id": [f"i{i:03d}" for i in rng.integers(0, N_ITEMS, n)],
            "event": ["view"] * n,
            "timestamp": pa.array(rng.integers(0, 20, n), pa.int64()),
            "position": pa.array([None] * n, pa.int64()),
            "value": pa.array([None] * n, pa.float64()),
        }
    )


def value_of(feature: str, title: str) -> object:
    """The value that a test's "encoder" gives: a function of the title alone, so that tests can expect it."""
    rng = np.random.default_rng([zlib.crc32(title.encode()), len(feature)])
    recipe = RECIPES[feature]
    if recipe.value is ValueKind.TEXT:
        return f"told of {title}"
    if recipe.value is ValueKind.VECTORS:
        return rng.standard_normal((int(rng.integers(1, 4)), recipe.dim or 0)).astype(np.float32).tolist()
    return rng.standard_normal(recipe.dim or 0).astype(np.float32).tolist()


def materialize(store: Store, feature: str, *, broken: tuple[str, ...] = (), only: int | None = None) -> int:
    """Compute what is not current; items in `broken` become errors. Returns how many cells were written."""
    recipe = RECIPES[feature]
    if store.recipe(feature) != recipe:
        store.lock_recipe(feature, recipe)
    todo = features.work(store.plan(feature), failed=bool(broken)).slice(0, only)
    titles = dict(
        zip(*store.tables.read(schema.ITEMS, ["item_id", "title"]).to_pydict().values(), strict=True)
    )
    rows = []
    for row in todo.to_pylist():
        item = row["item_id"]
        status = Status.ERROR if item in broken else Status.OK if row["has_input"] else Status.NO_INPUT
        rows.append(
            {
                "item_id": item,
                "value": value_of(feature, titles[item]) if status is Status.OK else None,
                "input_hash": row["input_hash"],
                "status": str(status),
                "error_code": "broken" if item in broken else None,
                "error_message": None,
                "transient": False,
                "attempts": row["attempts"],
            }
        )
    whole = schema.feature_schema(recipe.value, recipe.dim)
    fields = [whole.field(n) for n in (rows[0] if rows else {})]
    if rows:
        with store.lock("test"):
            features.commit(store.tables, feature, recipe, pa.Table.from_pylist(rows, pa.schema(fields)))
    return len(rows)


def upsert(store: Store, table: pa.Table, *, remove_missing: bool = False) -> None:
    with store.lock("test"):
        items.upsert_items(store.tables, table, remove_missing=remove_missing)


def build(root: Path, *, computed: tuple[str, ...] = ("vector", "picture", "told.short", "tokens")) -> Store:
    store = Store.create(root, TOML)
    upsert(store, catalogue())
    with store.lock("test"):
        interactions.upsert_interactions(store.tables, log())
    for feature in computed:
        materialize(store, feature)
    return store


def unit(vectors: npt.ArrayLike) -> npt.NDArray[np.float64]:
    wide = np.asarray(vectors, np.float64)
    return wide / np.linalg.norm(wide, axis=-1, keepdims=True)
