"""`dualview init`: make an empty store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder to make.", show_default=False)],
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            help="offline (built-in encoders, no downloads), small (MiniLM + CLIP), paper (larger models).",
        ),
    ] = "offline",
) -> None:
    """Make an empty store with a preset's features.

    The features stand in STORE/features.toml, a commented text file that is yours to edit.
    """
    from dualview import console
    from dualview.store import Store

    made = Store.create(store, preset=preset)
    console.table(
        f"Made {made.root} with preset '{preset}'",
        ["feature", "kind", "from", "encoder", "model"],
        [[f.name, f.kind, f.inputs, f.encoder, f.model] for f in made.definitions.ordered()],
    )
    console.say(f"next: dualview ingest {store} items.csv --interactions events.csv")
