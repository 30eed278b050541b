"""`dualview publish`: make a release of what is current."""

from __future__ import annotations

from typing import Annotated

import typer

from dualview.commands.common import AsJson, StorePath, Wait


def run(
    store: StorePath,
    tag: Annotated[
        str | None, typer.Option("--tag", help="A name of your own for it.", show_default=False)
    ] = None,
    allow_stale: Annotated[
        bool, typer.Option("--allow-stale", help="Publish although some features are not current.")
    ] = False,
    wait: Wait = None,
    json: AsJson = False,
) -> None:
    """Make a release: every table pinned, with the vectors and indexes that are served."""
    from dualview import console
    from dualview.commands.common import open_store

    opened = open_store(store)
    release = opened.publish(tag=tag, allow_stale=allow_stale, wait=wait)
    if json:
        console.as_json(release.manifest)
        return
    console.table(
        f"Release {release.name}: {len(release.ids):,} items",
        ["feature", "recipe", "ok", "no input", "error", "not current"],
        release.coverage_rows(),
    )
    console.say(f"next: dualview similar {store} ITEM_ID")
