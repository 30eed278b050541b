"""What a study found: one row a tower and table, every comparison with the reference, and how often each tower wins.

The corrections, stated where they are used:
- a tower against the reference: Holm over all such comparisons of the study, one metric at a time (`FAMILY`);
- a tower against every other of its table at once: intersection-union, then Holm over all towers of all tables.

Test is read only when every cell of the study has it: opened for some cells alone it would be a choice by test.
Until then everything is of validation, which also chose the epoch, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.errors import NotFound
from recommender.compare import (
    ROUNDS,
    Float64,
    apart,
    best_of,
    holm,
    over_seeds,
    paired,
    per_user,
    randomisation,
)
from recommender.compare import spread as mean_and_deviation
from recommender.study.arms import (
    Arm,
    Cell,
    Part,
    Ranks,
    Study,
    Table,
    is_floor,
    planned,
    ranks_file,
    read_ranks,
    tables_of,
)
from recommender.study.bins import agree, by_bin, long_rows

MAIN = "NDCG@10"
COMPARED = (MAIN, "HR@10", "MRR@10")
LEVEL = 0.05
ITEMS = {"head": "items:head", "tail": "items:tail", "cold": "items:cold"}
LENGTHS = ("short", "mid", "long")


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
        histories[table.title] = _histories(table, part)
        held = _held(tables, table)
        rows += _rows(study, table, part, histories[table.title], held)
        measured += _measured(table, part)
        users, said = _users(study, table, part)
        notes += [f"{table.title}: {text}" for text in said]
        comparisons += _comparisons(study, table, users, part)
        contests += _contests(table, users)
        if users.values and users.counts is not None:
            binned = by_bin(users.values[MAIN], users.counts)
            bins.append({"table": table.title, "rows": binned})
            measured += long_rows(binned, **_about(table), seed=None, part=part, metric=MAIN)
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


def _histories(table: Table, part: Part) -> list[str]:
    """Names of the groups of users by history, shortest first."""
    names = {
        name
        for arm in table.arms.values()
        for cell in arm.cells.values()
        for name in ((cell.get(part) or {}).get("groups") or {})
        if name.startswith("users:history ")
    }
    return sorted(names, key=lambda name: int(name.removeprefix("users:history ").split("-")[0]))


def _about(table: Table) -> dict[str, Any]:
    return {"table": table.title, "data": table.data, "backbone": table.backbone}


def _held(tables: Sequence[Table], table: Table) -> dict[str, set[int]]:
    """tower -> seeds that are there for this data set and backbone, in whichever table."""
    held: dict[str, set[int]] = {}
    for other in tables:
        if (other.data, other.backbone) == (table.data, table.backbone):
            for name, arm in other.arms.items():
                held.setdefault(name, set()).update(arm.cells)
    return held


def _rows(
    study: Study, table: Table, part: Part, histories: Sequence[str], held: Mapping[str, set[int]]
) -> list[dict[str, Any]]:
    floors = [name for name, arm in table.arms.items() if arm.floor]
    # a tower that no table has is missing from the first
    towers = [t for t in study.towers if t in table.arms or (t not in held and not table.apart)]
    lengths = dict(
        zip(LENGTHS if len(histories) == 3 else LENGTHS[: len(histories)], histories, strict=False)
    )
    wanted = planned(study)
    rows = []
    for name in [*floors, *towers]:
        arm = table.arms.get(name) or Arm(name, {})
        seeds = [seed for seed in study.seeds if (table.data, table.backbone, name, seed) in wanted]
        if not arm.cells and not seeds:
            continue
        row: dict[str, Any] = _about(table) | {
            "tower": name,
            "floor": arm.floor,
            "seeds": len(arm.cells),
            "seeds_planned": 1 if arm.floor else len(seeds),
            "missing": [] if arm.floor else [seed for seed in seeds if seed not in held.get(name, ())],
            "part": part,
        }
        for metric in (MAIN, "HR@10"):
            row[metric], row[f"{metric} std"] = _spread(arm.values(part, metric))
        for column, group in {**ITEMS, **lengths}.items():
            row[column] = _spread(arm.values(part, MAIN, group))[0]
        row |= {column: None for column in LENGTHS if column not in lengths}
        row[f"valid {MAIN}"], row[f"valid {MAIN} std"] = _spread(arm.values("valid", MAIN))
        for cost in ("parameters", "epoch_seconds", "seconds_to_best"):
            row[cost] = None if arm.floor else arm.cost(cost)
        rows.append(row)
    return rows


def _spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    mean, deviation = mean_and_deviation(values)
    return (mean if len(values) else None), (deviation if len(values) > 1 else None)


def _measured(table: Table, part: Part) -> list[dict[str, Any]]:
    rows = []
    parts: tuple[Part, ...] = ("valid", "test") if part == "test" else ("valid",)
    for arm in table.arms.values():
        for seed, cell in sorted(arm.cells.items()):
            about = _about(table) | {"tower": arm.tower, "seed": None if arm.floor else seed}
            for here in parts:
                block = cell.get(here) or {}
                groups = {"all": block.get("metrics") or {}, **(block.get("groups") or {})}
                for group, values in groups.items():
                    rows += [
                        about
                        | {
                            "part": here,
                            "group": group,
                            "users": values.get("users"),
                            "metric": m,
                            "value": v,
                        }
                        for m, v in values.items()
                        if m in COMPARED or (m != "users" and group == "all")
                    ]
            costs = {
                **(cell.get("cost") or {}),
                "best_epoch": cell.get("best_epoch"),
                "epochs": cell.get("epochs"),
            }
            rows += [
                about | {"part": None, "group": "cost", "users": None, "metric": m, "value": v}
                for m, v in costs.items()
                if isinstance(v, int | float)
            ]
    return rows


@dataclass(frozen=True, eq=False)
class _Users:
    """values: metric -> tower -> (n,) mean over seeds of each user. counts: (n,) training events of the targets."""

    values: Mapping[str, Mapping[str, Float64]]
    counts: npt.NDArray[np.int32] | None = None


def _users(study: Study, table: Table, part: Part) -> tuple[_Users, list[str]]:
    """Values of each user for the trained arms of a table whose ranks are there and agree with their JSON."""
    notes: list[str] = []
    values: dict[str, dict[str, Float64]] = {metric: {} for metric in COMPARED}
    first: Ranks | None = None
    counts: npt.NDArray[np.int32] | None = None
    for arm in table.arms.values():
        if arm.floor:
            continue
        found: dict[str, list[Float64]] = {metric: [] for metric in COMPARED}
        wrong, held = "", None
        for cell in arm.cells.values():
            path = ranks_file(study, cell)
            held = read_ranks(path) if path else None
            ranks = held.of(part) if held else None
            if held is None or ranks is None:
                wrong = "a file of ranks is missing"
            elif first is not None and not _same_users(first, held, part):
                wrong = "its ranks are of other users than the first tower's"
            else:
                first = first or held
                mine = {metric: per_user(ranks[ranks > 0], metric) for metric in COMPARED}
                if not _agree(mine, (cell[part] or {}).get("metrics") or {}):
                    wrong = "ranks and metrics of a cell disagree"
                for metric in COMPARED:
                    found[metric].append(mine[metric])
            if wrong:
                break
        if wrong or held is None:
            notes.append(f"{arm.tower} is not compared: {wrong}.")
            continue
        for metric in COMPARED:
            values[metric][arm.tower] = over_seeds(found[metric])
        ranks = held.of(part)
        if part == "test" and ranks is not None and agree(held, arm):
            counts = held.target_count[ranks > 0]
    if values[MAIN] and counts is None and part == "test":
        notes.append("no figure by popularity: target_count and the group of cold items disagree.")
    return _Users(values if values[MAIN] else {}, counts), notes


def _same_users(a: Ranks, b: Ranks, part: Part) -> bool:
    one, other = a.of(part), b.of(part)
    return (
        one is not None
        and other is not None
        and np.array_equal(one > 0, other > 0)
        and np.array_equal(a.history, b.history)
        and np.array_equal(a.target_count, b.target_count)
    )


def _agree(values: Mapping[str, Float64], said: Mapping[str, Any]) -> bool:
    return all(
        said.get(metric) is None or (len(mine) > 0 and abs(float(mine.mean()) - float(said[metric])) < 1e-5)
        for metric, mine in values.items()
    )


def _comparisons(study: Study, table: Table, users: _Users, part: Part) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for metric, values in users.values.items():
        reference = values.get(study.reference)
        if reference is None:
            continue
        for tower, ours in values.items():
            if tower == study.reference:
                continue
            by_seed = [table.arms[name].values(part, metric) for name in (tower, study.reference)]
            rows.append(
                _about(table)
                | {"tower": tower, "against": study.reference, "part": part, "metric": metric}
                | asdict(paired(ours, reference))
                | {"seeds_apart": apart(*by_seed)}
            )
    return rows


def _contests(table: Table, users: _Users) -> list[dict[str, Any]]:
    """Each tower against all others of its table at once; only the first can be above all, so only it is tested."""
    values = users.values.get(MAIN, {})
    if len(values) < 2:
        return []
    ranking = sorted(values, key=lambda tower: -float(values[tower].mean()))
    differences = [values[ranking[0]] - values[other] for other in ranking[1:]]
    p = best_of([randomisation(d) for d in differences], [float(d.mean()) for d in differences])
    return [
        _about(table) | {"tower": tower, "best": tower == ranking[0], "p": p if tower == ranking[0] else 1.0}
        for tower in values
    ]


def _against(found: Mapping[str, Any] | None) -> dict[str, Any]:
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
    return {name: None if found is None else found[name] for name in names}


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
    if cut:
        notes.append(
            f"{len(cut)} of {len(cells)} cells were best in their last epoch: they might have gone on to improve."
        )
    threads = {int(cell["cost"]["threads"]) for cell in cells if (cell.get("cost") or {}).get("threads")}
    if len(threads) > 1:
        notes.append(
            f"Cells ran with {' and '.join(map(str, sorted(threads)))} threads, so their seconds do not compare."
        )
    return notes
