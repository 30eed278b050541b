"""A store whose one feature holds given vectors, written through the ordinary calls."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dualview import Store
from featurestore import features, schema
from featurestore.recipe import Recipe

COMMIT = 50_000


def zipf_texts(n: int, words: int, vocabulary: int = 60_000, seed: int = 0) -> list[str]:
    """`n` texts of so many words, drawn so that the r-th word of a vocabulary is r times as rare as the first."""
    rng = np.random.default_rng(seed)
    often = 1 / np.arange(1, vocabulary + 1)
    drawn = rng.choice(vocabulary, (n, words), p=often / often.sum())
    return [" ".join(f"w{word}" for word in row) for row in drawn.tolist()]


def fill(
    store: Store, feature: str, vectors: npt.NDArray[np.float32], titles: list[str] | None = None
) -> None:
    """Ingest len(vectors) items and give each its row of `vectors` as the value of `feature`."""
    rows, dim = vectors.shape
    ids = [f"item{row:08d}" for row in range(rows)]
    titles = titles or [f"Item {row}" for row in range(rows)]
    store.ingest(pa.table({schema.ITEM_ID: ids, schema.TITLE: titles}))
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
