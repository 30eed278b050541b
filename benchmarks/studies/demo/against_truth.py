"""The towers of this study against each other, on known and on new products; and what exchanged pictures or words cost
them, beside what the truth says.

python -m benchmarks.studies.demo.against_truth     writes TRUTH.md beside this, from cells/, among/ and truth.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from benchmarks.studies.demo.among import AMONG
from benchmarks.studies.demo.build import HERE
from featurestore import files
from recommender.compare import Comparison, holm, over_seeds, paired, per_user
from recommender.study.arms import read_cells, read_ranks
from recommender.study.printed import number, probability, share

METRIC = "NDCG@10"
ALL, NEW, APART = "all customers", "new products, in the whole shop", "new products, among themselves"
BASELINE = -1  # the seed of what has none
Ints = npt.NDArray[np.int32]
Ranked = Mapping[
    str, Mapping[str, Mapping[int, Ints]]
]  # question -> tower or baseline -> seed -> ranks of its users
# what is exchanged -> what is then known, by truth.json
EXCHANGED = {"shuffled-image": ("pictures", "theme"), "shuffled-text": ("words", "style")}
LABELS = {"no-style": ("style", "theme"), "no-theme": ("theme", "style")}
TOWERS = (
    "id",
    "text",
    "image",
    "sum",
    "dmesr",
    "dmesr-ids",
    "dmesr-half-ids",
    "item_knn",
    "popularity",
    "chance",
)


def ranked(folder: Path) -> Ranked:
    """The ranks of every cell whose test is open, by what is asked."""
    found: dict[str, dict[str, dict[int, Ints]]] = {ALL: {}, NEW: {}, APART: {}}

    def put(question: str, cell: Mapping[str, Any], ranks: Ints) -> None:
        seed = BASELINE if cell["baseline"] else int(cell["seed"])
        found[question].setdefault(cell["tower"] or cell["baseline"], {})[seed] = ranks

    for cell in read_cells(folder / "cells"):
        if cell["test"] is None or not cell["ranks"]:
            continue
        held = read_ranks(cell["ranks"])
        assert held.test is not None
        if cell["data"] == "shop":
            put(ALL, cell, held.test[held.test > 0])
        else:
            put(NEW, cell, held.test[(held.test > 0) & (held.target_count == 0)])
            apart = folder / AMONG.name / f"{cell['cell']}.ranks.parquet"
            if apart.exists():
                put(APART, cell, pq.read_table(apart)["rank"].to_numpy())
    return found


def values(ranks: Sequence[Ints], metric: str = METRIC) -> npt.NDArray[np.float64]:
    """(users,) mean over seeds."""
    return over_seeds([per_user(one, metric) for one in ranks])


def against(found: Ranked, question: str, tower: str, other: str) -> tuple[int, Comparison] | None:
    """A tower against another, over the seeds that both have, and how many; None where there are none."""
    one, two = found[question].get(tower, {}), found[question].get(other, {})
    if BASELINE in two:
        two = dict.fromkeys(one, two[BASELINE])
    seeds = sorted(one.keys() & two.keys())
    if not seeds:
        return None
    return len(seeds), paired(values([one[s] for s in seeds]), values([two[s] for s in seeds]))


# ---- tables


def losses(found: Ranked, truth: Mapping[str, Any]) -> list[list[str]]:
    asked = [
        (question, base, name, what, truth[attainable][known]["NDCG lost"])
        for question, attainable in ((ALL, "attainable"), (APART, "attainable among hidden"))
        for base, taken in (("dmesr", EXCHANGED), ("labels", LABELS))
        for name, (what, known) in taken.items()
    ]
    rows = [(one, against(found, one[0], f"{one[1]}-{one[2]}", one[1])) for one in asked]
    there = [(one, made) for one, made in rows if made is not None]
    adjusted = holm([made.p for _, (_, made) in there])
    return [
        [
            question,
            base,
            what,
            str(seeds),
            number(made.reference),
            number(made.mean),
            f"{share(made.gain)} ({share(made.gain_low)} to {share(made.gain_high)})",
            share(-lost),
            probability(p),
        ]
        for ((question, base, _, what, lost), (seeds, made)), p in zip(there, adjusted, strict=True)
    ]


def beside(found: Ranked, question: str, reference: str) -> list[list[str]]:
    """DMESR and the other towers on one question: figures, and what DMESR gains over each."""
    towers = [tower for tower in TOWERS if tower in found[question]]
    made = {tower: against(found, question, reference, tower) for tower in towers if tower != reference}
    there = {tower: one for tower, one in made.items() if one is not None}
    adjusted = dict(zip(there, holm([one.p for _, one in there.values()]), strict=True))
    rows = []
    for tower in towers:
        ranks = list(found[question][tower].values())
        means = [float(per_user(one, METRIC).mean()) for one in ranks]
        spread = f" ± {np.std(means, ddof=1):.4f}".replace("0.", ".") if len(means) > 1 else ""
        gain = "–"
        if tower in there and there[tower][1].reference > 0:
            one = there[tower][1]
            gain = f"{share(one.gain)} ({share(one.gain_low)} to {share(one.gain_high)})"
        rows.append(
            [
                tower,
                str(len(ranks)) if BASELINE not in found[question][tower] else "–",
                f"{number(float(np.mean(means)))}{spread}",
                number(float(values(ranks, "HR@10").mean())),
                f"{np.median([np.median(one) for one in ranks]):.0f}",
                gain,
                probability(adjusted[tower]) if tower in adjusted else "–",
            ]
        )
    return rows


def page(found: Ranked, truth: Mapping[str, Any]) -> str:
    whole, hidden = truth["attainable"], truth["attainable among hidden"]
    attainable = [
        [name, number(whole[name]["NDCG"]), share(-whole[name]["NDCG lost"]),
         number(hidden[name]["NDCG"]), share(-hidden[name]["NDCG lost"])]
        for name in sorted(whole, key=lambda name: -whole[name]["NDCG"])
    ]  # fmt: skip
    figures = ("tower", "seeds", METRIC, "HR@10", "median rank", "gain of dmesr", "p")
    parts = [
        "# Against the truth",
        "Test, each customer's last event. A fifth of the products is hidden from training in `hidden`; "
        f"{truth['customers of hidden']:,} customers took one last. In brackets 95 % bootstrap intervals over users. "
        "p: paired randomisation over users, Holm over the rows of a table.",
        "## What is attainable",
        f"{METRIC} of rankings by the probabilities that the log was drawn from, which know every customer's tastes. "
        "What is not known of the products is style, theme or both; category and appeal always are.",
        _table(("known", ALL, "against both", APART, "against both"), attainable),
    ]
    for question in (ALL, NEW, APART):
        if "dmesr" in found[question]:
            parts += [f"## {question.capitalize()}", _table(figures, beside(found, question, "dmesr"))]
    parts += [
        "## What exchanged pictures and words cost",
        "`labels` reads the true labels instead of pictures and words, all or all but one: what can be lost by a model "
        "that has to learn customers' tastes from the log, while the truth's rankings know them.",
        _table(
            (
                "asked",
                "tower",
                "taken away",
                "seeds",
                "whole",
                "without",
                "cost",
                "where tastes are known",
                "p",
            ),
            losses(found, truth),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(folder: Path = HERE) -> None:
    text = page(ranked(folder), files.read_json(folder / "truth.json"))
    files.write_text(folder / "TRUTH.md", text)
    print(text)


if __name__ == "__main__":
    main()
