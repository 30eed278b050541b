"""`dualview doctor`: what may be wrong, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualview.commands.common import AsJson


def run(
    store: Annotated[
        Path | None,
        typer.Argument(metavar="[STORE]", help="Folder of a store to look at too.", show_default=False),
    ] = None,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Read every file, key and picture instead of sizes and a sample."),
    ] = False,
    json: AsJson = False,
) -> None:
    """Look at this machine, a store and its models. Exit code 2 when something needs mending."""
    from dualview import console
    from dualview.doctor import examine

    found = examine(store, deep=deep)
    problems = sum(finding.level == "problem" for finding in found)
    if json:
        console.as_json({"findings": [finding.to_dict() for finding in found], "problems": problems})
    else:
        console.findings([(f.level, f.about, f.says, f.remedy) for f in found])
    if problems:
        raise typer.Exit(2)
