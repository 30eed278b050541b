"""What the cells of this study lost by exchanged pictures or words, beside what the truth says; and cold items.

python -m benchmarks.studies.demo.against_truth        writes TRUTH.md beside this, from cells/ and truth.json
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.studies.demo.build import HERE
from featurestore import files
from recommender.compare import holm, over_seeds, paired, per_user
from recommender.study.arms import Ranks, read_cells, read_ranks
from recommender.study.printed import number, probability, share

METRIC = "NDCG@10"
COLD = ("id", "text", "image", "dmesr", "dmesr-ids", "dmesr-half-ids")  # towers that are asked for new items
BASELINE = -1  # the seed of what has none
Cells = Mapping[tuple[str, str], Mapping[int, Ranks]]  # by seed
# what is exchanged -> what is then known, by truth.json
EXCHANGED = {"shuffled-image": ("pictures", "theme"), "shuffled-text": ("words", "style")}
LABELS = {"no-style": ("style", "theme"), "no-theme": ("theme", "style")}


def ranks_of(cells: Sequence[Mapping[str, Any]]) -> Cells:
    """(data, tower or baseline) -> the ranks of its cells whose test is open."""
    found: dict[tuple[str, str], dict[int, Ranks]] = {}
    for cell in cells:
        if cell["test"] is not None and cell["ranks"]:
            seed = BASELINE if cell["baseline"] else cell["seed"]
            found.setdefault((cell["data"], cell["tower"] or cell["baseline"]), {})[seed] = read_ranks(
                cell["ranks"]
            )
    return found


def ranks_on_test(ranks: Ranks, cold: bool = False) -> npt.NDArray[np.int32]:
    """Of the users that have a test target; cold: of those alone whose target training never saw."""
    assert ranks.test is not None
    return ranks.test[(ranks.test > 0) & (ranks.target_count == 0)] if cold else ranks.test[ranks.test > 0]


def values(ranks: Iterable[Ranks], cold: bool = False, metric: str = METRIC) -> npt.NDArray[np.float64]:
    """(users,) mean over seeds."""
    return over_seeds([per_user(ranks_on_test(one, cold), metric) for one in ranks])


def losses(cells: Cells, truth: Mapping[str, Any]) -> list[list[str]]:
    asked = [
        ("hidden", base, f"{base}-{name}", what, known)
        for base, taken in (("dmesr", EXCHANGED), ("labels", LABELS))
        for name, (what, known) in taken.items()
    ] + [("shop", "dmesr", f"dmesr-{name}", what, known) for name, (what, known) in EXCHANGED.items()]
    found = []
    for data, base, less, what, known in asked:
        whole, without = cells.get((data, base)), cells.get((data, less))
        if whole and without:
            seeds = sorted(whole.keys() & without.keys())
            new = data == "hidden"
            one = paired(values([without[s] for s in seeds], new), values([whole[s] for s in seeds], new))
            lost = truth["attainable on hidden" if new else "attainable"][known]["NDCG lost"]
            found.append((base, "new" if new else "all", what, lost, len(seeds), one))
    adjusted = holm([one.p for *_, one in found])
    return [
        [
            base,
            of,
            what,
            str(seeds),
            number(one.reference),
            number(one.mean),
            f"{share(one.gain)} ({share(one.gain_low)} to {share(one.gain_high)})",
            share(-lost),
            probability(p),
        ]
        for (base, of, what, lost, seeds, one), p in zip(found, adjusted, strict=True)
    ]


def cold_items(cells: Cells, data: str, towers: Sequence[str]) -> list[list[str]]:
    """Each tower of a data set on users whose target training never saw, against a random order of the same items."""
    chance = cells[data, "chance"]
    present = [tower for tower in towers if (data, tower) in cells]
    by_chance = values(chance.values(), True)
    found = [paired(values(cells[data, t].values(), True), by_chance) for t in present]
    rows = []
    for tower, one, p in zip(present, found, holm([one.p for one in found]), strict=True):
        ranks = list(cells[data, tower].values())
        middle = float(np.median([np.median(ranks_on_test(r, True)) for r in ranks]))
        hits = float(values(ranks, True, "HR@10").mean())
        warm = float(np.mean([values([r]).mean() for r in ranks]))
        rows.append(
            [
                tower,
                str(len(ranks)),
                number(one.mean),
                number(hits),
                f"{middle:.0f}",
                probability(p),
                number(warm),
            ]
        )
    base = chance[BASELINE]
    rows.append(
        [
            "chance",
            "–",
            number(found[0].reference),
            number(float(values([base], True, "HR@10").mean())),
            f"{np.median(ranks_on_test(base, True)):.0f}",
            "–",
            number(float(values([base]).mean())),
        ]
    )
    return rows


def page(cells: Cells, truth: Mapping[str, Any]) -> str:
    attainable = [
        [
            name,
            *(number(one["NDCG"]), number(one["HR"]), share(-one["NDCG lost"])),
            *(
                number(truth["attainable on hidden"][name]["NDCG"]),
                share(-truth["attainable on hidden"][name]["NDCG lost"]),
            ),
        ]
        for name, one in sorted(truth["attainable"].items(), key=lambda pair: -pair[1]["NDCG"])
    ]
    parts = [
        "# Against the truth",
        "## What is attainable",
        "Rankings by the probabilities that the log was drawn from, each customer's last event. What is not known of "
        "the items is style, theme or both; tastes, category and appeal always are.",
        _table(
            ("known", METRIC, "HR@10", "against both", "of customers of a hidden product", "against both"),
            attainable,
        ),
        "## What exchanged pictures and words cost",
        "Test, each customer's last event, of all customers or of those whose target is a new product; means over the "
        "seeds that both sides have, in brackets the 95 % bootstrap interval over users. p: paired randomisation test "
        "over users, Holm over the rows of this table. `labels` reads the true labels instead of pictures and words, "
        "and is given all or all but one: that is what can be lost by a model that has to learn customers' tastes from "
        "the log, while the truth's rankings know them.",
        _table(
            (
                "tower",
                "products",
                "taken away",
                "seeds",
                "whole",
                "without",
                "cost",
                "where tastes are known",
                "p",
            ),
            losses(cells, truth),
        ),
        "## Items that training never saw",
        "Test customers whose target is such an item, ranked among all items. p: against a random order of the same "
        "items, Holm over the towers. A median rank below that of chance is better.",
        *_cold_table(cells),
    ]
    return "\n\n".join(parts) + "\n"


def _cold_table(cells: Cells) -> list[str]:
    if ("hidden", "chance") not in cells or ("hidden", "dmesr") not in cells:
        return []
    users = len(ranks_on_test(cells["hidden", "chance"][BASELINE], True))
    header = ("tower", "seeds", METRIC, "HR@10", "median rank", "p", f"{METRIC}, all users")
    told = "A fifth of the products is hidden from training, which scores nothing against them"
    return [f"{told}; {users} customers.", _table(header, cold_items(cells, "hidden", COLD))]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(folder: Path = HERE) -> None:
    text = page(ranks_of(read_cells(folder / "cells")), files.read_json(folder / "truth.json"))
    files.write_text(folder / "TRUTH.md", text)
    print(text)


if __name__ == "__main__":
    main()
