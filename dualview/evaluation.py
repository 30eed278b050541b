"""Evaluating a run: full-catalogue ranking with floors beside it, kept with the run, shown as tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from featurestore import journal
from featurestore.errors import BadInput, Conflict

if TYPE_CHECKING:
    from featurestore.carried import Carried
    from featurestore.store import Store
    from recommender.cold import NewItems
    from recommender.evaluate import Result, ScoreFn
    from recommender.runs import Run
    from recommender.splits import Split

MEANING = {
    "HR": "share of users whose held-out item is among the first k",
    "NDCG": "the same, but a place near the top counts more: 1 / log2(1 + rank)",
    "MRR": "mean of 1 / rank, 0 beyond k",
    "AUC": "chance that the held-out item is ranked above another candidate",
    "coverage": "share of the catalogue that stands in at least one user's first k",
    "novelty": "mean surprise of what is shown, in bits: high means seldom taken in training",
}
GROUPS = {
    "items:head": "the fifth of the items with most training events",
    "items:tail": "the others that training saw",
    "items:cold": "items that training never saw",
}


@dataclass(frozen=True)
class Part:
    """One table of a report."""

    title: str
    columns: list[str]
    rows: list[list[Any]]
    note: str


@dataclass(frozen=True)
class Report:
    """What `evaluate` found: `full` and, where asked for, `sampled` results by name, the run's own first.

    new: of the users whose test item was hidden from training; None where the run's split hid none.
    """

    run: str
    which: str
    full: dict[str, Result]
    sampled: dict[str, Result] = field(default_factory=dict)
    new: NewItems | None = None

    @property
    def result(self) -> Result:
        """The run's own full ranking."""
        return self.full[self.run]

    def to_dict(self) -> dict[str, Any]:
        own = self.result.to_dict()
        return {
            "run": self.run,
            "on": self.which,
            "overall": own["metrics"],
            "full": {name: result.to_dict() for name, result in self.full.items()},
            "sampled": {name: result.to_dict() for name, result in self.sampled.items()},
        } | ({"new_items": self.new.to_dict()} if self.new else {})

    def tables(self) -> list[Part]:
        parts = [self._overall(self.full, f"{self.run} on {self.which}: {len(self.result.users):,} users")]
        parts.append(self._groups())
        if self.sampled:
            parts.append(self._overall(self.sampled, "Sampled candidates: another, easier question"))
        if self.new:
            parts.append(self._new_items(self.new))
        return parts

    def _new_items(self, new: NewItems) -> Part:
        ks = [name for name in next(iter(new.full.values())).metrics if name.startswith(("HR@", "NDCG@"))]
        shown = [name for name in ks if name.endswith("@10")] or ks[:2]
        rows = [
            [name, *(of[name].metrics[figure] for of in (new.full, new.among) for figure in shown)]
            for name in new.full
        ]
        first = next(iter(new.full))
        return Part(
            f"New items: {new.users:,} users whose item is one of {new.hidden_items:,} hidden from training",
            ["scorer", *(f"{figure} {of}" for of in ("full", "among hidden") for figure in shown)],
            rows,
            f"full: {new.full[first].protocol}. among hidden: {new.among[first].protocol}",
        )

    def _overall(self, results: dict[str, Result], title: str) -> Part:
        names = list(next(iter(results.values())).metrics)
        rows = [[name, *[result.metrics.get(name) for result in results.values()]] for name in names]
        kinds = list(dict.fromkeys(name.split("@")[0] for name in names))
        told = "; ".join(f"{kind}: {MEANING[kind]}" for kind in kinds if kind in MEANING)
        return Part(title, ["metric", *results], rows, f"{next(iter(results.values())).protocol}. {told}")

    def _groups(self) -> Part:
        groups = self.result.groups
        names = [name for name in next(iter(groups.values())) if name != "users"]
        shown = [name for name in names if name.endswith("@10")] or names[:3]
        rows = [
            [group, int(values["users"]), *[values[name] if values["users"] else None for name in shown]]
            for group, values in groups.items()
        ]
        told = "; ".join(f"{name}: {text}" for name, text in GROUPS.items())
        return Part("By kind of held-out item and of user", ["group", "users", *shown], rows, told)


