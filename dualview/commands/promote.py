"""`dualview promote`: choose the run that `recommend` uses."""

from __future__ import annotations

from typing import Annotated

import typer

from dualview.commands.common import StorePath


def run(
    store: StorePath,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of a run, or latest.", show_default=False)],
) -> None:
    """Make a run the one that `recommend` uses."""
    from dualview import console
    from dualview.commands.common import open_store
    from dualview.training import promote

    chosen = promote(open_store(store), run)
    console.say(f"{chosen.name} now answers `dualview recommend {store} USER`")
