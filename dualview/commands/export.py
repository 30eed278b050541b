"""`dualview export`: a release in formats that other tools read, or for another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualview.commands.common import AsJson, DryRun, ReleaseName, StorePath


def run(
    store: StorePath,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to make and write into.", show_default=False)
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="parquet: items, interactions and features; npy: vectors; recbole: atomic files; "
            "release: as it is, to train on another machine.",
        ),
    ] = "parquet",
    feature: Annotated[
        list[str] | None,
        typer.Option(
            "--feature",
            "-f",
            help="Only this feature; repeatable.",
            show_default="all that the format can hold",
        ),
    ] = None,
    release: ReleaseName = "latest",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in OUT.")] = False,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Write a release's items, events and vectors for other tools, with what made them.

    OUT is whole or not there; provenance.json in it names the release and every recipe.
    """
    from dualview import console
    from dualview.commands.common import open_store

    report = open_store(store).export(
        out, to=to, features=feature, release=release, overwrite=overwrite, dry_run=dry_run
    )
    if json:
        console.as_json(report.to_dict())
        return
    done = "would be exported (bytes: about, before compression)" if dry_run else "exported"
    console.table(
        f"Release {report.release} {done} to {report.folder}",
        ["file", "bytes"],
        [[file.name, file.bytes] for file in report.files],
    )
    for note in report.notes:
        console.warn(note)
