"""A check's outcome, and what the checks of one run share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from recommender import checkpoint, data
from recommender.runs import Run
from recommender.splits import Split
from recommender.study.grid import SHUFFLE
from recommender.study.shuffle import shuffled

if TYPE_CHECKING:
    from torch import Tensor

    from featurestore.release import Release
    from recommender.items import Stored
    from recommender.model import SequentialModel

Verdict = Literal["holds", "violated", "cannot be told"]
HOLDS: Verdict = "holds"
VIOLATED: Verdict = "violated"
UNKNOWN: Verdict = "cannot be told"


@dataclass(frozen=True)
class Check:
    """One row: what was looked at, the verdict, why in a sentence, and the figures it rests on (JSON)."""

    name: str
    verdict: Verdict
    because: str
    evidence: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Material:
    """A run and everything that its checks recompute, each made once.

    split: what the run's configuration gives on the release's log today. forgotten: whether items or users were
    erased from the release after it was made, so that nothing can be recomputed to the bit any more. cell: the record
    of a study's cell, where the run is one: it names features whose vectors were exchanged, and when the test was
    opened.
    """

    def __init__(self, run: Run, release: Release, cell: Mapping[str, Any] | None = None) -> None:
        self.run, self.release, self.config, self.cell = run, release, run.config, cell

    @property
    def forgotten(self) -> bool:
        return any(self.release.manifest.get("forgotten", {}).values())

    @cached_property
    def split(self) -> Split:
        return data.split_of(self.release, self.config)

    @property
    def same_items(self) -> bool:
        """Whether the run's vocabulary is the split's, row by row; without that its model cannot be asked."""
        return bool(self.run.item_ids.tolist() == self.split.log.item_ids.tolist())

    @cached_property
    def vectors(self) -> dict[str, Stored]:
        """The stored vectors of the run's features, read from the release, over the run's vocabulary."""
        found = data.features_of(self.release, self.config, self.run.item_ids)
        return shuffled(found, self.cell[SHUFFLE] if self.cell else ())

    @cached_property
    def _best(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return checkpoint.load(self.run.folder / "checkpoint" / checkpoint.BEST)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Of the best checkpoint's model, on the CPU. Raises NotFound where there is none."""
        return checkpoint.under("model", self._best[0])

    @property
    def best_epoch(self) -> int:
        """The epoch that the best checkpoint was written in, as it says itself."""
        return int(self._best[1]["epoch"])

    @cached_property
    def model(self) -> SequentialModel:
        """The model of the best checkpoint over the release's vectors."""
        return self.run.load_model(features=self.vectors if self.config.features else None)


def differs(forgotten: bool) -> Verdict:
    """The verdict on a figure that does not come out again."""
    return UNKNOWN if forgotten else VIOLATED


def hedged(because: str, forgotten: bool) -> str:
    """`because`, and where something was forgotten since, that this may be why."""
    return f"{because}; items or users were forgotten since, which may be why" if forgotten else because
