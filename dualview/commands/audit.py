"""`dualview audit`: show that nothing which shaped a run saw a held-out event, and that validation chose its epoch."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dualview.commands.common import AsJson, ServedPath


def run(
    store: ServedPath,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of a run, or latest.", show_default=False)],
    json: AsJson = False,
) -> None:
    """Make again what a run rests on, and see whether a held-out event is in it. Exit code 1 if one check is violated.

    Split, counts, batches, features, scalings, epoch and figures are recomputed; what a model must not see is changed.
    """
    from dualview import console
    from dualview.commands.common import open_served
    from recommender.audit import audit

    found = audit(open_served(store).root, run)
    if json:
        console.as_json(found.to_dict())
    else:
        console.table(
            f"Audit of {found.run} on release {found.release}",
            ["check", "verdict", "because", "evidence"],
            [[each.name, each.verdict, each.because, _told(each.evidence)] for each in found.checks],
        )
        counts = found.to_dict()["verdicts"]
        console.say("; ".join(f"{verdict}: {count}" for verdict, count in counts.items()))
    if found.violated:
        raise typer.Exit(1)


def _told(value: Any) -> str:
    """Evidence on one line; what is long is a hash, and begins here: --json has it whole."""
    if isinstance(value, dict):
        parts = ((key.replace("_", " "), _told(part)) for key, part in value.items() if part is not None)
        return ", ".join(f"{key} {told}" for key, told in parts if told)
    if isinstance(value, list):
        return ", ".join(_told(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and len(value) == 64:
        return value[:8]
    return str(value)
