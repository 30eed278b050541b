"""`dualview promote`: choose the run that `recommend` uses."""

from __future__ import annotations

from typing import Annotated

import typer

from dualview.commands.common import AsJson, DryRun, ServedPath


def run(
    store: ServedPath,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of a run, or latest.", show_default=False)],
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Make a run the one that `recommend` uses."""
    from dualview import console
    from dualview.commands.common import open_served
    from dualview.training import plan_promote, promote

    opened = open_served(store)
    plan = plan_promote(opened, run)
    if not dry_run:
        promote(opened, plan["run"])
    if json:
        console.as_json({"dry_run": dry_run} | plan)
        return
    instead = f" instead of {plan['before']}" if plan["before"] not in (None, plan["run"]) else ""
    would = "would answer" if dry_run else "now answers"
    console.say(f"{plan['run']} {would} `dualview recommend {store} USER`{instead}")
