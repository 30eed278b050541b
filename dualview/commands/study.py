"""`dualview study`: data sets x backbones x towers x seeds, trained and evaluated cell by cell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dualview.commands.common import AsJson, Device, DryRun

if TYPE_CHECKING:
    from recommender.study.grid import Cell, Study
    from recommender.study.plan import Planned
    from recommender.study.runner import Outcome

app = typer.Typer(
    help="Train and evaluate a grid of data sets, backbones, towers and seeds, and go on where it was left.",
    no_args_is_help=True,
)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study.", show_default=False)]
Cells = Annotated[
    Path | None,
    typer.Option(
        "--cells", metavar="DIR", help="Folder of the records.", show_default="cells, beside the study"
    ),
]
OnlyData = Annotated[
    list[str] | None, typer.Option("--data", help="Only this data set; repeatable.", show_default="all")
]
OnlyBackbone = Annotated[
    list[str] | None,
    typer.Option("--backbone", help="Only this backbone or baseline; repeatable.", show_default="all"),
]
OnlyTower = Annotated[
    list[str] | None, typer.Option("--tower", help="Only this tower; repeatable.", show_default="all")
]
OnlySeed = Annotated[
    list[int] | None, typer.Option("--seed", help="Only this seed; repeatable.", show_default="all")
]


@app.command("plan")
def plan(
    study: StudyFile,
    cells: Cells = None,
    data: OnlyData = None,
    backbone: OnlyBackbone = None,
    tower: OnlyTower = None,
    seed: OnlySeed = None,
    json: AsJson = False,
) -> None:
    """List the cells with their resolved options, which are done, and how long the rest may take; write nothing.

    Exit code 1 where a cell that is not done would fail, for want of a release or a feature.
    """
    from dualview import console
    from recommender.study.plan import plan as planned
    from recommender.study.state import Sources

    read, chosen = _chosen(study, cells, data, backbone, tower, seed)
    found = planned(chosen, Sources(read))
    if json:
        console.as_json({"study": read.name, **_counts(found), "cells": [one.to_dict() for one in found]})
    else:
        _print_plan(read, found)
    if any(one.fails for one in found):
        raise typer.Exit(1)


@app.command("run")
def run(
    study: StudyFile,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Folder for runs: checkpoints and logs.", show_default=False
        ),
    ],
    cells: Cells = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Cells at a time, one process each.")] = 1,
    data: OnlyData = None,
    backbone: OnlyBackbone = None,
    tower: OnlyTower = None,
    seed: OnlySeed = None,
    until: Annotated[
        float | None,
        typer.Option(
            "--until",
            metavar="SECONDS",
            min=0,
            help="Stop after so long; what is under way goes on the next time.",
            show_default="when all is done",
        ),
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="Open the test set of each cell, once, after its training.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also do cells anew whose options or data changed since.")
    ] = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Do the cells that are not done. It may be killed at any moment, and several may run side by side.

    Exit code 1 where a cell failed; the others are done nevertheless.
    """
    from dualview import console
    from featurestore import interrupts
    from recommender.study import runner
    from recommender.study.state import Sources

    read, chosen = _chosen(study, cells, data, backbone, tower, seed)
    left, others = runner.todo(chosen, Sources(read), test=test, again=again)
    outdated = [one for one in others if one.what == runner.OUTDATED]
    if dry_run:
        if json:
            console.as_json(
                {
                    "dry_run": True,
                    "study": read.name,
                    "cells": [cell.name for cell in left],
                    "outdated": [one.to_dict() for one in outdated],
                }
            )
            return
        console.table(None, ["cell to do"], [[cell.name] for cell in left])
        _warn_outdated(outdated)
        console.say(f"{len(left):,} of {len(chosen):,} cells would be done; nothing was written")
        return
    if not json:
        _warn_outdated(outdated)
    console.say(f"{read.name}: {len(left):,} of {len(chosen):,} cells to do")
    if left:
        with console.Progress() as progress:
            read.prepare(device, progress)
    known = {cell.name: cell for cell in chosen}
    ended: list[Outcome] = []

    def told(outcome: Outcome) -> None:
        ended.append(outcome)
        if outcome.what != runner.LEFT:
            console.say(f"[{len(ended)}/{len(left)}] {line(outcome, known[outcome.cell])}")

    def kept() -> str:
        finished = sum(one.what == runner.FINISHED for one in ended)
        return f"{finished:,} cells were finished, and are kept; run the same command again to go on"

    with interrupts.keeping(kept):
        outcomes = runner.run(
            read, chosen, out, jobs=jobs, test=test, again=again, device=device, until=until, told=told
        )
    failed = [one for one in outcomes if one.what == runner.FAILED]
    counts = {
        what: sum(one.what == what for one in outcomes) for what in dict.fromkeys(o.what for o in outcomes)
    }
    if json:
        console.as_json({"study": read.name, "counts": counts, "cells": [one.to_dict() for one in outcomes]})
    else:
        for one in failed:
            console.warn(f"{one.cell} failed: {one.says}; its log: {one.log}")
        console.say(", ".join(f"{count:,} {what}" for what, count in counts.items()) or "no cell")
    if failed:
        raise typer.Exit(1)


