"""A release made again over other versions of its tables: ones without what was forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featurestore import publish
from featurestore.errors import Stale
from featurestore.indexes import Wanted
from featurestore.publish import Ready
from featurestore.recipe import Recipe
from featurestore.release import Release
from featurestore.status import FeatureStatus

if TYPE_CHECKING:
    from featurestore.store import Store


def rederive(
    store: Store, manifest: dict[str, Any], versions: dict[str, int], latest: Release | None
) -> dict[str, Any]:
    """The manifest of a release over other versions of its tables.

    Its derived files are made, or shared with what is there; the manifest is not written. latest: a release made just
    before, whose log is taken over where it is the same. An approximate index that no longer reaches its recall is
    made exact: that is no reason to remember anybody.
    """
    told = {name: manifest["features"][name] for name in manifest["order"]}
    recipes = {
        name: Recipe.model_validate(facts["recipe"]) if facts["recipe"] else None
        for name, facts in told.items()
    }
    status = {name: _status(name, facts["coverage"]) for name, facts in told.items()}

    def made(wanted: dict[str, Wanted]) -> dict[str, Any]:
        inputs = publish.inputs_of(store, versions, recipes, wanted)
        ready = Ready(manifest["name"], versions, recipes, wanted, status, inputs, latest, unchanged=False)
        return publish.derive(store, ready) | {"inputs": inputs}

    try:
        parts = made({name: _wanted(facts.get("index", {})) for name, facts in told.items()})
    except Stale:
        parts = made({name: Wanted("exact") for name in told})
    for facts in parts["features"].values():  # an item that is gone was perhaps one that was missing
        c = facts["coverage"]
        c["missing"] = min(c["missing"], parts["items"] - c["ok"] - c["no_input"] - c["error"])
    return manifest | parts


def _status(name: str, coverage: dict[str, int]) -> FeatureStatus:
    """As much of a feature's status as publishing reads: what was not current then."""
    return FeatureStatus(
        name,
        recipe=None,
        current=0,
        no_input=0,
        failed=0,
        disk=0,
        missing=coverage["missing"],
        stale=coverage["stale"],
        blocked=coverage["blocked"],
    )


def _wanted(index: dict[str, Any]) -> Wanted:
    return Wanted("ivf", index["target"]) if index.get("kind") == "ivf" else Wanted("exact")
