"""`dualview diff`: what is other in one release than in another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dualview.commands.common import AsJson, StorePath

if TYPE_CHECKING:
    from featurestore.diff import ReleaseDiff


def run(
    store: StorePath,
    before: Annotated[str, typer.Argument(help="A release, its tag, latest or today.", show_default=False)],
    after: Annotated[
        str, typer.Argument(help="The same; 'today' are the tables as they are now.")
    ] = "latest",
    json: AsJson = False,
) -> None:
    """Say what changed between two releases: items, events, features and their recipes."""
    from dualview import console
    from featurestore.store import Store

    found = Store.open(store).diff(before, after)
    if json:
        console.as_json(found.to_dict())
        return
    items, events = found.items, found.events
    console.table(
        f"{found.before} -> {found.after}",
        ["", "before", "after", "added", "removed", "changed"],
        [
            ["items", items.before, items.after, items.added, items.removed, items.changed],
            ["events", events.before, events.after, events.added, events.removed, events.changed],
        ],
        note=_examples(found),
    )
    console.table(
        None,
        ["feature", "recipe", "values added", "removed", "recomputed", "what differs"],
        [
            [
                f.feature,
                f.recipe_after if f.change == "same recipe" else f"{f.recipe_before} -> {f.recipe_after}",
                f.values_added,
                f.values_removed,
                f.recomputed,
                _recipe(f.change, f.recipe_changes),
            ]
            for f in found.features
        ],
    )
    if found.same:
        console.say("nothing differs")


def _recipe(change: str, parts: dict[str, list[Any]]) -> str:
    if change != "new recipe":
        return "" if change == "same recipe" else change
    return "; ".join(f"{part}: {_brief(old)} -> {_brief(new)}" for part, (old, new) in parts.items())


def _brief(value: object) -> str:
    from dualview import console

    if value is None:
        return "none"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return str(console.brief(text, 40))


def _examples(found: ReleaseDiff) -> str | None:
    items = found.items
    told = [
        f"{name} by column: " + ", ".join(f"{column} {count:,}" for column, count in columns.items())
        for name, columns in (("changed", items.columns),)
        if columns
    ]
    for name, count, ids in (
        ("added", items.added, items.added_examples),
        ("removed", items.removed, items.removed_examples),
        ("changed", items.changed, [f"{c.item_id} ({', '.join(c.columns)})" for c in items.changed_examples]),
    ):
        if count:
            more = f" and {count - len(ids):,} more" if count > len(ids) else ""
            told.append(f"{name}: {', '.join(ids)}{more}")
    return "\n".join(told) or None
