"""`dualview rollback`: make a store what it was at a release."""

from __future__ import annotations

from typing import Annotated

import typer

from dualview.commands.common import AsJson, DryRun, StorePath, Wait


def run(
    store: StorePath,
    release: Annotated[str, typer.Argument(help="A release or its tag.", show_default=False)],
    discard: Annotated[
        bool, typer.Option("--discard", help="Give up what was written since the latest release.")
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    json: AsJson = False,
) -> None:
    """Make tables, features.toml and recipes what they were at a release, and publish that.

    Every release stays as it is, so the store can be rolled forward again.
    """
    from dualview import console
    from featurestore.store import Store

    report = Store.open(store).rollback(release, discard=discard, dry_run=dry_run, wait=wait)
    if json:
        console.as_json(report.to_dict())
        return
    would = "would get" if dry_run else "got"
    told = ", ".join(report.tables) or "no table"
    console.say(f"{told} {would} the content of release {report.release} as a new version")
    if report.kept_as:
        kept = "would be kept" if dry_run else "is kept"
        console.say(f"today's features.toml {kept} as {report.kept_as}")
    if report.prompts:
        console.warn(
            f"{', '.join(report.prompts)} is not what it was at release {report.release}: put it back, or the next "
            "materialize has everything written anew by today's"
        )
    if report.unpublished and dry_run:
        console.warn(
            f"no release holds the changes in {', '.join(report.unpublished)}: publish, or --discard"
        )
    if report.published:
        console.say(f"release {report.published} serves it")
