"""`dualview msr run`: from raw files to the table, as one msr.toml says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualview.commands.common import AsJson, Device, DryRun, Wait

if TYPE_CHECKING:
    from dualview.msr_pipeline import Made
    from recommender.study.runner import Outcome


def run(
    file: Annotated[Path, typer.Argument(metavar="MSR.toml", help="What to do.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for runs and the report.",
            show_default="out, beside the file",
        ),
    ] = None,
    cells: Annotated[
        Path | None,
        typer.Option(
            "--cells", metavar="DIR", help="Folder of the records.", show_default="cells, beside the file"
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Cells at a time, one process each.")] = 1,
    test: Annotated[
        bool,
        typer.Option("--test/--no-test", help="Open the test set of each cell, once, after its training."),
    ] = True,
    again: Annotated[
        bool, typer.Option("--again", help="Also do cells anew whose options or data changed since.")
    ] = False,
    until: Annotated[
        float | None,
        typer.Option(
            "--until",
            metavar="SECONDS",
            min=0,
            help="Stop training after so long; what is under way goes on the next time.",
            show_default="when all is done",
        ),
    ] = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    wait: Wait = None,
    json: AsJson = False,
) -> None:
    """Make the store, write preferences, fine-tune, and score everybody on the same candidates: whatever is not done.

    It may be stopped at any moment; the same command goes on. Exit code 1 where a cell failed.
    """
    from dualview import console, msr_pipeline
    from featurestore import interrupts
    from recommender.study import runner

    study = msr_pipeline.read(file, cells)
    if dry_run:
        plan = msr_pipeline.plan(study, test=test, again=again)
        if json:
            console.as_json({"dry_run": True} | plan)
        else:
            maker = f"store {plan['store']} would be made, " if plan["makes_store"] else ""
            console.table(None, ["cell to do"], [[name] for name in plan["cells"]])
            console.say(
                f"{maker}{len(plan['cells']):,} of {plan['of']:,} cells would be done; nothing was written"
            )
        return
    known = {cell.name: cell for cell in study.cells()}
    ended: list[Outcome] = []

    def told(outcome: Outcome) -> None:
        from dualview.commands.study import line

        ended.append(outcome)
        if outcome.what not in (runner.LEFT, runner.DONE):
            console.say(line(outcome, known[outcome.cell]))

    def kept() -> str:
        finished = sum(one.what == runner.FINISHED for one in ended)
        return f"{finished:,} cells were finished, and are kept; run the same command again to go on"

    with interrupts.keeping(kept), console.Progress() as progress:
        made = msr_pipeline.run(
            study,
            out if out is not None else file.parent / "out",
            jobs=jobs,
            test=test,
            again=again,
            device=device,
            until=until,
            wait=wait,
            say=console.say,
            told=told,
            progress=progress,
        )
    _show(made, json)
    if any(one.what == runner.FAILED for one in made.outcomes):
        raise typer.Exit(1)


def _show(made: Made, json: bool) -> None:
    from dualview import console
    from recommender.msr.study import report
    from recommender.study import runner

    if json:
        console.as_json(made.to_dict())
        return
    for one in made.outcomes:
        if one.what == runner.FAILED:
            console.warn(f"{one.cell} failed: {one.says}; its log: {one.log}")
        elif one.what == runner.OUTDATED:
            console.warn(f"{one.cell} is outdated: {one.says}; --again does it anew")
    if not made.rows:
        console.say("no cell is done")
        return
    study, first = made.study, made.rows[0].record
    told = "; ".join(f"{name}: {text}" for name, text in report.meanings(study))
    told += f"; vs {study.reference}: {report.TESTED} minus that of {study.reference}"
    console.table(
        f"{study.name}, {made.part}: {first[made.part]['users']:,} users",
        ["scorer", "kind", "seeds", *report.METRICS, f"vs {study.reference}", "p", "p > chance"],
        [report.brief(study, row) for row in made.rows],
        note=f"{first['protocol']}; {told}",
    )
    console.say(f"written: {', '.join(str(path) for path in made.files)}")
