"""Evaluating a fine-tuned run: its answers beside those of others on the same candidates, kept with the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dualview.evaluation import Part
from featurestore import files, journal
from featurestore.errors import BadInput

if TYPE_CHECKING:
    from featurestore.store import Store
    from recommender.msr.asking import Bench
    from recommender.msr.evaluate import Evaluated
    from recommender.msr.pairs import Groups

MEANING = {
    "AUC": "chance that a taken item scores above one that was never taken, all users' rows together",
    "AUC_user": "the same inside each user's candidates, mean over users",
    "HR@k": "share of users whose item is among the first k candidates",
    "MRR@k": "mean of 1 / rank, 0 beyond k",
    "tied": "users whose item shares its score",
}


@dataclass(frozen=True, eq=False)
class Report:
    """What `evaluate` found, the run's own figures first. compared: the run against each other scorer, user by user."""

    run: str
    which: str
    protocol: str
    asked: Evaluated
    compared: list[dict[str, Any]]
    notes: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "on": self.which,
            "protocol": self.protocol,
            "scorers": self.asked.to_dict(),
            "compared": self.compared,
            **self.notes,
        }

    def tables(self) -> list[Part]:
        found = self.asked.found
        names = list(next(iter(found.values())).metrics)
        rows: list[list[Any]] = [
            [name, *(one.metrics[metric] for metric in names), int((one.tied > 0).sum())]
            for name, one in found.items()
        ]
        told = "; ".join(f"{name}: {text}" for name, text in MEANING.items())
        missing = [f"{name} cannot rank {n:,} candidates" for name, n in self.asked.unscored.items() if n]
        users = f"{len(self.asked.groups):,} users"
        note = "; ".join([self.protocol, *missing, told])
        parts = [Part(f"{self.run} on {self.which}: {users}", ["scorer", *names, "tied"], rows, note)]
        if self.compared:
            against = [
                [row["against"], row["difference"], row["low"], row["high"], row["p_holm"]]
                for row in self.compared
            ]
            parts.append(
                Part(
                    f"{self.compared[0]['metric']} of {self.run} minus that of each other, user by user",
                    ["other", "difference", "from", "to", "p"],
                    against,
                    "from, to: 95 % interval over users; p: paired randomisation test over users, Holm's correction "
                    "over the rows of this table; it speaks of these trained models, not of other seeds",
                )
            )
        return parts


def evaluate(
    store: Store,
    run: str = "latest",
    *,
    on: str = "test",
    beside: Sequence[str] = (),
    zero_shot: bool = True,
    floors: bool = True,
    ks: Sequence[int] = (5,),
    users: int | None = None,
    device: str = "auto",
    told: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Score each user's held-out item among its negatives, those of the run's own pairs, and keep the figures with it.

    on: "test" or "valid". beside: names of other runs, fine-tuned or sequential, asked the same. zero_shot: the model
    without its adapters too. floors: popularity and chance. users: only so many, drawn once. told: called with a
    scorer's name, groups done and groups in all.

    Writes `metrics.json` and, a row a scorer and user, `test_users.parquet` (or `valid_users.parquet`) into the run's
    folder. Raises Conflict where another run learnt from an event that is asked about.
    """
    import pyarrow.parquet as pq

    from recommender.msr.evaluate import MAIN, evaluate_groups
    from recommender.runs import EVALUATED

    begun = time.monotonic()
    bench, groups = _asked(store, run, on, users)
    scorers = bench.scorers(zero_shot=zero_shot, beside=beside, floors=floors, device=device, told=told)
    found = evaluate_groups(groups, scorers, ks)
    name, pairs = bench.run.name, bench.pairs
    notes = {"pairs_hash": pairs.hash, "pairs": pairs.options.model_dump(mode="json")}
    report = Report(name, on, pairs.description, found, found.comparisons(name, [MAIN]), notes)
    with files.replacing(bench.run.folder / f"{on}_users.parquet") as aside:
        pq.write_table(found.to_table(), aside, compression="zstd")
    own, scored = found.to_dict()[name], found.to_dict()
    bench.run.write_metrics(**{EVALUATED[on]: own | {"protocol": pairs.description, "beside": scored}})
    journal.record(
        store.root,
        "msr evaluate",
        run=name,
        on=on,
        users=len(groups),
        metrics=own["metrics"],
        seconds=round(time.monotonic() - begun, 3),
    )
    return report


def plan_evaluation(
    store: Store,
    run: str = "latest",
    *,
    on: str = "test",
    beside: Sequence[str] = (),
    zero_shot: bool = True,
    floors: bool = True,
    users: int | None = None,
) -> dict[str, Any]:
    """What `evaluate` would ask and write; raises as it does, and scores nothing."""
    from recommender.runs import EVALUATED

    bench, groups = _asked(store, run, on, users)
    return {
        "run": bench.run.name,
        "release": bench.run.release,
        "on": on,
        "protocol": bench.pairs.description,
        "users": len(groups),
        "candidates": int(groups.items.size),
        "scorers": list(bench.scorers(zero_shot=zero_shot, beside=beside, floors=floors)),
        "replaces": EVALUATED[on] in bench.run.metrics(),
        "files": [f"runs/{bench.run.name}/{name}" for name in ("metrics.json", f"{on}_users.parquet")],
    }


def _asked(store: Store, run: str, on: str, users: int | None) -> tuple[Bench, Groups]:
    from recommender.msr.asking import Bench, limited, part_of

    part = part_of(on)
    bench = Bench.open(store, run)
    groups = limited(bench.pairs.parts[part], users)
    if not len(groups):
        raise BadInput(
            f"the pairs of run {bench.run.name} have nobody to ask about on {on}",
            remedy="train with more users, or a smaller min_history",
        )
    return bench, groups
