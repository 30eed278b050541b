"""`dualview gc`: take away what nothing needs."""

from __future__ import annotations

from typing import Annotated

import typer

from dualview.commands.common import AsJson, DryRun, StorePath, Wait


def run(
    store: StorePath,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep",
            min=1,
            metavar="N",
            help="Remove releases beyond the latest N too, but not tagged ones nor those a run needs.",
            show_default="all releases stay",
        ),
    ] = None,
    old_recipes: Annotated[
        bool,
        typer.Option(
            "--old-recipes",
            help="Remove values of recipes that neither features.lock.json nor a release uses; they would have to be "
            "computed again.",
        ),
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    json: AsJson = False,
) -> None:
    """Free the disk of what nothing needs: leftovers of interrupted verbs, versions and files that no release names."""
    from dualview import console
    from dualview.commands.common import open_store

    report = open_store(store).gc(keep=keep, old_recipes=old_recipes, dry_run=dry_run, wait=wait)
    if json:
        console.as_json(report.to_dict())
        return
    console.table(
        "Would be freed" if dry_run else "Freed",
        ["what", "count", "size"],
        [
            *[[each.kind, each.count, console.size(each.bytes)] for each in report.freed],
            ["total", sum(each.count for each in report.freed), console.size(report.bytes)],
        ],
    )
    for name, reason in report.kept.items():
        console.say(f"release {name} stays: {reason}")
