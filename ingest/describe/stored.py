"""Answers as they stand in a feature's table: what was answered there is not asked again.

Rules of judging (`refusals`, `on_length`, our own) are part of a recipe, since they decide which text is kept. But they
are applied to an answer, and each answer stands beside its cell as it came. So a recipe that asks the same and only
judges otherwise starts with the cells of the one before it, judged anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore import features as cells
from featurestore import schema
from featurestore.schema import Status
from ingest.describe import base, recipes
from ingest.describe.base import Answer
from ingest.describe.spool import Spool

if TYPE_CHECKING:
    from featurestore.recipe import Recipe
    from featurestore.store import Store
    from featurestore.tables import Tables
    from ingest.describe.checks import Checks

ROWS = 10_000  # cells judged at once
ANSWER = [field.name for field in schema.ANSWER_FIELDS]
CELL = (
    schema.ITEM_ID,
    schema.VALUE,
    schema.INPUT_HASH,
    schema.STATUS,
    schema.ERROR_CODE,
    schema.ERROR_MESSAGE,
    schema.TRANSIENT,
    schema.ATTEMPTS,
)


def answers(tables: Tables, name: str, hashes: Collection[str]) -> Iterator[tuple[str, str, Answer]]:
    """(input hash, status, answer) of the cells of a table with one of these inputs that have an answer."""
    if not hashes or not tables.exists(name):
        return
    dataset = tables.dataset(name)
    known = dataset.to_table(columns=[schema.INPUT_HASH])[schema.INPUT_HASH]
    places = np.flatnonzero(pc.is_in(known, value_set=pa.array(list(hashes), pa.string())))
    if not len(places):
        return
    for row in dataset.take(places, columns=[schema.INPUT_HASH, schema.STATUS, *ANSWER]).to_pylist():
        if row[schema.RAW] is not None:
            yield row[schema.INPUT_HASH], row[schema.STATUS], answer_in(row)


def judge_again(store: Store, feature: str, recipe: Recipe) -> int:
    """Fill the table of a recipe that is to become active from the one before, where both ask the same.

    Cells without an answer are taken as they stand. Returns how many cells that was. The caller holds the writer's
    lock; killed before the recipe is locked, this is done again.
    """
    before = store.recipe(feature)
    if before is None or before == recipe or before.kind != schema.DESCRIBE:
        return 0
    if recipes.question(before) != recipes.question(recipe):
        return 0
    each = base.maker(recipe.encoder).remote
    Spool(store.root, feature, recipe, each=each).take(Spool(store.root, feature, before, each=each))
    tables, old, new = store.tables, before.table(feature), recipe.table(feature)
    if not tables.exists(old):
        return 0
    found = tables.read(old, columns=[*CELL, *ANSWER])
    if tables.exists(
        new
    ):  # the rules were these once before: an answer there is worth more than a failure since
        there = tables.read(new, columns=[schema.ITEM_ID])[schema.ITEM_ID].combine_chunks()
        known = pc.is_in(found[schema.ITEM_ID], value_set=there)
        found = found.filter(pc.or_(found[schema.RAW].is_valid(), pc.invert(known)))
    checks = recipes.checks_of(recipe, recipes.prompt_in(recipe, store.artifacts))
    for start in range(0, len(found), ROWS):
        rows = [_judged(row, checks) for row in found.slice(start, ROWS).to_pylist()]
        cells.commit(tables, feature, recipe, pa.Table.from_pylist(rows, schema=found.schema))
    return len(found)


def _judged(row: dict[str, Any], checks: Checks) -> dict[str, Any]:
    row[schema.ATTEMPTS] -= 1  # a commit counts one, and nothing was tried
    if row[schema.RAW] is None:
        return row
    status, text, error = checks.settle(answer_in(row))
    return row | {
        schema.STATUS: str(status),
        schema.VALUE: text if status is Status.OK else None,
        schema.ERROR_CODE: error.code if error else None,
        schema.ERROR_MESSAGE: error.message if error else None,
        schema.TRANSIENT: error is not None and error.transient,
    }


def answer_in(row: dict[str, Any]) -> Answer:
    """The answer beside a cell."""
    return Answer(
        row[schema.RAW],
        row[schema.FINISH_REASON],
        row[schema.PROMPT_TOKENS],
        row[schema.COMPLETION_TOKENS],
        row[schema.SECONDS],
    )
