"""`dualview similar`: the nearest items to an item, a text or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualview.commands.common import AsJson, Device, K, ReleaseName, StorePath, Where


def run(
    store: StorePath,
    item: Annotated[
        str | None, typer.Argument(metavar="ITEM_ID", help="Like this item.", show_default=False)
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="Like these words.", show_default=False)] = None,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="FILE", help="Like this picture.", show_default=False)
    ] = None,
    feature: Annotated[
        str | None,
        typer.Option(
            "--feature", "-f", help="Feature to compare by.", show_default="one that fits the query"
        ),
    ] = None,
    where: Where = None,
    k: K = 10,
    release: ReleaseName = "latest",
    device: Device = "auto",
    json: AsJson = False,
) -> None:
    """Find the items nearest to an item, a text or a picture, within a filter."""
    from dualview import console
    from dualview.commands.common import open_store

    found = open_store(store).similar(
        item, text=text, image=image, feature=feature, where=where, k=k, release=release, device=device
    )
    if json:
        console.as_json(found.to_pylist())
    else:
        console.ranking(found)
