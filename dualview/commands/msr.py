"""`dualview msr`: MLLM-MSR, a language model that reads a preference and an item and answers yes or no."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dualview.commands import msr_evaluate, msr_run
from dualview.commands.common import AsJson, Device, DryRun, ReleaseName, StorePath

if TYPE_CHECKING:
    from dualview.msr import MsrPlan

app = typer.Typer(
    help="Fine-tune a language model that sees to answer whether a user takes an item.",
    no_args_is_help=True,
)
app.command("run")(msr_run.run)
app.command("evaluate")(msr_evaluate.run)


@app.command("train")
def train(
    store: StorePath,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Hub id or folder of a model, seeing or text-only.", show_default=False),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            help="Options of the paper (paper) or of its published code (code).",
            show_default=False,
        ),
    ] = None,
    preference: Annotated[
        str | None,
        typer.Option(
            "--preference",
            help="What stands for a user: history (latest titles), recurrent, direct, or a recipe of preferences.",
            show_default="history",
        ),
    ] = None,
    summary: Annotated[
        str | None,
        typer.Option(
            "--summary",
            metavar="FEATURE",
            help="A feature of texts that describes an item beside its title.",
            show_default=False,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other option, such as lr=1e-4; repeatable.",
            show_default=False,
        ),
    ] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(
            "--pairs",
            metavar="KEY=VALUE",
            help="How pairs are drawn, such as users=500 or split=by-user; repeatable. 200 users are validated on "
            "unless valid_users says otherwise.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="At most so many.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Of training; that of pairs is --pairs seed=N.", show_default=False),
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
    """Fine-tune adapters of a model on pairs of the log: items that users took, and items that they never took.

    The model itself stays as it is. Pooled AUC on validation pairs chooses the epoch; the test pairs are opened by
    `dualview msr evaluate` only. Stopped at any moment, it goes on with --resume.
    """
    from dualview import console, interrupted, msr
    from dualview.commands.common import open_store
    from dualview.training import parse_options

    if options:
        _list_options(json)
        return
    told = {"preference": preference, "summary": summary, "epochs": epochs, "seed": seed}
    given: dict[str, Any] = {
        "model": model,
        "preset": preset,
        "pairs": parse_options(pair or []),
        "release": release,
        "resume": resume,
        "device": device,
    }
    given |= parse_options(option or []) | {name: value for name, value in told.items() if value is not None}
    opened = open_store(store)
    if dry_run:
        plan = msr.plan_train(opened, **given)
        if json:
            console.as_json(plan.to_dict())
        else:
            _print(plan)
        return
    with interrupted.train(opened, resume, "msr train"), console.Progress() as progress:
        run = msr.train(
            opened,
            **given,
            progress=None if json else lambda row: _tell(row, progress),
            beat=None if json else lambda place, total: progress(place, total, "batches"),
        )
    if json:
        console.as_json(run.summary())
        return
    best = run.summary()
    auc = f", validation AUC {best['valid_auc']:.4f}" if "valid_auc" in best else ""
    console.say(
        f"{run.name}: epoch {best['best_epoch']} of {best['epochs']} is kept{auc}; "
        f"next: dualview msr evaluate {store} {run.name}"
    )


def _tell(row: dict[str, Any], progress: Any) -> None:
    from dualview import console

    progress.start("batches")  # the next epoch counts from nothing
    auc = f", validation AUC {row['valid_auc']:.4f}" if "valid_auc" in row else ""
    best = " (best)" if row.get("best") and auc else ""
    console.say(
        f"epoch {row['epoch']}: loss {row['loss']:.4f}, right {row['right']:.1%}, {row['seconds']:,.0f} s{auc}{best}"
    )


def _list_options(json: bool) -> None:
    from dualview import console
    from dualview.training import options_of
    from recommender.msr.config import PRESETS, MsrConfig
    from recommender.msr.pairs import PairOptions

    columns = ["option", "default", "values", "meaning"]
    tables = {"--set": options_of(MsrConfig), "--pairs": options_of(PairOptions)}
    if json:
        listed = {
            name: [dict(zip(columns, row, strict=True)) for row in rows] for name, rows in tables.items()
        }
        console.as_json(listed | {"presets": PRESETS})
        return
    for name, rows in tables.items():
        shown = [[key, default, f"{words}: {told}" if words else told] for key, default, words, told in rows]
        console.table(name, ["option", "default", "meaning"], shown)
    for name, values in PRESETS.items():
        console.say(f"--preset {name}: {', '.join(f'{key}={value}' for key, value in values.items())}")


def _print(plan: MsrPlan) -> None:
    from dualview import console

    seconds = console.duration(plan.epoch_seconds) or "unknown:"
    console.table(
        f"{plan.run} would {'go on' if plan.resumes else 'be trained'} on release {plan.release}",
        ["", ""],
        [
            ["model", plan.config["model"]],
            ["pairs", plan.pairs],
            ["examples", f"{plan.examples:,} to learn from, {plan.valid_examples:,} to validate on"],
            [
                "tokens",
                f"{plan.tokens_mean:,.0f} a prompt, at most {plan.tokens_most:,} of {plan.config['length']:,}, in the "
                "batches that were tried",
            ],
            [
                "weights",
                f"{plan.learned_parameters:,} learned in {plan.adapted_layers:,} layers, of {plan.parameters:,}",
            ],
            ["epochs", f"{plan.epochs:,} of {plan.steps_an_epoch:,} steps"],
            [
                "time",
                f"{seconds} an epoch without its validation, judged by {plan.timed_batches} of its batches",
            ],
        ],
    )
    console.say("nothing was written")
