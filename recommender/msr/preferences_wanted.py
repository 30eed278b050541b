"""Which events preferences are wanted for: of which split, which users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from featurestore import spelling
from featurestore.errors import BadInput, NotFound, did_you_mean
from featurestore.files import sha256_text
from recommender.config import Config
from recommender.data import split_of
from recommender.msr.states import Point, ends_at, ends_of
from recommender.splits import Split

if TYPE_CHECKING:
    from featurestore.release import Release
    from recommender.events import EventLog


@dataclass(frozen=True)
class Wanted:
    """As the arguments of `preferences_run.compute`."""

    split: Split | str
    k_core: tuple[int, int] | None
    points: Sequence[Point]
    rows: Sequence[int] | None
    users: Sequence[str] | None
    sample: int | None
    seed: int

    def of(self, release: Release) -> tuple[EventLog, dict[int, set[int]]]:
        """(the split's log, user -> positions of the events that are asked for). Raises BadInput, NotFound."""
        split = self.split if isinstance(self.split, Split) else split_of(release, self._config(self.split))
        ends = ends_of(split, self.points) if self.rows is None else ends_at(split.log, self.rows)
        return split.log, self._chosen(split.log, ends)

    def _config(self, split: str) -> Config:
        names = get_args(Config.model_fields["split"].annotation)
        if split not in names:
            raise BadInput(f"there is no split '{split}'", remedy=did_you_mean(split, names))
        return Config.of(split=split, k_core=self.k_core)

    def _chosen(self, log: EventLog, ends: dict[int, set[int]]) -> dict[int, set[int]]:
        ids = log.user_ids.tolist()
        if self.users is not None:
            place = {name: row for row, name in enumerate(ids)}
            for name in self.users:
                if name not in place:
                    raise NotFound(f"the log has no user '{name}'", remedy=near_user(log, name))
            wanted = {place[name] for name in self.users}
            ends = {user: found for user, found in ends.items() if user in wanted}
        if self.sample is not None:
            if self.sample < 1:
                raise BadInput(f"{self.sample} users", remedy="1 or more, or leave it out for all")
            drawn = sorted(ends, key=lambda user: sha256_text(f"{self.seed}:{ids[user]}"))[: self.sample]
            ends = {user: ends[user] for user in sorted(drawn)}
        return ends


def near_user(log: EventLog, user: str) -> str:
    """What to say to somebody who asked for a user that the log does not have."""
    other = spelling.near(log.user_ids, user)
    return f"did you mean '{other}'?" if other else "ids are those of the release's log, as spelled there"