@app.command("audit")
def audit(
    study: StudyFile,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the runs, as `study run` had it.", show_default=False
        ),
    ],
    cells: Cells = None,
    data: OnlyData = None,
    backbone: OnlyBackbone = None,
    tower: OnlyTower = None,
    seed: OnlySeed = None,
    json: AsJson = False,
) -> None:
    """Show of each trained cell that nothing which shaped it saw a held-out event, and that validation chose its epoch.

    As `dualview audit` does of a run. Exit code 1 if one check of one cell is violated.
    """
    from dualview import console
    from featurestore.errors import BadInput, NotFound
    from recommender.audit import HOLDS, UNKNOWN, VIOLATED
    from recommender.study.audited import audited

    read, chosen = _chosen(study, cells, data, backbone, tower, seed)
    if read.kind != "sequential":
        raise BadInput(f"study {read.name} is of yes/no models, which have no such audit")
    found = []
    with console.Progress() as progress:
        for one in audited(read, chosen, out):
            found.append(one)
            progress(len(found), len(chosen), "cells")
    if not found:
        raise NotFound(
            f"no cell of study {read.name} is trained", remedy=f"dualview study run {study} --out {out}"
        )
    if json:
        console.as_json({"study": read.name, "cells": [one.to_dict() for one in found]})
    else:
        verdicts = (HOLDS, VIOLATED, UNKNOWN)
        rows = [
            [one.cell, *(one.to_dict()["verdicts"][v] if one.audit else None for v in verdicts), one.says]
            for one in found
        ]
        told = any(one.says for one in found)
        console.table(
            f"{read.name}: {len(found):,} cells",
            ["cell", *verdicts, *(["why not"] if told else [])],
            rows if told else [row[:-1] for row in rows],
            note="--json has every check with its reason and evidence",
        )
        for one in found:
            for check in one.audit.violated if one.audit else []:
                console.warn(f"{one.cell}: {check.name} is violated: {check.because}")
    if any(one.audit and one.audit.violated for one in found):
        raise typer.Exit(1)


