"""`trace`: where an item, a feature, a release or a run comes from, runs and their figures included."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore import files, lineage
from featurestore.errors import BadInput, did_you_mean
from featurestore.lineage import Node

if TYPE_CHECKING:
    from featurestore.store import Store
    from recommender.runs import Run

FIGURES = ("NDCG@10", "HR@10", "MRR@10", "coverage@10")  # of what `evaluate` found


def trace(store: Store, target: str) -> Node:
    """What is known of "item:ID", "feature:NAME", "release:NAME" or "run:NAME", as a tree.

    Raises BadInput for another kind, NotFound with the nearest name.
    """
    kind, colon, name = target.partition(":")
    if not colon or not name or kind not in _TRACES:
        raise BadInput(
            f"'{target}' names nothing that is traced",
            remedy=did_you_mean(kind, _TRACES)
            if colon
            else "item:ID, feature:NAME, release:NAME or run:NAME",
        )
    return _TRACES[kind](store, name)


def item(store: Store, item_id: str) -> Node:
    """See `featurestore.lineage.item`; below each release the runs that learnt from it, and what they know of the
    item.
    """
    found = lineage.item(store, item_id)

    def known(run: Run) -> dict[str, Any]:
        place = np.flatnonzero(run.item_ids == item_id)
        if not len(place):
            return {"knows the item": False}
        return {"knows the item": True, "training events of it": int(run.counts[place[0]])}

    def with_runs(node: Node) -> Node:
        if node.kind != "release":
            return node
        runs = _runs_of(store, node.name)
        return replace(node, below=[Node("run", run.name, known(run) | _figures(store, run)) for run in runs])

    return replace(found, below=[with_runs(node) for node in found.below])


def feature(store: Store, name: str) -> Node:
    """See `featurestore.lineage.feature`; below each release the runs that learnt from the feature there."""
    found = lineage.feature(store, name)

    def with_runs(node: Node) -> Node:
        if node.kind != "release":
            return node
        runs = [run for run in _runs_of(store, node.name) if name in run.options.features]
        return replace(node, below=[Node("run", run.name, _figures(store, run)) for run in runs])

    return replace(found, below=[with_runs(node) for node in found.below])


def release(store: Store, name: str) -> Node:
    """See `featurestore.lineage.release`; with the runs that learnt from it."""
    found = lineage.release(store, name)
    runs = [Node("run", run.name, _figures(store, run)) for run in _runs_of(store, found.name)]
    return replace(found, below=[*found.below, *runs])


def run(store: Store, name: str) -> Node:
    """A run: its options, split, release and features with recipes and table versions, figures, machine, and the
    releases that it has been served on. Raises NotFound, with the nearest name.
    """
    from recommender.runs import open_run

    found = open_run(store.root, name, kind=None)
    split = found.about["split"]
    facts = {"created": found.created, "seed": found.options.seed} | _figures(store, found)
    below = [
        Node("options", found.options.slug, _changed(found)),
        Node("split", split["name"], {key: value for key, value in split.items() if key != "name"}),
    ]
    if found.release is not None:
        learnt = lineage.release(store, found.release)
        used = [node for node in learnt.below if node.name in found.options.features]
        below.append(replace(learnt, below=used))
    below += [Node("served on", each, {}) for each in _served_on(store, found)]
    environment = found.folder / "environment.json"
    if environment.exists():
        below.append(Node("made on", found.name, files.read_json(environment)))
    return Node("run", found.name, facts, below)


_TRACES = {"item": item, "feature": feature, "release": release, "run": run}


def _runs_of(store: Store, release: str) -> list[Run]:
    from recommender.runs import list_runs

    return [run for run in list_runs(store.root) if run.release == release]


def _figures(store: Store, run: Run) -> dict[str, Any]:
    """How a run went: epochs, what it validated at, and what `evaluate` found, where it was asked."""
    from recommender.runs import promoted

    found = run.metrics()
    facts: dict[str, Any] = {
        "kind": run.kind,
        "items as": run.options.items,
        "best epoch": found.get("best_epoch"),
        "finished": found.get("finished", False),
        "validation": found.get("valid", {}),
    }
    if "test" in found:
        metrics = found["test"]["metrics"]
        facts["test"] = {name: metrics[name] for name in FIGURES if name in metrics}
    chosen = promoted(store.root)
    return facts | {"promoted": chosen is not None and chosen.name == run.name}


def _changed(run: Run) -> dict[str, Any]:
    """The options that differ from the defaults."""
    fields = type(run.options).model_fields
    changed = {name for name, value in run.options if value != fields[name].default}
    return {k: v for k, v in run.options.model_dump(mode="json").items() if k in changed}


def _served_on(store: Store, run: Run) -> list[str]:
    if not (run.folder / "served").is_dir():
        return []
    from recommender.served import key

    return [made.name for made in store.releases() if (run.folder / "served" / key(run, made)).is_dir()]
