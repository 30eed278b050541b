"""Towers of one table against each other, user by user: what `recommender.compare` says of their ranks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recommender.compare import Float64, apart, best_of, over_seeds, paired, per_user, randomisation
from recommender.study.arms import Part, Ranks, Study, Table, ranks_file, read_ranks
from recommender.study.bins import agree
from recommender.study.rows import COMPARED, MAIN


@dataclass(frozen=True, eq=False)
class Users:
    """values: metric -> tower -> seed -> (n,) one value a user. counts: (n,) training events of the targets."""

    values: Mapping[str, Mapping[str, Mapping[int, Float64]]]
    counts: npt.NDArray[np.int32] | None = None

    @property
    def towers(self) -> list[str]:
        return list(self.values.get(MAIN, {}))

    def of(self, metric: str, towers: Sequence[str]) -> dict[str, list[Float64]]:
        """tower -> the values of each seed that all of `towers` have, in their order; nothing where none is shared."""
        held = {tower: self.values[metric][tower] for tower in towers}
        shared = sorted(set.intersection(*(set(seeds) for seeds in held.values()))) if held else []
        return {tower: [seeds[seed] for seed in shared] for tower, seeds in held.items()} if shared else {}

    def means(self, metric: str) -> dict[str, Float64]:
        """tower -> (n,) mean over the seeds that all towers have; nothing where none is shared."""
        return {tower: over_seeds(found) for tower, found in self.of(metric, self.towers).items()}


def users_of(study: Study, table: Table, part: Part) -> tuple[Users, list[str]]:
    """Values of each user for the trained arms of a table whose ranks are there and agree with their JSON."""
    notes: list[str] = []
    values: dict[str, dict[str, dict[int, Float64]]] = {metric: {} for metric in COMPARED}
    first: Ranks | None = None
    counts: npt.NDArray[np.int32] | None = None
    for arm in table.arms.values():
        if arm.floor:
            continue
        found: dict[str, dict[int, Float64]] = {metric: {} for metric in COMPARED}
        wrong, held = "", None
        for seed, cell in arm.cells.items():
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
                    found[metric][seed] = mine[metric]
            if wrong:
                break
        if wrong or held is None:
            notes.append(f"{arm.tower} is not compared: {wrong}.")
            continue
        for metric in COMPARED:
            values[metric][arm.tower] = found[metric]
        ranks = held.of(part)
        if part == "test" and ranks is not None and agree(held, arm):
            counts = held.target_count[ranks > 0]
    if values[MAIN] and counts is None and part == "test":
        notes.append("no figure by popularity: target_count and the group of cold items disagree.")
    return Users(values if values[MAIN] else {}, counts), notes


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


def comparisons_of(study: Study, table: Table, users: Users, part: Part) -> list[dict[str, Any]]:
    """Each tower against the reference, over the seeds that both have."""
    rows: list[dict[str, Any]] = []
    against = study.reference
    for metric, tower in itertools.product(users.values, users.towers):
        if tower == against or against not in users.towers:
            continue
        both = users.of(metric, (tower, against))
        if both:
            ours, reference = (over_seeds(both[name]) for name in (tower, against))
            by_seed = [[float(one.mean()) for one in both[name]] for name in (tower, against)]
            rows.append(
                table.about
                | {
                    "tower": tower,
                    "against": against,
                    "part": part,
                    "metric": metric,
                    "seeds": len(both[tower]),
                }
                | asdict(paired(ours, reference))
                | {"seeds_apart": apart(*by_seed)}
            )
    return rows


def contests_of(table: Table, users: Users) -> list[dict[str, Any]]:
    """Each tower against all others of its table at once, over the seeds that all have; only the first can be above
    all, so only it is tested."""
    values = users.means(MAIN)
    if len(values) < 2:
        return []
    ranking = sorted(values, key=lambda tower: -float(values[tower].mean()))
    differences = [values[ranking[0]] - values[other] for other in ranking[1:]]
    p = best_of([randomisation(d) for d in differences], [float(d.mean()) for d in differences])
    return [
        table.about | {"tower": tower, "best": tower == ranking[0], "p": p if tower == ranking[0] else 1.0}
        for tower in values
    ]
