"""`dualview preferences`: what users prefer, written by a model from what they took."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dualview.commands.common import AsJson, Device, DryRun, ReleaseName, StorePath, Wait

if TYPE_CHECKING:
    from recommender.msr.preferences_run import PreferencePlan, PreferenceReport
    from recommender.msr.preferences_show import ShownState


def run(
    store: StorePath,
    backend: Annotated[
        str | None,
        typer.Option("--backend", help="Who writes: template, transformers or openai.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Hub id or folder; for openai what the endpoint calls it.", show_default=False
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            help="A shipped prompt, or a file.",
            show_default="msr-preference, of template msr-list",
        ),
    ] = None,
    block: Annotated[int, typer.Option("--block", min=1, help="Events that one step reads.")] = 3,
    last: Annotated[
        int | None,
        typer.Option(
            "--last", min=1, help="Events of a user that are read at most, the latest.", show_default="all"
        ),
    ] = None,
    direct: Annotated[
        bool, typer.Option("--direct", help="One prompt over all events instead of steps.")
    ] = False,
    summary: Annotated[
        str | None,
        typer.Option(
            "--summary",
            metavar="FEATURE",
            help="A feature of texts that tells of an item beside its title.",
            show_default="the text columns",
        ),
    ] = None,
    item_words: Annotated[
        int, typer.Option("--item-words", min=1, help="An item's text is cut to so many words.")
    ] = 60,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option of the describer, such as max_tokens=120; repeatable.",
            show_default=False,
        ),
    ] = None,
    users: Annotated[
        int | None,
        typer.Option("--users", min=1, help="Only so many users, drawn by --seed.", show_default="all"),
    ] = None,
    user: Annotated[
        list[str] | None,
        typer.Option("--user", metavar="ID", help="Only this user; repeatable.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of --users.")] = 0,
    split: Annotated[
        str, typer.Option("--split", help="leave-one-out or global-time: where --at stands.")
    ] = "leave-one-out",
    k_core: Annotated[
        str | None,
        typer.Option(
            "--k-core", metavar="U,I", help="Least events a user and an item have.", show_default=False
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            help="What the preference is for, made of all before it: the last event of training (train), the targets "
            "(valid, test), the event to come (now); repeatable.",
            show_default="all four",
        ),
    ] = None,
    release: ReleaseName = "latest",
    failed: Annotated[bool, typer.Option("--failed", help="Try again what failed for good.")] = False,
    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost",
            metavar="AMOUNT",
            help="Where there is a price: stop asking once so much was spent.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Where there is a price: ask whatever it costs.")
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Prompts at once.", show_default="the describer's"),
    ] = None,
    show: Annotated[
        str | None,
        typer.Option(
            "--show", metavar="USER", help="Print a user's states beside the items.", show_default=False
        ),
    ] = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    wait: Wait = None,
    json: AsJson = False,
) -> None:
    """Sum up in words what users prefer, block by block of what they took.

    Only what is missing is made: one new event of a user is one or two states. Stopped half-way, it goes on where it
    was. Exit code 2 when a state could not be made.
    """
    from dualview import console, interrupted
    from dualview.commands.common import open_store
    from dualview.training import parse_options
    from featurestore.errors import BadInput

    opened = open_store(store)
    if show is not None:
        from recommender.msr.preferences_show import states_of

        states = states_of(opened, show, release=release)
        if json:
            console.as_json([state.to_dict() for state in states])
        else:
            _show(show, states)
        return
    if backend is None:
        raise BadInput(
            "nothing says who writes the preferences",
            remedy="--backend transformers --model MODEL, --backend openai --model NAME, or --backend template",
        )
    given: dict[str, Any] = {
        "backend": backend,
        "model": _here(model) if backend != "openai" else model,
        "prompt": _here(prompt),
        "block": block,
        "last": last,
        "direct": direct,
        "summary": summary,
        "item_words": item_words,
        "options": parse_options(option or []),
        "users": user or None,
        "sample": users,
        "seed": seed,
        "split": split,
        "k_core": _pair(k_core),
        "release": release,
        "failed": failed,
        "device": device,
    } | ({"points": at} if at else {})
    if dry_run:
        plan = opened.preferences(dry_run=True, **given)
        if json:
            console.as_json(plan.to_dict())
        else:
            _print_plan(plan)
        return
    with interrupted.preferences(opened), console.Progress() as progress:
        report = opened.preferences(
            max_cost=max_cost, yes=yes, batch_size=batch_size, wait=wait, progress=progress, **given
        )
    if json:
        console.as_json(report.to_dict())
    else:
        _print(report, str(store))
    if report.error or report.failed:
        raise typer.Exit(2)


def _here(given: str | None) -> str | None:
    """A path as the shell means it: what the store resolves would start at the store."""
    from pathlib import Path

    if given is None:
        return None
    path = Path(given).expanduser()
    return str(path.resolve()) if path.exists() else given


def _pair(given: str | None) -> tuple[int, int] | None:
    from featurestore.errors import BadInput

    if given is None:
        return None
    parts = given.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise BadInput(f"--k-core {given} is not two numbers", remedy="for instance --k-core 5,5")
    return int(parts[0]), int(parts[1])


def _print(report: PreferenceReport, store: str) -> None:
    from dualview import console

    rate = report.computed / report.seconds if report.seconds else 0.0
    console.table(
        f"{report.variant} preferences of {report.users:,} users, recipe {report.recipe[:8]}, "
        f"release {report.release}",
        [
            "states",
            "there",
            "made",
            "nothing said",
            "errors",
            "failed before",
            "waiting",
            "seconds",
            "made/s",
        ],
        [
            [
                report.states,
                report.current,
                report.ok,
                report.no_input,
                report.error,
                report.failed,
                report.waiting,
                f"{report.seconds:.1f}",
                f"{rate:,.1f}",
            ]
        ],
        note=None if report.computed else "everything was there: nobody was asked",
    )
    if report.completion_tokens:
        seconds = max(report.answer_seconds, 1e-9)
        console.say(
            f"{report.prompt_tokens:,} tokens read and {report.completion_tokens:,} written, "
            f"{report.completion_tokens / seconds:,.1f} written a second"
            + (f"; cost {report.cost:.4f}" if report.cost is not None else "")
        )
    for note in report.notes:
        console.warn(note)
    for error in report.errors:
        console.warn(f"{error['user']}, step {error['step']}: {error['code']}: {error['message']}")
    if report.error > len(report.errors):
        console.warn(f"and {report.error - len(report.errors):,} more")
    if report.waiting:
        console.warn(f"{report.waiting:,} states wait: run the same command again")
    elif report.error or report.failed:
        console.warn("states after a failed one read the last text before it; --failed tries those again")
    if report.ok:
        console.say(f"read some: dualview preferences {store} --show USER")


def _print_plan(plan: PreferencePlan) -> None:
    from dualview import console

    console.table(
        f"{plan.variant} preferences of {plan.users:,} users, recipe {plan.recipe[:8]}, release {plan.release}",
        ["states", "there", "failed before", "to be made", "longest chain", "tokens at most", "cost at most"],
        [[plan.states, plan.current, plan.failed, plan.ask, plan.steps, plan.tokens, plan.cost]],
    )
    console.say("nothing was written" if plan.ask else "everything is there: nobody would be asked")


def _show(user: str, states: list[ShownState]) -> None:
    from rich.markup import escape
    from rich.padding import Padding

    from dualview import console

    def line(text: str, indent: int) -> None:
        console.out.print(Padding(escape(text), (0, 0, 0, indent)), highlight=False)

    for (recipe, current), group in groupby(states, key=lambda state: (state.recipe, state.current)):
        found = list(group)
        by = " ".join(part for part in (found[0].backend, found[0].model) if part)
        old = "" if current else "; of another split, release or text than this release's whole log"
        title = f"{user}: {found[0].variant} by {by}, recipe {recipe}{old}"
        console.out.print(f"[bold]{escape(title)}[/bold]", highlight=False)
        for state in found:
            after = "" if state.reads is None else f", after step {state.reads}"
            events = f"events {state.events[0].position + 1} to {state.end}"
            console.out.print(f"\n[bold cyan]step {state.step}{after}: {events}[/bold cyan]", highlight=False)
            for event in state.events:
                line(f"· {event.title or event.item_id}", 2)
            line(state.text if state.text is not None else f"none: {state.error}", 4)
        console.out.print()
