"""`dualview materialize`: compute whatever is not current."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from dualview.commands.common import AsJson, Device, DryRun, StorePath, Wait

if TYPE_CHECKING:
    from ingest.estimate import MaterializeEstimate
    from ingest.materialize import FeatureReport


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
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample", min=1, help="Only so many of the items, drawn by --seed.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of --sample.")] = 0,
    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost",
            metavar="AMOUNT",
            help="Where a feature has a price: stop asking once so much was spent.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Where a feature has a price: ask whatever it costs.")
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", min=1, help="Rows an encoder takes at once.", show_default="the encoder's"
        ),
    ] = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    wait: Wait = None,
    json: AsJson = False,
) -> None:
    """Compute every cell that is missing or stale, and nothing else.

    Stopped half-way, it goes on where its last commit was. With --dry-run, the time is judged by a small sample that is
    really computed, and thrown away.
    """
    from dualview import console, interrupted
    from dualview.commands.common import open_store
    from featurestore.errors import DualviewError
    from ingest.materialize import materialize

    opened = open_store(store)
    if dry_run:
        told = opened.estimate(
            feature,
            failed=failed,
            limit=limit,
            sample=sample,
            seed=seed,
            batch_size=batch_size,
            device=device,
        )
        if json:
            console.as_json(told.to_dict())
        else:
            _print(told)
        return
    ended: list[FeatureReport] = []
    try:
        with interrupted.materialize(opened), console.Progress() as progress:
            report = materialize(
                opened,
                feature,
                failed=failed,
                limit=limit,
                sample=sample,
                seed=seed,
                max_cost=max_cost,
                yes=yes,
                batch_size=batch_size,
                device=device,
                wait=wait,
                progress=progress,
                ended=ended.append,
            )
    except DualviewError:
        if ended and not json:
            _tell(ended, None)  # what is told next came after this
        raise
    nothing = "everything was current: nothing was computed"
    if not opened.tables.exists("items"):
        nothing = f"the store holds no items yet; next: dualview ingest {store} ITEMS"
    elif not report.computed and not opened.status().current:
        nothing = f"nothing was computed; not everything is current, see: dualview status {store}"
    if json:
        console.as_json(report.to_dict())
    else:
        _tell(report.features, None if report.computed else nothing)
    if report.errors:
        console.warn(f"{report.errors:,} cells could not be computed; see: dualview errors {store}")
        raise typer.Exit(2)


def _tell(reports: Sequence[FeatureReport], note: str | None) -> None:
    from dualview import console

    paid = any(f.cost is not None for f in reports)
    columns = ["feature", "recipe", "computed", "ok", "no input", "errors", "seconds", "rows/s"]
    rows = [
        [
            f.feature,
            f.recipe,
            f.computed,
            f.ok,
            f.no_input,
            f.error,
            f"{f.seconds:.1f}",
            f"{f.rate:,.1f}" if 0 < f.rate < 10 else round(f.rate),
            *([f.cost] if paid else []),
        ]
        for f in reports
    ]
    console.table(None, [*columns, "cost"] if paid else columns, rows, note=note)
    for f in reports:
        for one in f.notes:
            console.warn(f"{f.feature}: {one}")


def _print(told: MaterializeEstimate) -> None:
    from dualview import console

    paid = any(f.usage.tokens is not None or f.usage.cost is not None for f in told.features)
    rows: list[list[object]] = []
    for f in told.features:
        rate = f"{f.usage.rate:,.0f}" if f.usage.rate else None
        counts = [f.missing, f.stale, f.failed, f.blocked, f.inputs]
        price = [f.usage.tokens, f.usage.cost] if paid else []
        took = console.duration(f.usage.seconds)
        rows.append([f.feature, f.recipe, *counts, f.usage.sample, rate, took, *price])
    columns = [
        "feature",
        "recipe",
        "missing",
        "stale",
        "failed",
        "waiting",
        "inputs",
        "tried",
        "a second",
        "time",
    ]
    console.table(
        None,
        [*columns, "tokens", "US$"] if paid else columns,
        rows,
        note="inputs: distinct ones, each computed once; tried: so many of them were computed to measure the time",
    )
    for f in told.features:
        for note in ([f"recipe: {f.resolve}"] if f.resolve else []) + list(f.usage.notes):
            console.warn(f"{f.feature}: {note}")
    if told.cells or any(f.blocked for f in told.features):
        console.say(
            f"about {console.duration(told.seconds) or 'nobody knows how long'} in all; nothing was written"
        )
    else:
        console.say("everything is current: nothing would be computed")
