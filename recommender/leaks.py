"""What stored features saw of the log before a model reads them, as the release's lock tells it.

Most features see items alone. A transform that was fitted on events (`fitted["events"]` in the lock) has seen the
training part of one split; trained on under another split it would carry events that this one holds out into the
model, so `check` refuses it. What a feature reads, it has seen as well: the walk goes all the way up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from featurestore import release as releases
from featurestore.errors import BadInput
from featurestore.recipe import SHORT, Recipe
from featurestore.release import Release
from recommender.config import Config
from recommender.splits import Split


@dataclass(frozen=True)
class Made:
    """How one feature was made. read_by: the feature that reads it, None for one that a model reads itself.

    recipe: None where no lock of these releases holds it any more. fitted: what the lock says of its fit, None where
    nothing was fitted.
    """

    name: str
    recipe_id: str
    read_by: str | None
    recipe: Recipe | None
    fitted: dict[str, Any] | None

    @property
    def events(self) -> dict[str, Any] | None:
        """Release, split, split_hash and run whose training events its transform saw; None where it saw none."""
        found: dict[str, Any] | None = (self.fitted or {}).get("events")
        return found


def sources(release: Release, features: Iterable[str]) -> Iterator[Made]:
    """The stored features of these names and all that they read, each once, nearest first. Raises NotFound."""
    waiting: list[tuple[str, str, str | None]] = [
        (name, str(release.facts(name)["recipe_id"]), None) for name in features
    ]
    told = set()
    while waiting:
        name, recipe_id, read_by = waiting.pop(0)
        if (name, recipe_id) in told:
            continue
        told.add((name, recipe_id))
        entry = _entry(release, name, recipe_id)
        recipe = Recipe.model_validate(entry["recipe"]) if entry else None
        yield Made(name, recipe_id, read_by, recipe, entry["fitted"] if entry else None)
        waiting += [(above, its, name) for above, its in recipe.upstream] if recipe else []


def _entry(release: Release, name: str, recipe_id: str) -> dict[str, Any] | None:
    """What a lock says of a feature under this recipe: the release's own, or where that moved on, another release's."""
    for manifest in (release.manifest, *(other.manifest for other in releases.every(release.root))):
        entry: dict[str, Any] | None = manifest.get("lock", {}).get(name)
        if entry is not None and entry["recipe_id"] == recipe_id:
            return entry
    return None


def check(source: Any, config: Config, split: Split) -> None:
    """Refuse a feature that saw events which `split` may hold out. source: what is trained on; only a Release has
    features of its own.

    Raises BadInput that names the feature, what it was fitted on, and what to do.
    """
    if not isinstance(source, Release):
        return
    for made in sources(source, config.features):
        seen = made.events
        if seen is not None and seen.get("split_hash") != split.hash:
            owner = (made.fitted or {}).get("same_fit", made.name)
            through = f", which '{made.read_by}' reads," if made.read_by else ""
            raise BadInput(
                f"feature '{made.name}'{through} was fitted on the training events of split {spelled(seen)}; "
                f"this training holds out others (split {split.name} {split.hash[:SHORT]}), so it would see some",
                remedy=f"fit it on this split: dualview fit {source.root} {owner} --refit, then materialize and "
                "publish; or train with the release, split and k_core that it was fitted with",
            )


def spelled(events: dict[str, Any]) -> str:
    """What a transform saw, in a few words."""
    return (
        f"{events.get('split', '?')} {str(events.get('split_hash', '?'))[:SHORT]} "
        f"(release {events.get('release', '?')}, run {events.get('run', '?')})"
    )