@app.command("report")
def report(
    study: StudyFile,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for tables and figures.", show_default=False)
    ],
    cells: Cells = None,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Write tables, tests and figures from the records of the cells that are done. No store is needed."""
    from dualview import console
    from featurestore.errors import NotFound
    from recommender.study import Study, results

    read = Study.read(study, cells=cells)
    found = results(read)
    every = len(read.cells())
    if not found:
        raise NotFound(
            f"no cell of study {read.name} is done in {read.folder}",
            remedy=f"dualview study run {study} --out DIR",
        )
    if dry_run:
        if json:
            console.as_json({"dry_run": True, "study": read.name, "done": len(found), "cells": every})
        else:
            console.say(f"{len(found):,} of {every:,} cells would be reported in {out}; nothing was written")
        return
    written = _write(read, found, out)
    if json:
        console.as_json(
            {"study": read.name, "done": len(found), "cells": every, "files": [str(p) for p in written]}
        )
    else:
        console.say(f"{len(found):,} of {every:,} cells: {', '.join(str(path) for path in written)}")


def _write(study: Study, found: list[dict[str, Any]], out: Path) -> list[Path]:
    from recommender.msr.study.grid import MsrStudy

    if isinstance(study, MsrStudy):
        from recommender.msr.study import report as of_msr

        return of_msr.write(study, found, out)
    from recommender.study import report as of_towers

    return of_towers.write(study, found, out)


def _chosen(
    path: Path,
    cells: Path | None,
    data: list[str] | None,
    backbone: list[str] | None,
    tower: list[str] | None,
    seed: list[int] | None,
) -> tuple[Study, list[Cell]]:
    from featurestore.errors import BadInput
    from recommender.study import Study

    study = Study.read(path, cells=cells)
    chosen = study.select(data=data or (), backbone=backbone or (), tower=tower or (), seed=seed or ())
    if not chosen:
        raise BadInput(
            f"no cell of study {study.name} is all that was asked for",
            remedy="name fewer of --data, --backbone, --tower, --seed; a baseline has no tower and no seed",
        )
    return study, chosen


def line(outcome: Outcome, cell: Cell) -> str:
    from dualview import console
    from recommender.study import runner

    record = cell.record() if outcome.what == runner.FINISHED else None
    if record is None:
        return f"{outcome.cell}: {outcome.what}" + (f": {outcome.says}" if outcome.says else "")
    part = "valid" if record["test"] is None else "test"
    best = f", best epoch {record['best_epoch']} of {record['epochs']}" if record["best_epoch"] else ""
    return (
        f"{outcome.cell}: {part} {cell.shown} {record[part]['metrics'][cell.shown]:.4f}{best}, "
        f"{console.duration(outcome.seconds)}"
    )


def _warn_outdated(outdated: list[Outcome]) -> None:
    from dualview import console

    for one in outdated:
        console.warn(f"{one.cell} is outdated: {one.says}; --again does it anew")


def _counts(found: list[Planned]) -> dict[str, Any]:
    left = [one for one in found if one.seconds is None]
    return {
        "counts": {
            state: sum(one.state == state for one in found) for state in sorted({o.state for o in found})
        },
        "seconds_spent": round(sum(one.seconds or 0.0 for one in found), 1),
        "expected_seconds_left": round(sum(one.expected or 0.0 for one in left), 1),
        "without_estimate": sum(one.expected is None for one in left),
    }


def _print_plan(study: Study, found: list[Planned]) -> None:
    from dualview import console

    trained = [one.options for one in found if not one.cell.baseline]
    shared = {k: v for k, v in trained[0].items() if all(o.get(k) == v for o in trained)} if trained else {}
    groups: dict[tuple[str, str, str | None], list[Planned]] = {}
    for one in found:
        groups.setdefault((one.cell.data, one.cell.backbone, one.cell.tower), []).append(one)
    rows = []
    for (data, backbone, tower), members in groups.items():
        own = {name: value for name, value in members[0].options.items() if name not in shared}
        times = [time for one in members if (time := one.seconds or one.expected) is not None]
        seeds: dict[str, list[str]] = {}
        for one in members:
            seeds.setdefault(one.state, []).append("" if one.cell.seed is None else str(one.cell.seed))
        states = "; ".join(f"{state} {','.join(of)}".strip() for state, of in seeds.items())
        each = console.duration(sum(times) / len(times)) if times else None
        rows.append([data, backbone, tower, states, each, _told(own)])
    console.table(
        f"{study.name}: {len(found):,} cells",
        ["data", "backbone", "tower", "seeds", "a cell", "options of its own"],
        rows,
        note=f"options of all trained cells: {_told(shared) or 'defaults'}; dualview train --options says what each is",
    )
    fails: dict[str, int] = {}
    for one in found:
        if one.fails:
            says = f"{one.cell.data}: {one.problem}"
            fails[says] = fails.get(says, 0) + 1
    for says, count in fails.items():
        console.warn(f"{count:,} {'cell' if count == 1 else 'cells'} would fail: {says}")
    for one in found:
        if one.why:
            console.warn(f"{one.cell.name} is outdated: {one.why}")
    counts = _counts(found)
    says = ", ".join(f"{count:,} {state}" for state, count in counts["counts"].items())
    left = sum(one.seconds is None for one in found)
    if left > (unknown := counts["without_estimate"]):
        says += f"; the rest may take {console.duration(counts['expected_seconds_left'])} of one process"
    if unknown:
        says += f"; no estimate for {unknown:,} cells unlike any that is done"
    console.say(says)


def _told(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())
