"""`dualview train`: train a sequential recommender on a release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dualview.commands.common import AsJson, Device, DryRun, ReleaseName, ServedPath

if TYPE_CHECKING:
    from dualview.training import TrainingPlan


def run(
    store: ServedPath,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone", help="Sequence model: sasrec, gru4rec or bert4rec.", show_default="sasrec"
        ),
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
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Train a sequential recommender on a release's log and features.

    Validation NDCG@10 chooses the epoch; the test set is opened by `dualview evaluate` only.
    """
    from dualview import console, interrupted
    from dualview.commands.common import open_served
    from dualview.training import fit, option_table, parse_options, plan_fit

    if options:
        _list_options(option_table(), json)
        return
    given = parse_options(option or []) | {
        key: value
        for key, value in {"epochs": epochs, "length": length, "seed": seed}.items()
        if value is not None
    }
    opened = open_served(store)
    if dry_run:
        plan = plan_fit(
            opened, backbone=backbone, items=items, release=release, resume=resume, device=device, **given
        )
        if json:
            console.as_json(plan.to_dict())
        else:
            _print(plan)
        return
    with interrupted.train(opened, resume), console.EpochLog(quiet=json) as log:
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


def _list_options(found: list[tuple[str, str, str, str]], json: bool) -> None:
    from dualview import console

    columns = ["option", "default", "values", "meaning"]
    if json:
        console.as_json([dict(zip(columns, row, strict=True)) for row in found])
        return
    # in the table the words stand before what they mean: a column of their own would leave little room for that
    rows = [[name, default, f"{words}: {told}" if words else told] for name, default, words, told in found]
    console.table(None, ["option", "default", "meaning"], rows)


def _print(plan: TrainingPlan) -> None:
    from dualview import console

    recipes = ", ".join(f"{name} ({recipe[:8]})" for name, recipe in plan.features.items())
    console.table(
        f"{plan.run} would {'go on' if plan.resumes else 'be trained'} on release {plan.release}",
        ["", ""],
        [
            ["split", plan.split["description"]],
            ["events", f"{plan.events:,} of {plan.users:,} users, {plan.items:,} items"],
            ["stored features", recipes or "none: items are their ids"],
            ["parameters", f"{plan.parameters:,}"],
            ["steps an epoch", f"{plan.steps_an_epoch:,}"],
            [
                "epochs",
                f"at most {plan.epochs:,}, fewer after {plan.patience} validations without a new best",
            ],
            [
                "time",
                f"{console.duration(plan.epoch_seconds)} an epoch without its validation, "
                f"judged by {plan.timed_steps} of its steps",
            ],
        ],
    )
    console.say("nothing was written")
