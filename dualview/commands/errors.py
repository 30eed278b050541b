"""`dualview errors`: rows that were set aside and cells that could not be computed."""

from __future__ import annotations

from typing import Annotated

import typer

from dualview.commands.common import AsJson, StorePath


def run(
    store: StorePath,
    feature: Annotated[
        str | None,
        typer.Option(
            "--feature",
            "-f",
            help="Only cells of this feature; ingest: only rows set aside.",
            show_default="all",
        ),
    ] = None,
    code: Annotated[str | None, typer.Option("--code", help="Only this code.", show_default="all")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Examples of each code.")] = 3,
    every: Annotated[bool, typer.Option("--all", help="Every one, not only examples.")] = False,
    json: AsJson = False,
) -> None:
    """List what went wrong, grouped by code: where, why, how often it was tried, and what tries it again."""
    from dualview import console
    from featurestore.store import Store

    groups = Store.open(store).errors(None if every else limit, feature=feature, code=code)
    if json:
        console.as_json([g.to_dict() for g in groups])
        return
    if not groups:
        console.say("no errors")
    for group in groups:
        tried = any(e.attempts is not None for e in group.examples)
        console.table(
            f"{group.where} · {group.code}: {group.count:,}",
            ["item", "tried", "reason"] if tried else ["place", "field", "reason"],
            [[e.place, e.attempts if tried else e.field, e.reason] for e in group.examples],
            note=f"{'tried again by' if group.retryable else 'what to do'}: {group.remedy}",
        )
        left = group.count - len(group.examples)
        if left and group.examples:
            console.say(f"and {left:,} more; --all lists them")
