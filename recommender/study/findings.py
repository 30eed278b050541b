"""What a study found: one row a tower and table, every comparison with the reference, and how often each tower wins.

The corrections, stated where they are used:
- a tower against the reference: Holm over all such comparisons of the study, one metric at a time;
- a tower against every other of its table at once: intersection-union, then Holm over all towers of all tables.

Test is read only when every cell that was trained has it: opened for some of them alone it would be a choice by test.
Until then everything is of validation, which also chose the epoch, and says so. A grid that is not whole yet says
what is missing; towers are then compared over the seeds that both have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.errors import NotFound
from recommender.compare import ROUNDS, holm
from recommender.study.arms import Cell, Part, Study, Table, is_floor, planned, tables_of
from recommender.study.bins import by_bin, long_rows
from recommender.study.pairs import comparisons_of, contests_of, users_of
from recommender.study.rows import COMPARED, MAIN, held_seeds, histories_of, measured_of, rows_of

LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Findings:
    """rows: one a tower (or floor) and table, missing ones too. comparisons: tower, reference, metric, interval, p.

    wins: one a tower. bins: {"table": title, "rows": see `bins.by_bin`}. measured: one a number of a cell, and one a
    number of a bin. histories: for each table, the groups of users behind short, mid and long.
    """

    study: Study
    part: Part
    tables: Sequence[Table]
    rows: Sequence[Mapping[str, Any]]
    comparisons: Sequence[Mapping[str, Any]]
    wins: Sequence[Mapping[str, Any]]
    bins: Sequence[Mapping[str, Any]]
    measured: Sequence[Mapping[str, Any]]
    histories: Mapping[str, Sequence[str]]
    family: str
    notes: Sequence[str]

    def of(self, table: Table) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if row["table"] == table.title]


def analyse(study: Study, cells: Sequence[Cell]) -> Findings:
    """Everything a report says, from cells as `results` or `read_cells` give them. Raises NotFound where none of the
    study is trained."""
    tables, notes = tables_of(study, cells)
    if all(arm.floor for table in tables for arm in table.arms.values()):
        raise NotFound(
            f"no cell of study {study.name} is trained yet", remedy="dualview study run STUDY.toml"
        )
    part, said = _part(
        [cell for table in tables for arm in table.arms.values() for cell in arm.cells.values()]
    )
    notes += said
    rows: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    contests: list[dict[str, Any]] = []
    measured: list[dict[str, Any]] = []
    bins: list[dict[str, Any]] = []
    histories: dict[str, list[str]] = {}
    for table in tables:
        histories[table.title] = histories_of(table, part)
        held = held_seeds(tables, table)
        rows += rows_of(study, table, part, histories[table.title], held)
        measured += measured_of(table, part)
        users, said = users_of(study, table, part)
        notes += [f"{table.title}: {text}" for text in said]
        comparisons += comparisons_of(study, table, users, part)
        contests += contests_of(table, users)
        means = users.means(MAIN)
        if means and users.counts is not None:
            binned = by_bin(means, users.counts)
            bins.append({"table": table.title, "rows": binned})
            measured += long_rows(binned, **table.about, seed=None, part=part, metric=MAIN)
    for metric in COMPARED:
        family = [one for one in comparisons if one["metric"] == metric]
        for one, p in zip(family, holm([one["p"] for one in family]), strict=True):
            one |= {"p_holm": p, "family": len(family)}
    for one, p in zip(contests, holm([one["p"] for one in contests]), strict=True):
        one["p_holm"] = p
    main = {(one["table"], one["tower"]): one for one in comparisons if one["metric"] == MAIN}
    rows = [row | _against(main.get((row["table"], row["tower"]))) for row in rows]
    notes += _missing(study, rows) + _limits(tables)
    least = len(main) / (1 + ROUNDS)
    if least > LEVEL:
        notes.append(
            f"No p can be below {least:.2f} in a family of {len(main)}: nothing can be significant here."
        )
    return Findings(
        study=study,
        part=part,
        tables=tables,
        rows=rows,
        comparisons=comparisons,
        wins=_wins(study, main, contests),
        bins=bins,
        measured=measured,
        histories=histories,
        family=f"Holm over {len(main)} comparisons: every tower against {study.reference} in every table, "
        f"{MAIN}, {part}",
        notes=notes,
    )


def _part(cells: Sequence[Cell]) -> tuple[Part, list[str]]:
    trained = [cell for cell in cells if not is_floor(cell)]
    opened = sum(cell.get("test") is not None for cell in trained)
    if trained and opened == len(trained):
        return "test", []
    some = f" It was opened for {opened} of {len(trained)} cells, which are not shown." if opened else ""
    return "valid", [
        "Test is not opened: every figure is of validation, which also chose each model's epoch, so differences are "
        f"indications only, and nothing is shown by how often training saw the target.{some}"
    ]


def _against(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """What of a comparison stands in a tower's row."""
    names = (
        "gain",
        "gain_low",
        "gain_high",
        "difference",
        "low",
        "high",
        "p",
        "p_t",
        "p_holm",
        "seeds_apart",
    )
    told = {name: None if found is None else found[name] for name in names}
    return told | {"seeds_compared": None if found is None else found["seeds"]}


