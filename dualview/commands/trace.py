"""`dualview trace`: where an item, a feature, a release or a run comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dualview.commands.common import AsJson, StorePath

if TYPE_CHECKING:
    from rich.tree import Tree

    from featurestore.lineage import Node


def run(
    store: StorePath,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="item:ID, feature:NAME, release:NAME or run:NAME.", show_default=False
        ),
    ],
    json: AsJson = False,
) -> None:
    """Show where something comes from and what was made of it, from source file to metric, as a tree."""
    from dualview import console
    from dualview.lineage import trace
    from featurestore.store import Store

    found = trace(Store.open(store), target)
    if json:
        console.as_json(found.to_dict())
        return
    from rich.tree import Tree

    tree = Tree(_label(found))
    _grow(tree, found)
    console.out.print(tree)


def _grow(tree: Tree, node: Node) -> None:
    for below in node.below:
        _grow(tree.add(_label(below)), below)


def _label(node: Node) -> str:
    from rich.markup import escape

    lines = [f"[bold]{escape(node.kind)}[/bold] {escape(node.name)}"]
    facts = {key: _told(value) for key, value in node.facts.items()}
    lines += [f"[dim]{escape(key)}:[/dim] {escape(told)}" for key, told in facts.items() if told]
    return "\n".join(lines)


def _told(value: Any) -> str:
    """A fact on one line; empty where it says nothing."""
    if value is None or value in ({}, []):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {told}" for key, part in value.items() if (told := _told(part)))
    if isinstance(value, list):
        return ", ".join(_told(part) for part in value)
    return str(value)
