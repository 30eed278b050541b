"""What the cells of a study left behind, as a report reads it: records in, arms of comparable tables out.

Records are those of `recommender.study.records`: a JSON file and a file of ranks for each cell, and for each floor
(popularity, neighbours) of a data set, which has neither tower nor seed.

An **arm** is one tower in one table, with a cell for each seed. Cells share a table only if they answered the same
question: the same data, backbone, split, protocol, and the same `causal`. Others stand in a table of their own, so that
no column ever mixes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from featurestore.errors import BadInput, NotFound, did_you_mean
from featurestore.files import canonical_json, read_json

Cell = Mapping[str, Any]
Part = Literal["valid", "test"]
Int32 = npt.NDArray[np.int32]

RANKS = ".ranks.parquet"


class Study(Protocol):
    """What a report asks of a study. reference: the tower that gains are relative to; all names in their order."""

    @property
    def name(self) -> str: ...
    @property
    def reference(self) -> str: ...
    @property
    def data(self) -> Iterable[str]: ...
    @property
    def backbones(self) -> Iterable[str]: ...
    @property
    def towers(self) -> Iterable[str]: ...
    @property
    def seeds(self) -> Iterable[int]: ...


@dataclass(frozen=True)
class Grid:
    """A study known from its cells alone."""

    name: str
    reference: str
    data: Sequence[str]
    backbones: Sequence[str]
    towers: Sequence[str]
    seeds: Sequence[int]


def grid_of(cells: Sequence[Cell], reference: str) -> Grid:
    """The smallest grid that holds these cells; names in alphabetical order, the reference first."""
    trained = [cell for cell in cells if not is_floor(cell)]
    towers = sorted({cell["tower"] for cell in trained})
    if reference not in towers:
        raise NotFound(f"no cell has the tower '{reference}'", remedy=did_you_mean(reference, towers))
    return Grid(
        name=trained[0]["study"],
        reference=reference,
        data=sorted({cell["data"] for cell in trained}),
        backbones=sorted({cell["backbone"] for cell in trained}),
        towers=[reference, *(tower for tower in towers if tower != reference)],
        seeds=sorted({cell["seed"] for cell in trained}),
    )


def read_cells(folder: str | Path) -> list[dict[str, Any]]:
    """All cells and floors of a folder of light files. Each gets "ranks": the path of its ranks, None where missing."""
    folder, cells = Path(folder), []
    for path in sorted(folder.glob("*.json")):
        if len(path.stem.split("--")) in (2, 4):
            ranks = path.with_name(path.stem + RANKS)
            cells.append({**read_json(path), "ranks": str(ranks) if ranks.exists() else None})
    if not cells:
        raise NotFound(
            f"{folder} holds no cell of a study", remedy="run the study first, or name its folder of cells"
        )
    return cells


def ranks_file(study: Study, cell: Cell) -> Path | None:
    """Where the ranks of a cell are: as `read_cells` found it, else in the folder of the study."""
    if "ranks" in cell:
        return Path(cell["ranks"]) if cell["ranks"] else None
    folder = getattr(study, "folder", None)
    path = Path(folder or ".") / (str(cell["cell"]) + RANKS)
    return path if path.exists() else None


def planned(study: Study) -> set[tuple[str, str, str, int]]:
    """(data, backbone, tower, seed) of each cell to train: those the study lists, else the whole grid."""
    if hasattr(study, "cells"):
        return {(c.data, c.backbone, c.tower, c.seed) for c in study.cells() if c.tower is not None}
    return set(product(study.data, study.backbones, study.towers, study.seeds))


def is_floor(cell: Cell) -> bool:
    """Whether it is a floor (popularity, neighbours): a baseline, for which nothing was trained."""
    return cell["tower"] is None


@dataclass(frozen=True)
class Ranks:
    """Ranks of one cell's targets, (users,) int32 each, in the order of the split's users; 0: no target.

    history: events before the test target. target_count: its training events. Of users without one both
    mean nothing.
    """

    valid: Int32
    test: Int32 | None
    history: Int32
    target_count: Int32

    def of(self, part: Part) -> Int32 | None:
        return self.valid if part == "valid" else self.test


def read_ranks(path: str | Path) -> Ranks:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    for name in ("rank_valid", "history", "target_count"):
        if name not in table.column_names:
            raise BadInput(
                f"{path} has no column '{name}'", remedy="delete it and its JSON, and run the cell again"
            )

    def column(name: str, missing: int) -> Int32:
        return np.asarray(
            table[name].combine_chunks().fill_null(missing).to_numpy(zero_copy_only=False), dtype=np.int32
        )

    test = (
        column("rank_test", 0) if "rank_test" in table.column_names else np.zeros(len(table), dtype=np.int32)
    )
    return Ranks(
        valid=column("rank_valid", 0),
        test=test if test.any() else None,
        history=column("history", 0),
        target_count=column("target_count", 0),
    )


@dataclass(frozen=True, eq=False)
class Arm:
    """One tower (or floor) of one table. cells: by seed; a floor's only cell stands under -1."""

    tower: str
    cells: Mapping[int, Cell]
    floor: bool = False

    def values(self, part: Part, metric: str, group: str | None = None) -> list[float]:
        """One value a seed, in the order of seeds; where it is undefined (an empty group) none."""
        found = []
        for seed in sorted(self.cells):
            block = self.cells[seed].get(part) or {}
            inside = block.get("groups", {}).get(group, {}) if group else block.get("metrics", {})
            if inside.get(metric) is not None:
                found.append(float(inside[metric]))
        return found

    def cost(self, name: str) -> float | None:
        """Mean over seeds of what a cell cost."""
        found = [
            cell["cost"][name]
            for cell in self.cells.values()
            if (cell.get("cost") or {}).get(name) is not None
        ]
        return float(np.mean(found)) if found else None


