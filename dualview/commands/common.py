"""Arguments that several verbs share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dualview.store import Store
    from featurestore.carried import Carried

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store.", show_default=False)]
ServedPath = Annotated[
    Path,
    typer.Argument(
        metavar="STORE", help="Folder of the store, or of an exported release.", show_default=False
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, of a failure too, instead of tables.")
]
Wait = Annotated[
    float | None,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        help="Wait so long for another writer to end.",
        show_default="refuse at once",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and write nothing whatever.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
ReleaseName = Annotated[str, typer.Option("--release", help="Name of a release, or latest.")]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="FILTER",
        help="Only items that satisfy this, for instance \"price < 20 AND category = 'mug'\".",
        show_default=False,
    ),
]
K = Annotated[int, typer.Option("-k", min=1, help="How many.")]


def open_store(path: Path) -> Store:
    from dualview.store import Store

    return Store.open(path)


def open_served(path: Path) -> Store | Carried:
    """The store, or where there is a carried release instead, that: for verbs that need releases and runs alone."""
    if (path / "releases").is_dir() and not (path / "store.json").exists():
        from featurestore.carried import Carried

        return Carried.open(path)
    return open_store(path)
