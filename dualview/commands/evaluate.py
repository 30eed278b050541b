"""`dualview evaluate`: rank the whole catalogue for every user and measure where the held-out item lands."""

from __future__ import annotations

from typing import Annotated

import typer

from dualview.commands.common import AsJson, Device, DryRun, ServedPath


def run(
    store: ServedPath,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of a run, or latest.", show_default=False)],
    on: Annotated[str, typer.Option("--on", help="test or valid.")] = "test",
    k: Annotated[
        list[int] | None, typer.Option("-k", min=1, help="Cut-offs; repeatable.", show_default="5, 10, 20")
    ] = None,
    negatives: Annotated[
        int | None,
        typer.Option(
            "--negatives",
            min=1,
            help="Also rank among so many sampled items, named as such.",
            show_default=False,
        ),
    ] = None,
    repeat: Annotated[
        str | None,
        typer.Option(
            "--repeat", help="Items a user already took: mask, or allow.", show_default="as in training"
        ),
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Popularity on the same users, beside it.")
    ] = True,
    device: Device = "auto",
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Evaluate a run by full-catalogue ranking: HR, NDCG, MRR, coverage, head, tail and cold items.

    A run that was trained with hide_items also says how the items that were hidden from it are recommended.
    """
    from dualview import console, interrupted
    from dualview.commands.common import open_served
    from dualview.evaluation import evaluate, plan_evaluation

    opened = open_served(store)
    if dry_run:
        plan = plan_evaluation(opened, run, on=on, repeat=repeat)
        if json:
            console.as_json({"dry_run": True} | plan)
        else:
            console.say(
                f"{plan['run']} would be ranked on the {on} events of {plan['users']:,} users among {plan['items']:,} "
                f"items ({plan['split']}), and {' and '.join(plan['files'])} "
                f"{'written again' if plan['replaces'] else 'written'}; nothing was written"
            )
        return
    with interrupted.evaluate():
        report = evaluate(
            opened,
            run,
            on=on,
            ks=tuple(k) if k else (5, 10, 20),
            negatives=negatives,
            repeat=repeat,
            baseline=baseline,
            device=device,
        )
    if json:
        console.as_json(report.to_dict())
        return
    for part in report.tables():
        console.table(part.title, part.columns, part.rows, note=part.note)
