"""A store whose one feature holds given vectors, written through the ordinary calls."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dualview import Store
from featurestore import features, schema
from featurestore.recipe import Recipe

COMMIT = 50_000


def fill(store: Store, feature: str, vectors: npt.NDArray[np.float32]) -> None:
    """Ingest len(vectors) items and give each its row of `vectors` as the value of `feature`."""
    rows, dim = vectors.shape
    ids = [f"item{row:08d}" for row in range(rows)]
    store.ingest(pa.table({schema.ITEM_ID: ids, schema.TITLE: [f"Item {row}" for row in range(rows)]}))
    recipe = Recipe(kind="imported", inputs=("column:title",), encoder="imported", dim=dim)
    with store.lock("benchmark"):
        store.lock_recipe(feature, recipe)
        plan = store.plan(feature)
        for start in range(0, rows, COMMIT):
            part = plan.slice(start, COMMIT)
            values = pa.array(np.ascontiguousarray(vectors[start : start + COMMIT]).ravel())
            nothing = pa.nulls(len(part), pa.string())
            cells = pa.table(
                {
                    schema.ITEM_ID: part[schema.ITEM_ID],
                    schema.VALUE: pa.FixedSizeListArray.from_arrays(values, dim),
                    schema.INPUT_HASH: part[schema.INPUT_HASH],
                    schema.STATUS: pa.repeat(pa.scalar(schema.Status.OK.value), len(part)),
                    schema.ERROR_CODE: nothing,
                    schema.ERROR_MESSAGE: nothing,
                    schema.TRANSIENT: pa.repeat(pa.scalar(False), len(part)),
                    schema.ATTEMPTS: part[schema.ATTEMPTS],
                }
            )
            features.commit(store.tables, feature, recipe, cells)
