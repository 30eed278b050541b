"""`dualview demo`: the whole journey on a catalogue the project draws itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualview.commands.common import AsJson, DryRun


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to put catalogue, store and report.")
    ] = Path("demo-store"),
    seed: Annotated[int, typer.Option("--seed", help="Of the catalogue and the training.")] = 0,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Draw a shop, ingest it, find similar products, train a recommender, evaluate it, and write a report."""
    from dualview import console
    from dualview.demo.journey import plan_demo, run_demo

    if dry_run:
        steps = plan_demo(folder, seed=seed)
        if json:
            console.as_json(
                {"dry_run": True, "steps": [{"step": name, "what": what} for name, what in steps]}
            )
        else:
            console.table("What the demo would do", ["step", "what"], steps)
        return
    if not json:
        run_demo(folder, seed=seed)
        return
    with console.results_aside():
        journey = run_demo(folder, seed=seed)
    console.as_json(journey.to_dict())
