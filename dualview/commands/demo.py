"""`dualview demo`: the whole journey on a catalogue the project draws itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to put catalogue, store and report.")
    ] = Path("demo-store"),
    seed: Annotated[int, typer.Option("--seed", help="Of the catalogue and the training.")] = 0,
) -> None:
    """Draw a shop, ingest it, find similar products, train a recommender, evaluate it, and write a report."""
    from dualview.demo.journey import run_demo

    run_demo(folder, seed=seed)