@dataclass(frozen=True, eq=False)
class Table:
    """Arms that may be compared. note: how it differs where one data set and backbone have several; the first is the
    reference's, the others are `apart`."""

    data: str
    backbone: str
    arms: Mapping[str, Arm]
    protocol: str
    note: str = ""
    apart: bool = False

    @property
    def title(self) -> str:
        return f"{self.data} · {self.backbone}" + (f" · {self.note}" if self.note else "")

    @property
    def about(self) -> dict[str, Any]:
        """The columns that say which table a row is of."""
        return {"table": self.title, "data": self.data, "backbone": self.backbone}


def tables_of(study: Study, cells: Sequence[Cell]) -> tuple[list[Table], list[str]]:
    """The tables of a study, in its order, and notes on what could not be put into one."""
    towers, seeds, notes = list(study.towers), list(study.seeds), []
    data, backbones = list(study.data), list(study.backbones)
    if study.reference not in towers:
        raise BadInput(
            f"the reference '{study.reference}' is no tower of the study",
            remedy=did_you_mean(study.reference, towers),
        )
    wanted: dict[tuple[str, str], list[Cell]] = {(d, b): [] for d in data for b in backbones}
    floors: list[Cell] = []
    strange = 0
    for cell in cells:
        if is_floor(cell):
            floors.append(cell)
        elif (
            (cell["data"], cell["backbone"]) in wanted
            and cell["tower"] in towers
            and cell["seed"] in seeds
            and cell.get("study", study.name) == study.name
        ):
            wanted[cell["data"], cell["backbone"]].append(cell)
        else:
            strange += 1
    if strange:
        notes.append(f"{strange} cells that are not of this study's grid are left out.")
    tables = []
    for (d, b), here in wanted.items():
        kinds: dict[tuple[str, str, bool], list[Cell]] = {}
        for cell in here:
            kinds.setdefault(_question(cell), []).append(cell)

        def standing(kind: tuple[str, str, bool], kinds: dict[Any, list[Cell]] = kinds) -> tuple[int, int]:
            return -sum(cell["tower"] == study.reference for cell in kinds[kind]), -len(kinds[kind])

        for place, kind in enumerate(sorted(kinds, key=standing)):
            tables.append(_table(d, b, kind, kinds[kind], floors, towers, list(kinds), place))
            unlike = {f["baseline"] for f in floors if f["data"] == d} - set(tables[-1].arms)
            if unlike:
                notes.append(
                    f"{tables[-1].title}: {', '.join(sorted(unlike))} had another protocol or split: left out."
                )
        if len(kinds) > 1:
            notes.append(
                f"{d} · {b}: cells differ in {_differ(list(kinds))}, so they stand in {len(kinds)} tables; "
                "figures of different tables are not comparable."
            )
        if not kinds:
            tables.append(Table(d, b, {}, "", "no cell yet"))
    return tables, notes


def _split(cell: Cell) -> str:
    return str(cell.get("split_hash") or (cell.get("split") or {}).get("hash") or "")


def _question(cell: Cell) -> tuple[str, str, bool]:
    causal = (cell.get("config") or {}).get("causal", True)
    return _protocol(cell), _split(cell), bool(causal)


def _protocol(cell: Cell) -> str:
    said = cell.get("protocol") or ""
    return said if isinstance(said, str) else canonical_json(said)


def _differ(kinds: Sequence[tuple[str, str, bool]]) -> str:
    names = ("protocol", "split", "causal")
    return " and ".join(
        name for name, values in zip(names, zip(*kinds, strict=True), strict=True) if len(set(values)) > 1
    )


def _table(
    data: str,
    backbone: str,
    kind: tuple[str, str, bool],
    cells: Sequence[Cell],
    floors: Sequence[Cell],
    towers: Sequence[str],
    kinds: Sequence[tuple[str, str, bool]],
    place: int,
) -> Table:
    arms: dict[str, Arm] = {}
    for cell in floors:
        if cell["data"] == data and (_protocol(cell), _split(cell)) == kind[:2]:
            arms[cell["baseline"]] = Arm(cell["baseline"], {-1: cell}, floor=True)
    for tower in towers:
        found = {cell["seed"]: cell for cell in cells if cell["tower"] == tower}
        if found:
            arms[tower] = Arm(tower, dict(sorted(found.items())))
    differ = _differ(kinds) if len(kinds) > 1 else ""
    words = {"causal": "causal" if kind[2] else "not causal", "protocol": f"protocol {place + 1}"}
    words["split"] = f"split {place + 1}"
    note = ", ".join(word for name, word in words.items() if name in differ)
    return Table(data, backbone, arms, kind[0], note, apart=place > 0)