def _wins(
    study: Study, main: Mapping[tuple[str, str], Mapping[str, Any]], contests: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    rows = []
    for tower in study.towers:
        mine = [one for (_, name), one in main.items() if name == tower]
        own = [one for one in contests if one["tower"] == tower]
        sure = [one for one in mine if one["p_holm"] < LEVEL]
        gains = [one["gain"] for one in mine if np.isfinite(one["gain"])]
        rows.append(
            {
                "tower": tower,
                "compared": len(mine),
                "above": sum(one["difference"] > 0 for one in mine),
                "significantly_above": sum(one["difference"] > 0 for one in sure),
                "seeds_apart_above": sum(one["difference"] > 0 for one in sure if one["seeds_apart"]),
                "significantly_below": sum(one["difference"] < 0 for one in sure),
                "median_gain": float(np.median(gains)) if gains else None,
                "tables": len(own),
                "best": sum(one["best"] for one in own),
                "significantly_best": sum(one["best"] and one["p_holm"] < LEVEL for one in own),
            }
        )
    return rows


def _missing(study: Study, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    by_arm = {(row["data"], row["backbone"], row["tower"]): row for row in rows if row["missing"]}
    here = list(by_arm.values())
    if not here:
        return []
    lost = ", ".join(
        f"{row['data']} · {row['backbone']} · {row['tower']} seed {' '.join(map(str, row['missing']))}"
        for row in here[:8]
    )
    more = f" and {len(here) - 8} more" if len(here) > 8 else ""
    return [f"The grid is not whole: {len(planned(study))} cells are planned. Missing: {lost}{more}."]


def _limits(tables: Sequence[Table]) -> list[str]:
    """What limits a reading of quality or cost."""
    notes = []
    cells = [
        cell
        for table in tables
        for arm in table.arms.values()
        if not arm.floor
        for cell in arm.cells.values()
    ]
    cut = [c for c in cells if c.get("best_epoch") is not None and c["best_epoch"] == c.get("epochs")]
    fallen = [c for c in cut if c["config"].get("schedule") == "cosine"]
    if cut:
        why = "they might have gone on to improve"
        if fallen:
            why = f"the rate of {len(fallen)} had fallen to nothing by then" + (
                f"; others: {why}" if fallen != cut else ""
            )
        notes.append(f"{len(cut)} of {len(cells)} cells were best in their last epoch: {why}.")
    threads = {int(cell["cost"]["threads"]) for cell in cells if (cell.get("cost") or {}).get("threads")}
    codes = {str(cell["code"]) for cell in cells if cell.get("code")}
    if len(codes) > 1:
        told = ", ".join(_short(one) for one in sorted(codes))
        notes.append(f"Cells were trained by {len(codes)} versions of the code: {told}.")
    if any("-dirty" in one for one in codes):
        notes.append("-dirty: tracked files were edited since.")
    clocks = [(cell.get("cost") or {}).get("clock") for cell in cells]
    if len(set(clocks)) > 1:
        kinds = {"processor": "of the processor", "wall": "by the wall", None: "by a clock that is not named"}
        counted = [f"{clocks.count(kind):,} {says}" for kind, says in kinds.items() if kind in clocks]
        notes.append(f"Seconds of cells are {', '.join(counted)}: costs compare within one kind only.")
    if len(threads) > 1:
        notes.append(
            f"Cells ran with {' and '.join(map(str, sorted(threads)))} threads, so their seconds do not compare."
        )
    return notes


def _short(code: str) -> str:
    """Every commit of it by eight letters, and whether files were edited since."""
    return " then ".join(one[:8] + ("-dirty" if one.endswith("-dirty") else "") for one in code.split())
