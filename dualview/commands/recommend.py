"""`dualview recommend`: the next items for a user."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dualview.commands.common import AsJson, Device, K, ReleaseName, ServedPath, Where


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
    rerank: Annotated[
        str | None,
        typer.Option(
            "--rerank",
            metavar="RUN",
            help="A fine-tuned run that puts the best candidates into its own order; msr: the newest.",
            show_default=False,
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option("--depth", min=1, help="How many candidates --rerank looks at.", show_default="50"),
    ] = None,
    release: ReleaseName = "latest",
    device: Device = "auto",
    json: AsJson = False,
) -> None:
    """Recommend the next items for a user, or for a history given here.

    With --rerank a language model that was fine-tuned by `dualview msr train` is asked about each of the best
    candidates, and p_yes is its answer.
    """
    from dualview import console
    from dualview.commands.common import open_served
    from featurestore.errors import BadInput
    from recommender.retrieve import Retriever, facts

    if (user is None) == (not history):
        raise BadInput(
            "give a USER or a history", remedy=f"dualview recommend {store} USER, or --item ID --item ID"
        )
    if rerank is None and device != "auto":
        raise BadInput(
            "--device is that of the model that re-ranks", remedy="name one by --rerank, or leave it out"
        )
    retriever = Retriever.open(open_served(store), run=run, release=release)
    found = retriever.recommend(
        user,
        history=history,
        k=k,
        where=where,
        exclude_seen=not include_seen,
        rerank=rerank,
        depth=depth,
        device=device,
    )
    if json:
        rows = found.to_pylist()
        console.as_json(rows if rerank is None else {"items": rows, "rerank": facts(found)["rerank"]})
        return
    console.ranking(found)
    if rerank is not None:
        console.say(_told(facts(found)["rerank"]))


def _told(by: dict[str, Any]) -> str:
    """Who re-ranked, and by what."""
    preference = by["preference"]
    said = {"history": "the latest titles", "kept": "a kept preference", "made now": "a preference made now"}
    how = said[preference["kind"]]
    if "step" in preference:
        behind = preference["events_behind"]
        how += f", step {preference['step']}, " + (f"{behind:,} events behind" if behind else "up to date")
    return f"re-ranked by {by['run']}: {by['candidates']:,} candidates, judged by {how}"
