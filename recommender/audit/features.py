"""What the stored features of a run saw: one row for each, and for each that it is computed from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from featurestore import release as releases
from featurestore.errors import DualviewError
from featurestore.recipe import SHORT
from featurestore.schema import DESCRIBE, IMPORTED
from recommender import data, leaks
from recommender.audit.base import HOLDS, UNKNOWN, VIOLATED, Check, Material, Verdict
from recommender.leaks import Made
from recommender.runs import open_run


def checks(given: Material) -> Iterator[Check]:
    for made in leaks.sources(given.release, given.config.features):
        yield feature(given, made)


def feature(given: Material, made: Made) -> Check:
    evidence: dict[str, Any] = {"recipe": made.recipe_id, "read_by": made.read_by}
    name = f"feature {made.name}"
    if made.recipe is None:
        because = "no lock of these releases holds its recipe any more, so what it saw is not known"
        return Check(name, UNKNOWN, because, evidence)
    recipe = made.recipe
    evidence |= {"kind": recipe.kind, "encoder": recipe.encoder, "inputs": list(recipe.inputs)}
    if recipe.artifacts:
        evidence["artifacts"] = recipe.artifacts
    if recipe.model is not None:
        evidence["model"] = recipe.model.model_dump(mode="json", exclude_none=True)
    if made.fitted:
        evidence["fitted"] = made.fitted
    verdict, because, more = _judged(given, made)
    return Check(name, verdict, because, evidence | more)


def _judged(given: Material, made: Made) -> tuple[Verdict, str, dict[str, Any]]:
    recipe, fitted = made.recipe, made.fitted
    assert recipe is not None
    if made.events is not None:
        return _events(given, made.events)
    if fitted:
        items = fitted.get("items")
        of = f"{items:,} items" if isinstance(items, int) else "the items"
        return (
            HOLDS,
            f"by the release's lock fitted on the content of {of}, those without training events too, and on no event",
            {},
        )
    if recipe.kind == IMPORTED:
        said = {key: recipe.options[key] for key in ("sha256", "ids_sha256") if key in recipe.options}
        return UNKNOWN, "computed elsewhere: what made these values saw is not known here", {"file": said}
    if recipe.artifacts and recipe.kind != DESCRIBE:
        return UNKNOWN, "its weights were fitted, and no lock says on what", {}
    return HOLDS, "nothing is fitted here: computed item by item from the item itself", {}


def _events(given: Material, seen: dict[str, Any]) -> tuple[Verdict, str, dict[str, Any]]:
    """A transform that saw events: the same split, its claim made again where its run is there."""
    more: dict[str, Any] = {"split_of_the_run": given.split.hash}
    if seen.get("split_hash") != given.split.hash:
        because = (
            f"fitted on training events of split {leaks.spelled(seen)}, not of {given.split.hash[:SHORT]}"
        )
        return VIOLATED, because, more
    with suppress(DualviewError):
        root = given.release.root
        its = open_run(root, str(seen.get("run")))
        again = data.split_of(releases.open(root, str(seen.get("release"))), its.config).hash
        more["recomputed_split_of_its_run"] = again
        if again != seen["split_hash"] or its.split_hash != seen["split_hash"]:
            return (
                VIOLATED,
                f"the run {its.name} that fitted it learnt under another split than is said",
                more,
            )
    return HOLDS, "fitted on the training part of the run's own split", more
