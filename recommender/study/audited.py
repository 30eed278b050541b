"""The leak audit of a study's cells: `recommender.audit`, run by run, on the releases that the study names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recommender.study.grid import Cell, Study
from recommender.study.state import Sources, State, judge
from recommender.study.work import folder_of

if TYPE_CHECKING:
    from recommender.audit import Audit


@dataclass(frozen=True)
class Audited:
    """What was found of one cell; audit is None where it could not be made, and `says` is why."""

    cell: str
    audit: Audit | None
    says: str | None = None

    def to_dict(self) -> dict[str, Any]:
        found = self.audit.to_dict() if self.audit else {}
        return {"cell": self.cell, "says": self.says} | {k: v for k, v in found.items() if k != "run"}


def audited(study: Study, cells: Sequence[Cell], out: Path) -> Iterator[Audited]:
    """Each trained cell of `cells`, from its run in OUT; one that is not done, or a baseline, is passed over.

    Nothing is written. The test set is not read.
    """
    from recommender import audit, checkpoint
    from recommender.runs import Run

    sources = Sources(study)
    for cell in cells:
        state, why = judge(cell, sources)
        record = cell.record()
        if cell.baseline or record is None:
            continue
        folder = folder_of(out, cell)
        if state is State.OUTDATED:
            yield Audited(cell.name, None, f"outdated: {why}")
        elif not (folder / "checkpoint" / checkpoint.BEST).exists():
            yield Audited(cell.name, None, f"its run is not in {out}")
        else:
            yield Audited(cell.name, audit.of(Run(folder), sources.release(cell.data), record))
