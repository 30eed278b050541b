"""`dualview releases`: list what was published."""

from __future__ import annotations

from dualview.commands.common import AsJson, StorePath


def run(store: StorePath, json: AsJson = False) -> None:
    """List the releases of a store, newest first."""
    from dualview import console
    from dualview.commands.common import open_store

    found = open_store(store).releases()
    rows = [
        {
            "release": r.name,
            "tag": r.tag,
            "created": r.created,
            "items": r.n_items,
            "events": r.n_events,
            "features": r.features,
        }
        for r in found
    ]
    if json:
        console.as_json(rows)
    else:
        console.table(
            None,
            ["release", "tag", "created", "items", "events", "features"],
            [list(r.values()) for r in rows],
        )
        if not rows:
            console.say(f"nothing published yet; next: dualview publish {store}")
