"""`dualview sql`: ask the store in SQL."""

from __future__ import annotations

from typing import Annotated

import typer

from dualview.commands.common import AsJson, StorePath


def run(
    store: StorePath,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A SELECT.", show_default=False)],
    release: Annotated[
        str | None,
        typer.Option("--release", help="Ask a release instead of today's tables.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Rows shown (all of them with --json).")] = 50,
    json: AsJson = False,
) -> None:
    """Run a read-only query: one view a table, feature_NAME for each feature, and `catalogue`, which joins them."""
    from dualview import console
    from featurestore.store import Store

    answer = Store.open(store).sql(query, release=release)
    answer = answer.rename_columns(_apart(answer.column_names))
    if json:
        console.as_json(answer.to_pylist())
        return
    shown = answer.slice(0, limit)
    rows = [[console.brief(value) for value in row.values()] for row in shown.to_pylist()]
    console.table(None, shown.column_names, rows, plain=True)
    if answer.num_rows > limit:
        console.say(f"{limit:,} of {answer.num_rows:,} rows; --limit shows more")


def _apart(names: list[str]) -> list[str]:
    """The names, each once: what comes again is numbered, as DuckDB does in a table."""
    found: list[str] = []
    for name in names:
        free, number = name, 0
        while free in found or (number and free in names):
            number += 1
            free = f"{name}_{number}"
        found.append(free)
    return found
