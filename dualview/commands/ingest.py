"""`dualview ingest`: read a catalogue and a log into the store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualview.commands.common import AsJson, DryRun, StorePath, Wait


def run(
    store: StorePath,
    items: Annotated[
        Path | None,
        typer.Argument(
            metavar="ITEMS",
            help="Catalogue: csv, jsonl, parquet, or a folder of images; with --format the data set's folder.",
            show_default=False,
        ),
    ] = None,
    interactions: Annotated[
        Path | None,
        typer.Option(
            "--interactions", metavar="EVENTS", help="Log: csv, jsonl or parquet.", show_default=False
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="FOLDER",
            help="What image paths are relative to; with --format the folder of pictures ID.jpg.",
            show_default="folder of ITEMS",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="ITEMS is the folder of a public data set: movielens-100k, movielens-1m, movielens-latest, "
            "amazon-2018, amazon-2023, microlens, or auto.",
            show_default=False,
        ),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(
            "--mapping", metavar="FILE", help="TOML file that renames and types columns.", show_default=False
        ),
    ] = None,
    keep_images: Annotated[
        bool,
        typer.Option(
            "--keep-images", help="Keep the original pictures inside the store, not only their path."
        ),
    ] = False,
    remove_missing: Annotated[
        bool, typer.Option("--remove-missing", help="Items that ITEMS no longer names leave the catalogue.")
    ] = False,
    replace_interactions: Annotated[
        bool, typer.Option("--replace-interactions", help="Swap the stored log for EVENTS.")
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    json: AsJson = False,
) -> None:
    """Read a catalogue and a log. Only what changed is written.

    Columns by convention: item_id, title, image; every other column is an attribute with an inferred type. A log has
    user_id, item_id and timestamp or position. A row that cannot be read is set aside with file, line, field and reason
    (see `dualview errors`), and the rest goes on.
    """
    from dualview import console, interrupted
    from dualview.commands.common import open_store
    from featurestore.errors import BadInput

    if items is None and interactions is None:
        raise BadInput(
            "nothing to ingest",
            remedy=f"name a catalogue or a log: dualview ingest {store} items.csv --interactions events.csv",
        )
    opened = open_store(store)
    with interrupted.ingest(opened), console.Progress() as progress:
        report = opened.ingest(
            items,
            interactions=interactions,
            format=format,
            mapping=mapping,
            images_root=images,
            remove_missing=remove_missing,
            replace_interactions=replace_interactions,
            keep_images=keep_images,
            dry_run=dry_run,
            wait=wait,
            progress=progress,
        )
    if json:
        console.as_json({"dry_run": dry_run} | report.to_dict())
        return
    title = f"{'What an ingest would do to' if dry_run else 'Ingested into'} {opened.root}"
    console.report(report.to_dict(), title=title)
    for note in report.notes:
        console.warn(note)
    aside = sum(report.quarantined.values())
    if dry_run:
        if aside:
            console.warn(f"{aside:,} rows or fields would be set aside")
        console.say("nothing was written")
        return
    if aside:
        console.warn(f"{aside:,} rows or fields were set aside; see: dualview errors {store}")
    console.say(f"next: dualview materialize {store}")
