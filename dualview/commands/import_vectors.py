"""`dualview import-vectors`: vectors that somebody else computed, as a feature."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualview.commands.common import AsJson, DryRun, StorePath, Wait

if TYPE_CHECKING:
    from ingest.imported import ImportReport

Feature = Annotated[
    str, typer.Argument(metavar="FEATURE", help="Its name; declared where it is new.", show_default=False)
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="What made the values. A file that a store exported says it itself.",
        show_default=False,
    ),
]
Revision = Annotated[
    str | None, typer.Option("--revision", help="Which version of the model.", show_default=False)
]
Inputs = Annotated[
    str | None,
    typer.Option(
        "--inputs",
        metavar="LIST",
        help="What the values were made from, such as text,image: editing it makes them stale.",
        show_default="text",
    ),
]
Note = Annotated[
    str, typer.Option("--note", help="A description, kept in features.toml.", show_default=False)
]
Column = Annotated[
    str | None,
    typer.Option(
        "--column", metavar="NAME", help="Parquet column with the values.", show_default="the only one"
    ),
]
Renew = Annotated[
    bool, typer.Option("--renew", help="This same file holds for items edited since it was imported, too.")
]


def run(
    store: StorePath,
    feature: Feature,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help=".npy (items, size), or .parquet with item_id and lists.", show_default=False
        ),
    ],
    ids: Annotated[
        Path | None,
        typer.Option(
            "--ids",
            metavar="FILE",
            help="Ids of the rows of a .npy: .txt (one a line), .npy or .json.",
            show_default="NAME.ids.txt beside it",
        ),
    ] = None,
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
    """Import vectors that somebody else computed. Ids are joined to the catalogue; the rest is counted and told.

    The file's hash is part of the recipe: another file is another recipe, and the same file again writes nothing.
    """
    from dualview import console
    from dualview.commands.common import open_store

    opened = open_store(store)
    with console.Progress() as progress:
        report = opened.import_vectors(
            feature,
            file,
            ids=ids,
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


def split(inputs: str | None) -> list[str] | None:
    return None if inputs is None else [part.strip() for part in inputs.split(",") if part.strip()]


def tell(report: ImportReport, store: Path, json: bool) -> None:
    """Print what an import did; exit code 2 where it left something stale or blocked."""
    from dualview import console

    if json:
        console.as_json(report.to_dict())
    else:
        size = "texts" if report.dim is None else f"vectors of {report.dim}"
        done = "would be imported" if report.dry_run else "imported"
        console.table(
            f"{report.feature}: {report.rows:,} {size} {done} as recipe {report.recipe}",
            ["ok", "error", "not in the file", "unchanged", "stale", "blocked", "unknown ids"],
            [
                [
                    report.ok,
                    report.error,
                    report.absent,
                    report.unchanged,
                    report.stale,
                    report.blocked,
                    report.unknown,
                ]
            ],
        )
        for code, count in report.errors.items():
            console.warn(f"error {code}: {count:,} items; see: dualview errors {store}")
        if report.unknown:
            more = ", ..." if report.unknown > len(report.unknown_examples) else ""
            shown = ", ".join(report.unknown_examples) + more
            console.warn(f"ids in the file that are no items of the store: {report.unknown:,} ({shown})")
        if report.absent:
            console.warn(f"items that the file has no value of: {report.absent:,}; they count as no input")
        if report.stale:
            console.warn(
                f"items edited since this file was imported: {report.stale:,}; import values made from what they are "
                "today, or say with --renew that these still hold"
            )
        if report.blocked:
            console.warn(f"items whose inputs are features that are not current: {report.blocked:,}")
        if not report.dry_run and not (report.stale or report.blocked):
            console.say(f"next: dualview publish {store}")
    if report.stale or report.blocked:
        raise typer.Exit(2)
