"""`dualview init`: make an empty store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualview.commands.common import AsJson, DryRun


def run(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder to make.", show_default=False)],
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            help="offline (built-in encoders, no downloads), small (MiniLM + CLIP), paper (larger models).",
        ),
    ] = "offline",
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Make an empty store with a preset's features.

    The features stand in STORE/features.toml, a commented text file that is yours to edit.
    """
    from dualview import console
    from dualview.store import Store, preset_toml

    if dry_run:
        folder, definitions = Store.plan_create(store, preset_toml(preset))
    else:
        made = Store.create(store, preset=preset)
        folder, definitions = made.root, made.definitions
    declared = definitions.ordered()
    if json:
        features = [feature.model_dump(mode="json") for feature in declared]
        console.as_json({"dry_run": dry_run, "store": str(folder), "preset": preset, "features": features})
        return
    console.table(
        f"{'Would make' if dry_run else 'Made'} {folder} with preset '{preset}'",
        ["feature", "kind", "from", "encoder", "model"],
        [[f.name, f.kind, f.inputs, f.encoder, f.model] for f in declared],
    )
    if not dry_run:
        console.say(f"next: dualview ingest {store} items.csv --interactions events.csv")
