"""The figures of each arm as they were measured: a row a tower and table, and a row a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recommender.compare import spread as mean_and_deviation
from recommender.study.arms import Arm, Part, Study, Table, planned

MAIN = "NDCG@10"
COMPARED = (MAIN, "HR@10", "MRR@10")
ITEMS = {"head": "items:head", "tail": "items:tail", "cold": "items:cold"}
LENGTHS = ("short", "mid", "long")


def histories_of(table: Table, part: Part) -> list[str]:
    """Names of the groups of users by history, shortest first."""
    names = {
        name
        for arm in table.arms.values()
        for cell in arm.cells.values()
        for name in ((cell.get(part) or {}).get("groups") or {})
        if name.startswith("users:history ")
    }
    return sorted(names, key=lambda name: int(name.removeprefix("users:history ").split("-")[0]))


def held_seeds(tables: Sequence[Table], table: Table) -> dict[str, set[int]]:
    """tower -> seeds that are there for this data set and backbone, in whichever table."""
    held: dict[str, set[int]] = {}
    for other in tables:
        if (other.data, other.backbone) == (table.data, table.backbone):
            for name, arm in other.arms.items():
                held.setdefault(name, set()).update(arm.cells)
    return held


def rows_of(
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
        row: dict[str, Any] = table.about | {
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


def measured_of(table: Table, part: Part) -> list[dict[str, Any]]:
    rows = []
    parts: tuple[Part, ...] = ("valid", "test") if part == "test" else ("valid",)
    for arm in table.arms.values():
        for seed, cell in sorted(arm.cells.items()):
            about = table.about | {"tower": arm.tower, "seed": None if arm.floor else seed}
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
