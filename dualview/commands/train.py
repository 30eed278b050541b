"""`dualview train`: train a sequential recommender on a release."""

from __future__ import annotations

from typing import Annotated

import typer

from dualview.commands.common import AsJson, Device, ReleaseName, StorePath


def run(
    store: StorePath,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="Sequence model: sasrec.", show_default="sasrec")
    ] = None,
    items: Annotated[
        str | None,
        typer.Option(
            "--items",
            help="What an item is to the model: id, a feature, or several joined by +, as in id+text.",
            show_default="id",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other option, such as width=128; repeatable.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="At most so many.", show_default=False)
    ] = None,
    length: Annotated[
        int | None,
        typer.Option("--length", min=1, help="Events of a user that are looked at.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of every random choice.", show_default=False)
    ] = None,
    release: ReleaseName = "latest",
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume", metavar="RUN", help="Go on with a run that was stopped.", show_default=False
        ),
    ] = None,
    options: Annotated[
        bool, typer.Option("--options", help="List every option with its default, and end.")
    ] = False,
    device: Device = "auto",
    json: AsJson = False,
) -> None:
    """Train a sequential recommender on a release's log and features.

    Validation NDCG@10 chooses the epoch; the test set is opened by `dualview evaluate` only.
    """
    from dualview import console
    from dualview.commands.common import open_store
    from dualview.training import fit, option_table, parse_options

    if options:
        console.table(None, ["option", "default", "meaning"], option_table())
        return
    given = parse_options(option or []) | {
        key: value
        for key, value in {"epochs": epochs, "length": length, "seed": seed}.items()
        if value is not None
    }
    opened = open_store(store)
    with console.EpochLog(quiet=json) as log:
        run = fit(
            opened,
            backbone=backbone,
            items=items,
            release=release,
            resume=resume,
            device=device,
            progress=log,
            **given,
        )
    if json:
        console.as_json(run.summary())
        return
    best = run.summary()
    console.say(
        f"{run.name}: best epoch {best['best_epoch']}, validation NDCG@10 {best['valid_ndcg@10']:.4f}; "
        f"next: dualview evaluate {store} {run.name}"
    )
