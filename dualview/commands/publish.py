"""`dualview publish`: make a release of what is current."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dualview.commands.common import AsJson, DryRun, StorePath, Wait

if TYPE_CHECKING:
    from featurestore.preview import PublishPlan


def run(
    store: StorePath,
    tag: Annotated[
        str | None, typer.Option("--tag", help="A name of your own for it.", show_default=False)
    ] = None,
    allow_stale: Annotated[
        bool, typer.Option("--allow-stale", help="Publish although some features are not current.")
    ] = False,
    recall: Annotated[
        float,
        typer.Option(
            "--recall", metavar="SHARE", help="Of the true 10 nearest, what approximate indexes must find."
        ),
    ] = 0.99,
    rebuild: Annotated[
        str | None,
        typer.Option(
            "--rebuild",
            metavar="RELEASE",
            help="Publish nothing; make lost or damaged files of this release again.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    json: AsJson = False,
) -> None:
    """Make a release: every table pinned, with the vectors and indexes that are served."""
    from dualview import console, interrupted
    from dualview.commands.common import open_store
    from featurestore.errors import BadInput

    opened = open_store(store)
    if rebuild is not None:
        if tag is not None or allow_stale:
            raise BadInput(
                "--rebuild changes neither content nor tag", remedy="leave --tag and --allow-stale out"
            )
        report = opened.rebuild(rebuild, dry_run=dry_run, wait=wait)
        if json:
            console.as_json(report.to_dict())
        elif report.files:
            done = "to be made again" if dry_run else "made again"
            console.say(f"release {report.release}: {done}: {', '.join(report.files)}")
        else:
            console.say(f"release {report.release} is whole: every byte is as it was written")
        return
    if dry_run:
        plan = opened.plan_publish(tag=tag, allow_stale=allow_stale, recall=recall)
        if json:
            console.as_json(plan.to_dict())
        else:
            _print(plan)
        return
    with interrupted.publish(opened):
        release = opened.publish(tag=tag, allow_stale=allow_stale, recall=recall, wait=wait)
    if json:
        console.as_json(release.manifest)
        return
    console.table(
        f"Release {release.name}: {len(release.ids):,} items",
        ["feature", "recipe", "ok", "no input", "error", "not current"],
        release.coverage_rows(),
    )
    for feature in release.searchable:
        index = release.facts(feature)["index"]
        if not index["exact"]:
            console.say(
                f"{feature}: {index['rows']:,} vectors are searched approximately, recall@{index['k']} "
                f"{index['recall']:.4f} ({index['target']} was asked for)"
            )
    console.say(f"next: dualview similar {store} ITEM_ID")


def _print(plan: PublishPlan) -> None:
    from dualview import console

    if plan.unchanged:
        console.say(f"nothing changed since release {plan.release}: it would be given back")
        return
    if plan.damaged:
        console.say(f"nothing changed since release {plan.release}: its damaged files would be made again")
        return
    console.table(
        f"Release {plan.release} would hold {plan.items:,} items ({plan.added:,} new, {plan.removed:,} gone since the "
        f"latest) and {plan.events:,} events",
        ["feature", "recipe", "in the latest", "values", "not current", "to derive"],
        [
            [f.feature, f.recipe, f.before, f.values, f.not_current, console.megabytes(f.bytes)]
            for f in plan.features
        ],
    )
    console.say(f"about {console.megabytes(plan.bytes)} would be derived in all; nothing was written")
