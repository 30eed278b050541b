"""How new items are recommended: the users whose test item was hidden from training (`splits.hide_items`).

Two questions of the same users, never one figure. FULL: their item ranked against the whole catalogue, where it
competes with items that everybody took. AMONG: ranked against the hidden items only, which says how well new items are
told apart, whatever a model makes of new ones beside old ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featurestore.errors import BadInput
from recommender import baselines
from recommender.evaluate import Repeat, Result, ScoreFn, evaluate
from recommender.events import Int64
from recommender.splits import Split

if TYPE_CHECKING:
    from recommender.items import Stored

KS = (10,)
HALF_LIFE = 2.0  # events, of the neighbours by content that look at the latest first


@dataclass(frozen=True, eq=False)
class NewItems:
    """Results by scorer, over the users whose test item is hidden.

    full: against the whole catalogue. among: against the hidden items only.
    """

    hidden_items: int
    full: dict[str, Result]
    among: dict[str, Result]

    @property
    def users(self) -> int:
        return len(next(iter(self.full.values())).users)

    def to_dict(self) -> dict[str, Any]:
        return {
            "hidden_items": self.hidden_items,
            "users": self.users,
            "full": {name: result.to_dict() for name, result in self.full.items()},
            "among_hidden": {name: result.to_dict() for name, result in self.among.items()},
        }


def users_of(split: Split) -> Int64:
    """Users (int64, ascending) whose test target is a hidden item."""
    users = split.users("test")
    return users[split.is_hidden[split.targets("test")]]


def evaluate_new(
    scorers: Mapping[str, ScoreFn], split: Split, ks: Sequence[int] = KS, *, repeat: Repeat = "mask"
) -> NewItems:
    """Ask each of the scorers both questions. Raises BadInput where no test item is hidden."""
    users = users_of(split)
    if not len(users):
        raise BadInput(
            "no user's test item was hidden from training",
            remedy="train with hide_items, for instance --set hide_items=0.1",
        )
    both: list[dict[str, Result]] = [
        {
            name: evaluate(score, split, "test", ks, repeat=repeat, users=users, among=among, lists=False)
            for name, score in scorers.items()
        }
        for among in (None, split.is_hidden)
    ]
    return NewItems(len(split.hidden), *both)


def floors(split: Split, features: Mapping[str, Stored]) -> dict[str, ScoreFn]:
    """What a model has to beat on new items: chance, popularity, neighbours by each feature and by all of them."""
    found: dict[str, ScoreFn] = {"chance": baselines.chance(split), "popularity": baselines.popularity(split)}
    groups = {name: [stored] for name, stored in features.items()}
    if len(groups) > 1:
        groups["+".join(features)] = list(features.values())
    for name, stored in groups.items():
        found[f"content_knn:{name}"] = baselines.content_knn(split, "test", stored)
        found[f"content_knn:{name}, latest first"] = baselines.content_knn(split, "test", stored, HALF_LIFE)
    return found
