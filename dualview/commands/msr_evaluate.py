"""`dualview msr evaluate`: a fine-tuned run beside others, on the same candidates."""

from __future__ import annotations

from typing import Annotated

import typer

from dualview.commands.common import AsJson, Device, DryRun, StorePath


def run(
    store: StorePath,
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Name of a fine-tuned run, or latest.", show_default=False)
    ],
    on: Annotated[str, typer.Option("--on", help="test or valid.")] = "test",
    beside: Annotated[
        list[str] | None,
        typer.Option(
            "--beside",
            metavar="RUN",
            help="Another run, fine-tuned or sequential, on the same candidates; repeatable.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[
        list[int] | None, typer.Option("-k", min=1, help="Cut-offs; repeatable.", show_default="5")
    ] = None,
    zero_shot: Annotated[
        bool, typer.Option("--zero-shot/--no-zero-shot", help="The model without its adapters beside it.")
    ] = True,
    baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Popularity and chance beside it.")
    ] = True,
    users: Annotated[
        int | None,
        typer.Option("--users", min=1, help="Only so many users, drawn once.", show_default="all"),
    ] = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Rank each user's held-out item among items that the user never took: AUC, HR@5, MRR@5, and tests user by user.

    Candidates are those of the pairs that the run was trained with, the same for every scorer.
    """
    from dualview import console, interrupted
    from dualview.commands.common import open_store
    from dualview.msr_evaluation import evaluate, plan_evaluation

    opened = open_store(store)
    others = tuple(beside or ())
    if dry_run:
        plan = plan_evaluation(
            opened, run, on=on, beside=others, zero_shot=zero_shot, floors=baseline, users=users
        )
        if json:
            console.as_json({"dry_run": True} | plan)
        else:
            console.say(
                f"{', '.join(plan['scorers'])} would score {plan['candidates']:,} candidates of "
                f"{plan['users']:,} users ({plan['protocol']}), and {' and '.join(plan['files'])} be "
                f"{'written again' if plan['replaces'] else 'written'}; nothing was written"
            )
        return
    with interrupted.evaluate(), console.Progress() as progress:
        report = evaluate(
            opened,
            run,
            on=on,
            beside=others,
            zero_shot=zero_shot,
            floors=baseline,
            ks=tuple(k) if k else (5,),
            users=users,
            device=device,
            told=lambda name, done, of: progress(done, of, f"users asked of {name}"),
        )
    if json:
        console.as_json(report.to_dict())
        return
    for part in report.tables():
        console.table(part.title, part.columns, part.rows, note=part.note)
