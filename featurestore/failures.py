"""What went wrong and was not mended since: rows set aside at ingest, cells that could not be computed.

Grouped by where and code, each group with the command that tries it again. An error of ours is none of these: it is
raised, not filed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from featurestore import quarantine, schema
from featurestore.errors import ErrorExample, ErrorGroup, NotFound, did_you_mean
from featurestore.features import MAX_ATTEMPTS

if TYPE_CHECKING:
    from featurestore.recipe import Recipe
    from featurestore.store import Store

INGEST = "ingest"  # where a row was set aside; else the name of a feature
CELL = [
    schema.ITEM_ID,
    schema.ERROR_CODE,
    schema.ERROR_MESSAGE,
    schema.TRANSIENT,
    schema.ATTEMPTS,
]


def groups(
    store: Store, examples: int | None = 3, *, feature: str | None = None, code: str | None = None
) -> list[ErrorGroup]:
    """All groups, those of ingest first. examples: of each group, None for all.

    feature: only cells of this feature; "ingest" for rows that were set aside. code: only this code. Raises NotFound
    with the nearest name for a feature that is not declared, and for a code of which there is no error.
    """
    if feature not in (None, INGEST):
        store.definitions.get(feature)
    found: list[ErrorGroup] = []
    if feature in (None, INGEST):
        sources = _sources(store)
        aside = quarantine.summary(store.tables, examples=examples)
        found += [_of_ingest(store, group, sources[group.code]) for group in aside]
    recipes = store.recipes()
    live = _live(store)
    for definition in store.definitions:
        recipe = recipes.get(definition.name)
        asked = feature in (None, definition.name)
        if asked and recipe is not None and store.tables.exists(recipe.table(definition.name)):
            found += _of_feature(store, definition.name, recipe, live, examples)
    if code is not None:
        chosen = [group for group in found if group.code == code]
        if found and not chosen:
            raise NotFound(
                f"there is no error of code '{code}' here",
                remedy=did_you_mean(code, {group.code for group in found}),
            )
        found = chosen
    return found


def _sources(store: Store) -> dict[str, set[str]]:
    """code -> the sources of which rows were set aside for it."""
    found: dict[str, set[str]] = {}
    if store.tables.exists(schema.QUARANTINE):
        for row in store.tables.read(schema.QUARANTINE, columns=["code", "source"]).to_pylist():
            found.setdefault(row["code"], set()).add(row["source"])
    return found


def _of_ingest(store: Store, group: ErrorGroup, sources: set[str]) -> ErrorGroup:
    named = ", ".join(sorted(sources)) if len(sources) <= 3 else f"the {len(sources)} sources"
    remedy = f"mend {named}, and ingest again: dualview ingest {store.root} ITEMS --interactions EVENTS"
    return replace(group, remedy=remedy)


def _of_feature(
    store: Store, feature: str, recipe: Recipe, live: set[str] | None, examples: int | None
) -> list[ErrorGroup]:
    rows = store.tables.read(
        recipe.table(feature), columns=CELL, filter=f"{schema.STATUS} = '{schema.Status.ERROR}'"
    )
    by_code: dict[str, list[dict[str, Any]]] = {}
    for row in rows.sort_by(schema.ITEM_ID).to_pylist():
        if live is None or row[schema.ITEM_ID] in live:
            by_code.setdefault(row[schema.ERROR_CODE], []).append(row)
    return [_group(store, feature, code, cells, examples) for code, cells in sorted(by_code.items())]


def _group(
    store: Store, feature: str, code: str, cells: list[dict[str, Any]], examples: int | None
) -> ErrorGroup:
    again = all(cell[schema.TRANSIENT] and cell[schema.ATTEMPTS] < MAX_ATTEMPTS for cell in cells)
    command = f"dualview materialize {store.root} --feature {feature}"
    return ErrorGroup(
        feature,
        code,
        len(cells),
        [
            ErrorExample(
                cell[schema.ITEM_ID], None, cell[schema.ERROR_MESSAGE], attempts=cell[schema.ATTEMPTS]
            )
            for cell in cells[:examples]
        ],
        retryable=again,
        remedy=command if again else f"{command} --failed, or mend the items and ingest them again",
    )


def _live(store: Store) -> set[str] | None:
    """Ids of the live items, or None when no item was ever taken out (then every row is live)."""
    if not store.tables.exists(schema.ITEMS):
        return None
    items = store.tables.dataset(schema.ITEMS)
    if not items.count_rows(f"{schema.DELETED} = true"):
        return None
    table: pa.Table = items.to_table(columns=[schema.ITEM_ID], filter=f"{schema.DELETED} IS NOT TRUE")
    return set(table[schema.ITEM_ID].to_pylist())
