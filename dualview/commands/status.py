"""`dualview status`: what is current, stale, failed or missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dualview.commands.common import AsJson, StorePath

if TYPE_CHECKING:
    from featurestore.store import Store


def run(
    store: StorePath,
    drift: Annotated[
        bool, typer.Option("--drift", help="Also how far the catalogue is from what each fit saw.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Show per feature what is current. Exit code 2 when something is not."""
    from dualview import console
    from dualview.commands.common import open_store
    from featurestore.status import next_step

    opened = open_store(store)
    status = opened.status()
    moved = _drift(opened) if drift else {}
    if json:
        console.as_json(status.to_dict() | ({"drift": moved} if drift else {}))
    else:
        console.say(
            f"{opened.root}: {status.items:,} items ({status.items_without_image:,} without image), "
            f"{status.events:,} events, {status.quarantined:,} rows set aside, release {status.release or 'none'}"
        )
        if status.preferences:
            console.say(f"{status.preferences:,} states of users' preferences")
        if status.pending:
            console.warn(status.pending)
        sizes = [f"{part} {console.megabytes(size)}" for part, size in status.disk.items() if size]
        console.say(f"on disk: {', '.join(sizes) or 'nothing yet'}; releases: {status.releases:,}")
        console.table(
            None,
            ["feature", "recipe", "current", "no input", "missing", "stale", "failed", "blocked", "disk"],
            [
                [
                    f.name,
                    f.recipe,
                    f.current,
                    f.no_input,
                    f.missing,
                    f.stale,
                    f.failed,
                    f.blocked,
                    console.megabytes(f.disk),
                ]
                for f in status.features
            ],
        )
        for feature in status.features:
            for note in feature.notes:
                console.warn(f"{feature.name}: {note}")
        if moved:
            console.table(
                "Since the fit",
                ["feature", "items then", "items now", "added or edited", "unknown words in those"],
                [[name, *facts.values()] for name, facts in moved.items()],
            )
    if not status.current:
        if not json:
            late = [f for f in status.features if f.missing or f.stale or f.blocked]
            console.say(f"not everything is current; next: {next_step(opened, late)}")
        raise typer.Exit(2)


def _drift(store: Store) -> dict[str, dict[str, Any]]:
    from ingest.fitting import drift

    found = {feature.name: drift(store, feature.name) for feature in store.definitions}
    return {name: facts.to_dict() for name, facts in found.items() if facts is not None}
