"""`dualview similar`: the items most like items, a text or a picture, by vectors, by words, or by both."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dualview.commands.common import AsJson, Device, K, ReleaseName, StorePath, Where


def run(
    store: StorePath,
    items: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ITEM_ID]...", help="Like this item, or like these.", show_default=False),
    ] = None,
    unlike: Annotated[
        list[str] | None,
        typer.Option(
            "--unlike", metavar="ITEM_ID", help="Not like this item. Repeatable.", show_default=False
        ),
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="Like these words.", show_default=False)] = None,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="FILE", help="Like this picture.", show_default=False)
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            metavar="vector|keyword|hybrid",
            help="Compare vectors; or look for the words of --text in titles and texts (BM25); or both, fused.",
        ),
    ] = "vector",
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--feature",
            "-f",
            metavar="NAME[:WEIGHT]",
            help="Feature to compare by. Repeatable: -f text:0.3 -f image:0.7",
            show_default="one that fits the query",
        ),
    ] = None,
    where: Where = None,
    k: K = 10,
    diversity: Annotated[
        float,
        typer.Option(
            "--diversity", metavar="0..1", help="0: the most relevant; higher: less like each other."
        ),
    ] = 0.0,
    beta: Annotated[
        float | None,
        typer.Option("--beta", help="How far to go away from --unlike.", show_default="0.25"),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say how each score came about, and by which route.")
    ] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="Look at every vector, where an index has a shortlist.")
    ] = False,
    release: ReleaseName = "latest",
    device: Device = "auto",
    json: AsJson = False,
) -> None:
    """Find the items most like an item, several items, a text or a picture, within a filter."""
    from dualview import console
    from dualview.commands.common import open_store
    from featurestore.query import BETA
    from featurestore.search import facts

    found = open_store(store).similar(
        items,
        unlike=unlike or (),
        text=text,
        image=image,
        features=_weights(features),
        mode=mode,  # type: ignore[arg-type]  # checked by the query, which knows the nearest name
        where=where,
        k=k,
        diversity=diversity,
        beta=BETA if beta is None else beta,
        explain=explain,
        exact=exact,
        release=release,
        device=device,
    )
    told = facts(found)
    for note in told.get("notes", ()):
        console.warn(note)
    rows = found.to_pylist()
    if json:
        console.as_json({"explain": told, "items": rows} if explain else rows)
        return
    console.ranking(found)
    if explain:
        for line in _explained(told):
            console.out.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)


def _weights(given: list[str] | None) -> dict[str, float] | None:
    """NAME[:WEIGHT] options as weights. Raises BadInput for one that is no number, and for a name given twice."""
    from featurestore.errors import BadInput

    if not given:
        return None
    weights: dict[str, float] = {}
    for option in given:
        name, colon, weight = option.partition(":")
        if name in weights:
            raise BadInput(f"feature '{name}' is given twice", remedy="give it once, with one weight")
        try:
            weights[name] = float(weight) if colon else 1.0
        except ValueError:
            raise BadInput(
                f"'{weight}' in '--feature {option}' is no number", remedy=f"--feature {name}:0.5"
            ) from None
    return weights


def _explained(told: dict[str, Any]) -> list[str]:
    """What holds for the whole answer, a line each."""
    passing = told["items_passing_filter"]
    within = "" if passing is None else f", {passing:,} of which pass the filter"
    lines = [f"release {told['release']}: {told['items']:,} items{within}"]
    for one in told.get("features", ()):
        made = one["model"]["id"] if one["model"] else one["encoder"]
        recall = one["index"].get("recall")
        lines.append(
            f"{one['feature']} x {one['weight']:g}: recipe {one['recipe'][:8]} ({made}), "
            f"asked with {', '.join(one['asked_with'])}; route {one['route']}"
            + (f", recall {recall:.4f}" if recall is not None else "")
            + (f"; cannot read {', '.join(one['could_not_read'])}" if one["could_not_read"] else "")
        )
    if words := told.get("words"):
        lines.append(
            f"words: BM25 over {', '.join(words['columns'])} of {words['items']:,} items"
            + (f"; no item has {', '.join(words['unknown'])}" if words["unknown"] else "")
        )
    if fusion := told.get("fusion"):
        lines.append(
            f"score = sum of 1 / ({fusion['k']} + rank) over the best {fusion['window']:,} of each ranking"
        )
    if diversity := told.get("diversity"):
        lines.append(f"diversity {diversity['diversity']:g} among the best {diversity['pool']:,}")
    if "beta" in told:
        lines.append(f"beta {told['beta']:g}: how far to go away from what it is unlike")
    return lines
