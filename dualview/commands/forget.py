"""`dualview forget`: erase a person or an item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dualview.commands.common import AsJson, DryRun, StorePath, Wait

if TYPE_CHECKING:
    from featurestore.forget import ForgetReport


def run(
    store: StorePath,
    user: Annotated[
        list[str] | None, typer.Option("--user", metavar="ID", help="A user; repeatable.", show_default=False)
    ] = None,
    item: Annotated[
        list[str] | None,
        typer.Option("--item", metavar="ID", help="An item; repeatable.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it: nothing brings it back.")] = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    json: AsJson = False,
) -> None:
    """Erase users and items from tables, from every release and its files, from runs' files and the journal.

    Weights of models stay as they were trained; those that saw them are listed. Exit code 2 when an id is not known.
    """
    from dualview import console
    from dualview.commands.common import open_store
    from featurestore.errors import BadInput

    if not yes and not dry_run:
        raise BadInput(
            "forgetting cannot be undone", remedy="see what it would do with --dry-run, then give --yes"
        )
    report = open_store(store).forget(users=user or [], items=item or [], dry_run=dry_run, wait=wait)
    if json:
        console.as_json(report.to_dict())
    else:
        _tell(report, store)
    if report.unknown:
        raise typer.Exit(2)


def _tell(report: ForgetReport, store: object) -> None:
    from dualview import console

    console.table(
        "Would be forgotten" if report.dry_run else "Forgotten",
        ["", "rows in today's tables"],
        [[name, count] for name, count in report.rows.items()],
        note=f"{report.users:,} users, {report.items:,} items; releases: {', '.join(report.releases) or 'none'}",
    )
    if report.unknown:
        console.warn(
            f"neither items nor events have {', '.join(report.unknown)}: a wrong id, or forgotten already"
        )
    if report.answers:
        console.warn(
            f"answers of describers that were in no table yet{' and would go' if report.dry_run else ', gone now'}: "
            f"{report.answers:,}. Whom they are about is not kept; materialize asks again"
        )
    if not (report.users or report.items):
        return
    if report.learnt:
        console.warn(
            f"trained on them: {', '.join(report.learnt)}. Weights cannot forget: train again, and delete these "
            f"folders of {store}/runs"
        )
    for feature in report.fitted:
        console.warn(
            f"'{feature}' was fitted with them: dualview fit {store} {feature} --refit, then materialize"
        )
    console.say(
        "ingesting a source that still has them brings them back: clean your sources, and copies of this store"
    )
