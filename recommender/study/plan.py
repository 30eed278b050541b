"""What a study would do: its cells, what each still needs, and how long that may take, judged by cells done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.errors import NotFound
from recommender.study.grid import Cell
from recommender.study.state import Sources, State, judge


@dataclass(frozen=True)
class Planned:
    """One cell. seconds: what it took, where it is done; expected: what it may take, None where nothing tells.

    why: of an outdated cell. problem: what would make it fail, as far as can be told without training.
    """

    cell: Cell
    state: State
    why: str | None
    problem: str | None
    seconds: float | None
    expected: float | None

    @property
    def fails(self) -> bool:
        """It is still to be trained, and could not be."""
        return self.problem is not None and self.state in (State.NEW, State.OUTDATED)

    @property
    def options(self) -> dict[str, Any]:
        """The options that are not their defaults, without the axes."""
        return self.cell.told_options

    def to_dict(self) -> dict[str, Any]:
        cell = self.cell
        return {
            "cell": cell.name,
            "data": cell.data,
            "backbone": cell.backbone,
            "tower": cell.tower,
            "seed": cell.seed,
            "state": str(self.state),
            "why": self.why,
            "problem": self.problem,
            "seconds": self.seconds,
            "expected_seconds": self.expected,
            "config": cell.options,
            "shuffle": list(cell.shuffle),
            "config_hash": cell.config_hash,
        }


def plan(cells: Sequence[Cell], sources: Sources) -> list[Planned]:
    """In the order of `cells`. Nothing is trained, no test is opened and nothing is written."""
    found = []
    for cell in cells:
        state, why = judge(cell, sources)
        record = cell.record() if state in (State.TRAINED, State.TESTED) else None
        seconds = None if record is None else _whole(record)
        found.append(Planned(cell, state, why, _problem(cell, sources), seconds, None))
    kinds = [_means(found, depth) for depth in (3, 2, 1)]
    return [
        one
        if one.seconds is not None
        else Planned(one.cell, one.state, one.why, one.problem, None, _guess(one, kinds))
        for one in found
    ]


def _whole(record: dict[str, Any]) -> float:
    cost = record["cost"]
    return float(cost["seconds"]) + (0.0 if record["baseline"] else float(cost["evaluation_seconds"]))


def _key(cell: Cell, depth: int) -> tuple[Any, ...]:
    """Cells of one key take about as long: (data, backbone, tower), (data, backbone), (data,)."""
    return (cell.baseline, cell.data, cell.backbone, cell.tower)[: depth + 1]


def _means(found: Sequence[Planned], depth: int) -> dict[tuple[Any, ...], float]:
    taken: dict[tuple[Any, ...], list[float]] = {}
    for one in found:
        if one.seconds is not None:
            taken.setdefault(_key(one.cell, depth), []).append(one.seconds)
    return {key: sum(values) / len(values) for key, values in taken.items()}


def _guess(one: Planned, kinds: Sequence[dict[tuple[Any, ...], float]]) -> float | None:
    for depth, means in zip((3, 2, 1), kinds, strict=True):
        if (mean := means.get(_key(one.cell, depth))) is not None:
            return round(mean, 1)
    return None


def _problem(cell: Cell, sources: Sources) -> str | None:
    try:
        sources.release(cell.data)
        sources.features(cell.data, cell.features)
    except NotFound as error:
        return f"{error.message}; {error.remedy}" if error.remedy else error.message
    return None
