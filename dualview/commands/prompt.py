"""`dualview prompt`: what is asked about items, one look before many are sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualview.commands.common import AsJson, Device, StorePath

if TYPE_CHECKING:
    from ingest.describe.look import Asking, Tried

app = typer.Typer(
    help="Look at what described features ask, try it on an item, compare what they say.",
    no_args_is_help=True,
)

Feature = Annotated[
    str, typer.Argument(metavar="FEATURE", help="A feature of kind describe.", show_default=False)
]
Item = Annotated[str, typer.Argument(metavar="ITEM", help="An item's id.", show_default=False)]


@app.command("list")
def list_(
    store: Annotated[
        Path | None, typer.Argument(metavar="[STORE]", help="Folder of a store.", show_default=False)
    ] = None,
    json: AsJson = False,
) -> None:
    """List the shipped prompts, and those that a store's features name."""
    from dualview import console
    from dualview.commands.common import open_store
    from ingest.describe import prompts

    rows = [prompts.facts(name, Path(), None) for name in prompts.shipped()]
    if store is not None:
        opened = open_store(store)
        named = [(str(f.options["prompt"]), f.name) for f in opened.definitions if "prompt" in f.options]
        rows += [prompts.facts(spec, opened.root, name) for spec, name in named]
    if json:
        console.as_json(rows)
        return
    console.table(
        None,
        ["prompt", "feature", "reads", "sha256", "what it is"],
        [[r["prompt"], r["feature"], r["reads"], r["sha256"][:8], r["about"]] for r in rows],
    )
    console.say("the text of a shipped prompt: dualview prompt text NAME")


@app.command("text")
def text(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped prompt.", show_default=False)],
    json: AsJson = False,
) -> None:
    """Print a shipped prompt's file, to start one of your own from."""
    from dualview import console
    from ingest.describe import prompts

    found = prompts.file_of(name).read_text(encoding="utf-8")
    if json:
        console.as_json({"name": name, "text": found})
    else:
        typer.echo(found, nl=False)


@app.command("show")
def show(store: StorePath, feature: Feature, item: Item, json: AsJson = False) -> None:
    """Print exactly what would be sent about an item: turns, texts, picture, options. Nothing is sent."""
    from dualview import console
    from dualview.commands.common import open_store

    asking = open_store(store).prompt(feature, item)
    if json:
        console.as_json(asking.to_dict())
    else:
        _print(asking)


@app.command("try")
def try_(
    store: StorePath, feature: Feature, item: Item, device: Device = "auto", json: AsJson = False
) -> None:
    """Send it, and print the answer with what the checks say of it. Nothing is stored; a price is paid."""
    from dualview import console
    from dualview.commands.common import open_store

    asking = open_store(store).prompt(feature, item)
    tried = asking.send(device)
    if json:
        console.as_json(asking.to_dict() | tried.to_dict())
    else:
        _print(asking)
        _print_answer(tried)
    if tried.error is not None:
        raise typer.Exit(2)


@app.command("compare")
def compare(
    store: StorePath,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.html", help="File to write.", show_default=False)
    ],
    items: Annotated[int, typer.Option("--items", min=1, help="How many items, drawn by --seed.")] = 30,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw.")] = 0,
    feature: Annotated[
        list[str] | None,
        typer.Option(
            "--feature", "-f", help="Only these features; repeatable.", show_default="all described"
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Write a page that shows items side by side: picture, own text, and what each described feature says of it."""
    from dualview import console
    from dualview.commands.common import open_store
    from dualview.report.descriptions import write

    made = write(open_store(store), out, items=items, seed=seed, features=feature)
    if json:
        console.as_json(made)
    else:
        console.say(f"{made['items']:,} items, {len(made['features'])} features: {made['file']}")


def _print(asking: Asking) -> None:
    from rich.markup import escape

    from dualview import console

    model = f" · {asking.model}" if asking.model else ""
    console.out.print(
        f"[bold]{escape(asking.feature)}[/bold] of item [bold]{escape(asking.item_id)}[/bold]: "
        f"{escape(asking.encoder + model)} · prompt {escape(asking.prompt)} ({asking.prompt_sha256[:8]})"
    )
    for role, parts in asking.turns:
        console.out.print(f"\n[bold cyan]{role}[/bold cyan]")
        for part in parts:
            if part.text is None:
                shown = f"[picture, {part.width} x {part.height}, sha256 {str(part.sha256)[:12]}]"
                console.out.print(f"[magenta]{escape(shown)}[/magenta]")
            else:
                console.out.print(escape(part.text), highlight=False, soft_wrap=True)
    console.out.print()
    if asking.missing:
        console.warn(f"nothing is sent: the item has no {', no '.join(asking.missing)}")
    if asking.picture_error is not None:
        console.warn(f"nothing is sent: {asking.picture_error.message}")
    given = {key: value for key, value in asking.options.items() if key not in ("reads", "checks")}
    told = ", ".join(f"{key} {value}" for key, value in given.items() if value is not None)
    console.out.print(f"[dim]options: {escape(told)}[/dim]", highlight=False, soft_wrap=True)
    if asking.tokens is not None:
        console.out.print(f"[dim]tokens of the texts: {asking.tokens:,}[/dim]", highlight=False)


def _print_answer(tried: Tried) -> None:
    from rich.markup import escape

    from dualview import console

    if tried.answer is not None:
        console.out.print("\n[bold cyan]answer[/bold cyan]")
        console.out.print(escape(tried.answer.text), highlight=False, soft_wrap=True)
        counts = [f"finish {tried.answer.finish}", f"{tried.answer.seconds:.2f} s"]
        counts += (
            [f"{tried.answer.prompt_tokens} tokens asked"] if tried.answer.prompt_tokens is not None else []
        )
        counts += (
            [f"{tried.answer.completion_tokens} said"] if tried.answer.completion_tokens is not None else []
        )
        counts += [f"cost {tried.cost:.6f}"] if tried.cost is not None else []
        console.out.print(f"\n[dim]{', '.join(counts)}[/dim]", highlight=False)
    if tried.error is not None:
        again = "; asking again may help" if tried.error.transient else ""
        console.warn(f"{tried.error.code}: {tried.error.message}{again}")
    else:
        console.say("checks: nothing to object to; nothing was stored")
