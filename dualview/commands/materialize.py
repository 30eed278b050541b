"""`dualview materialize`: compute whatever is not current."""

from __future__ import annotations

from typing import Annotated

import typer

from dualview.commands.common import AsJson, Device, StorePath, Wait


def run(
    store: StorePath,
    feature: Annotated[
        list[str] | None,
        typer.Option(
            "--feature", "-f", help="Only this feature and what it needs; repeatable.", show_default="all"
        ),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Try again what failed for good.")] = False,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="At most so many cells a feature.", show_default=False),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", min=1, help="Rows an encoder takes at once.", show_default="the encoder's"
        ),
    ] = None,
    device: Device = "auto",
    wait: Wait = None,
    json: AsJson = False,
) -> None:
    """Compute every cell that is missing or stale, and nothing else.

    Stopped half-way, it goes on where its last commit was.
    """
    from dualview import console
    from dualview.commands.common import open_store
    from ingest.materialize import materialize

    opened = open_store(store)
    with console.Progress() as progress:
        report = materialize(
            opened,
            feature,
            failed=failed,
            limit=limit,
            batch_size=batch_size,
            device=device,
            wait=wait,
            progress=progress,
        )
    nothing = (
        "everything was current: nothing was computed"
        if opened.tables.exists("items")
        else f"the store holds no items yet; next: dualview ingest {store} ITEMS"
    )
    if json:
        console.as_json(report.to_dict())
    else:
        console.table(
            None,
            ["feature", "recipe", "computed", "ok", "no input", "errors", "seconds", "rows/s"],
            [
                [
                    f.feature,
                    f.recipe,
                    f.computed,
                    f.ok,
                    f.no_input,
                    f.error,
                    f"{f.seconds:.1f}",
                    round(f.rate),
                ]
                for f in report.features
            ],
            note=None if report.computed else nothing,
        )
    if report.errors:
        console.warn(f"{report.errors:,} cells could not be computed; see: dualview errors {store}")
        raise typer.Exit(2)
