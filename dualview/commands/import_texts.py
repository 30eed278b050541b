"""`dualview import-texts`: texts that somebody else wrote, such as descriptions, as a feature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualview.commands.common import AsJson, DryRun, StorePath, Wait
from dualview.commands.import_vectors import (
    Column,
    Feature,
    Inputs,
    Model,
    Note,
    Renew,
    Revision,
    split,
    tell,
)


def run(
    store: StorePath,
    feature: Feature,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help=".parquet with columns item_id and one of texts.", show_default=False
        ),
    ],
    column: Column = None,
    model: Model = None,
    revision: Revision = None,
    inputs: Inputs = None,
    note: Note = "",
    renew: Renew = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    json: AsJson = False,
) -> None:
    """Import texts that somebody else wrote, for other features to read; see import-vectors."""
    from dualview import console
    from dualview.commands.common import open_store

    opened = open_store(store)
    with console.Progress() as progress:
        report = opened.import_texts(
            feature,
            file,
            column=column,
            model=model,
            revision=revision,
            inputs=split(inputs),
            note=note,
            renew=renew,
            dry_run=dry_run,
            wait=wait,
            progress=progress,
        )
    tell(report, store, json)
