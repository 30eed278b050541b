"""`dualview errors`: rows that were set aside and cells that could not be computed."""

from __future__ import annotations

from typing import Annotated

import typer

from dualview.commands.common import AsJson, StorePath


def run(
    store: StorePath,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Examples shown for each code.")] = 3,
    json: AsJson = False,
) -> None:
    """List what went wrong, grouped by code: source, line, field and reason of each example."""
    from dualview import console
    from featurestore.store import Store

    groups = Store.open(store).errors(examples=examples)
    if json:
        console.as_json([g.to_dict() for g in groups])
        return
    if not groups:
        console.say("no errors")
    for group in groups:
        console.table(
            f"{group.where} · {group.code}: {group.count:,}",
            ["place", "field", "reason"],
            [[e.place, e.field, e.reason] for e in group.examples],
        )
