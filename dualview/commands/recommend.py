"""`dualview recommend`: the next items for a user."""

from __future__ import annotations

from typing import Annotated

import typer

from dualview.commands.common import AsJson, K, ReleaseName, ServedPath, Where


def run(
    store: ServedPath,
    user: Annotated[
        str | None, typer.Argument(metavar="USER", help="Id of a user in the log.", show_default=False)
    ] = None,
    history: Annotated[
        list[str] | None,
        typer.Option(
            "--item",
            metavar="ITEM_ID",
            help="A history instead of a user, oldest first; repeatable.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", help="A run, or latest.", show_default="the promoted one, else latest"),
    ] = None,
    where: Where = None,
    k: K = 10,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Also items the user already took.")
    ] = False,
    release: ReleaseName = "latest",
    json: AsJson = False,
) -> None:
    """Recommend the next items for a user, or for a history given here."""
    from dualview import console
    from dualview.commands.common import open_served
    from featurestore.errors import BadInput
    from recommender.retrieve import Retriever

    if (user is None) == (not history):
        raise BadInput(
            "give a USER or a history", remedy=f"dualview recommend {store} USER, or --item ID --item ID"
        )
    retriever = Retriever.open(open_served(store), run=run, release=release)
    found = retriever.recommend(user, history=history, k=k, where=where, exclude_seen=not include_seen)
    if json:
        console.as_json(found.to_pylist())
    else:
        console.ranking(found)
