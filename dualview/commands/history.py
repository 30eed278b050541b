"""`dualview history`: what was written to a store, when and by whom."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from dualview.commands.common import AsJson, StorePath

SHOWN = 20  # entries, where no number is asked for
FIGURES = ("NDCG@10", "HR@10")  # of an evaluation's many
HASH = re.compile(r"[0-9a-f]{16,}")
LONG = ("tables", "notes")  # facts that fill a screen; --json has them


def run(
    store: StorePath,
    verb: Annotated[str | None, typer.Option("--verb", help="Only this verb.", show_default="all")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="A date such as 2026-11-21, or 90m, 36h, 7d ago.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="The newest so many.", show_default=f"{SHOWN}, all with --json"),
    ] = None,
    json: AsJson = False,
) -> None:
    """List what was written: when, by which verb and whom, what came of it, and how long it took."""
    from dualview import console
    from featurestore.store import Store

    entries = Store.open(store).history(verb=verb, since=since, limit=limit)
    if json:
        console.as_json(entries)
        return
    shown = entries if limit else entries[-SHOWN:]
    console.table(
        None,
        ["when (UTC)", "verb", "what came of it", "time", "who"],
        [
            [
                str(entry["at"])[:19].replace("T", " "),
                entry["verb"],
                ", ".join(_told(entry)),
                console.duration(entry.get("seconds")),
                entry.get("by", {}).get("who"),
            ]
            for entry in shown
        ],
    )
    if len(shown) < len(entries):
        console.say(f"the newest {len(shown):,} of {len(entries):,}; --limit shows more")


def _told(entry: dict[str, Any]) -> list[str]:
    """The facts of an entry that say something: no zeros, nothing that other columns show."""
    facts = {k: v for k, v in entry.items() if k not in ("at", "verb", "by", "seconds", *LONG)}
    metrics = facts.pop("metrics", {})
    facts |= {name: metrics[name] for name in FIGURES if name in metrics}
    told = []
    for name, value in facts.items():
        if isinstance(value, dict):
            told += [f"{name} {key} {_short(part)}" for key, part in value.items() if part]
        elif value not in (None, False, 0, [], ""):
            told.append(name if value is True else f"{name} {_short(value)}")
    return told


def _short(value: Any) -> str:
    if isinstance(value, list):
        return " + ".join(str(part).rsplit("/", 1)[-1] for part in value)
    if isinstance(value, dict):
        return " · ".join(f"{_short(part)} {key}" for key, part in value.items() if part)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and HASH.fullmatch(value):
        return value[:8]
    return f"{value:,}" if isinstance(value, int) else str(value)
