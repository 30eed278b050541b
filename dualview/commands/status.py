"""`dualview status`: what is current, stale, failed or missing."""

from __future__ import annotations

import typer

from dualview.commands.common import AsJson, StorePath


def run(store: StorePath, json: AsJson = False) -> None:
    """Show per feature what is current. Exit code 2 when something is not."""
    from dualview import console
    from featurestore.store import Store

    opened = Store.open(store)
    status = opened.status()
    if json:
        console.as_json(status.to_dict())
    else:
        console.say(
            f"{opened.root}: {status.items:,} items ({status.items_without_image:,} without image), "
            f"{status.events:,} events, {status.quarantined:,} rows set aside, release {status.release or 'none'}"
        )
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
    if not status.current:
        if not json:
            console.say(f"not everything is current; next: dualview materialize {store}")
        raise typer.Exit(2)