def evaluate(
    store: Store | Carried,
    run: str = "latest",
    *,
    on: str = "test",
    ks: Sequence[int] = (5, 10, 20),
    negatives: int | None = None,
    seed: int = 0,
    repeat: str | None = None,
    baseline: bool = True,
    device: str = "auto",
) -> Report:
    """Rank the whole catalogue for every user of a run's held-out events, and keep the figures with the run.

    on: "test" or "valid". ks: cut-offs. negatives: also rank among so many sampled items (from `seed`), reported
    apart. repeat: "mask" takes the items a user had before out of the ranking, "allow" leaves them in; by default as in
    training. baseline: popularity on the same users beside it.

    Where the run's split hid items (`hide_items`), test also says how those are recommended, with chance and
    neighbours by content beside it.

    Writes `metrics.json` and, one row a user, `test_users.parquet` (or `valid_users.parquet`) into the run's folder.
    Raises Conflict where the release no longer gives the events that the run was trained on.
    """
    from recommender.baselines import popularity
    from recommender.cold import evaluate_new, users_of
    from recommender.evaluate import evaluate as rank
    from recommender.evaluate import sampled, scores_of
    from recommender.fit import pick_device
    from recommender.negatives import draw_negatives

    begun = time.monotonic()
    opened, split, which = _asked(store, run, on, repeat)
    policy = cast(Literal["mask", "allow"], repeat or opened.config.repeat)
    model = opened.load_model(device=str(pick_device(device)))
    full = {opened.name: rank(scores_of(model, split, which), split, which, ks, repeat=policy)}
    among: dict[str, Result] = {}
    if baseline:
        full["popularity"] = rank(popularity(split), split, which, ks, repeat=policy)
    if negatives is not None:
        drawn = draw_negatives(split, which, negatives, seed)
        among[opened.name] = sampled(scores_of(model, split, which), split, drawn, ks)
        if baseline:
            among["popularity"] = sampled(popularity(split), split, drawn, ks)
    new = None
    if which == "test" and len(users_of(split)):
        beside = _floors(store, opened, split) if baseline else {}
        new = evaluate_new({opened.name: scores_of(model, split, which)} | beside, split, ks, repeat=policy)
    report = Report(opened.name, on, full, among, new)
    opened.write_evaluation(which, report.result, split)
    kept: dict[str, Any] = {}
    if among:
        kept[f"{on}_sampled"] = among[opened.name].to_dict()
    if new:
        own = {
            part: found[opened.name].to_dict() for part, found in (("full", new.full), ("among", new.among))
        }
        kept[f"{on}_new_items"] = own
    if kept:
        opened.write_metrics(**kept)
    journal.record(
        store.root,
        "evaluate",
        run=opened.name,
        on=on,
        users=len(report.result.users),
        metrics=report.result.to_dict()["metrics"],
        seconds=round(time.monotonic() - begun, 3),
    )
    return report


def plan_evaluation(
    store: Store | Carried, run: str = "latest", *, on: str = "test", repeat: str | None = None
) -> dict[str, Any]:
    """What `evaluate` would rank and which files of the run it would write; raises as it does, and ranks nothing."""
    from recommender.runs import EVALUATED

    opened, split, which = _asked(store, run, on, repeat)
    return {
        "run": opened.name,
        "release": opened.release,
        "on": on,
        "split": split.description,
        "users": len(split.users(which)),
        "items": split.log.n_items,
        "replaces": EVALUATED[on] in opened.metrics(),
        "files": [f"runs/{opened.name}/{name}" for name in ("metrics.json", f"{on}_users.parquet")],
    }


def _floors(store: Store | Carried, run: Run, split: Split) -> dict[str, ScoreFn]:
    """What the run has to beat on new items."""
    from recommender import data
    from recommender.cold import floors

    release = store.release(run.release or "latest")
    return floors(split, data.features_of(release, run.config, split.log.item_ids))


def _asked(
    store: Store | Carried, run: str, on: str, repeat: str | None
) -> tuple[Run, Split, Literal["test", "valid"]]:
    """The run, the events it is asked about, and which of them. Raises BadInput, NotFound, Conflict."""
    from recommender import data
    from recommender.runs import open_run

    if on not in ("test", "valid"):
        raise BadInput(f"on is test or valid, not '{on}'")
    if repeat not in (None, "mask", "allow"):
        raise BadInput(f"repeat is mask or allow, not '{repeat}'")
    opened = open_run(store.root, run)
    split = data.split_of(store.release(opened.release or "latest"), opened.config)
    if split.hash != opened.split_hash:
        raise Conflict(
            f"run {opened.name} was trained on other events than its release gives",
            remedy="train again: dualview train",
        )
    return opened, split, cast(Literal["test", "valid"], on)
