"""That validation chose the epoch, and that the test was opened after training only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from featurestore import files, journal
from recommender import checkpoint
from recommender.audit.base import HOLDS, UNKNOWN, VIOLATED, Check, Material
from recommender.runs import list_runs
from recommender.trainer import Plan

MONITOR = f"valid_{Plan.monitor}"
TOLERANCE = 1e-3  # of a mean over users: another device sums in another order


def checks(given: Material) -> Iterator[Check]:
    yield chosen(given)
    yield validated(given)
    yield opened(given)


def chosen(given: Material) -> Check:
    """The epoch kept is the first with the best validation figure, in history, metrics and checkpoint alike."""
    rows, metrics = given.run.history(), given.run.metrics()
    judged = [row for row in rows if MONITOR in row]
    foreign = sorted({key for row in rows for key in row if key.startswith("test")})
    best = max(judged, key=lambda row: (row[MONITOR], -row["epoch"]), default={})
    evidence = {
        "monitor": MONITOR,
        "epochs": len(rows),
        "validated": len(judged),
        "best_in_history": best.get("epoch"),
        "best_value": best.get(MONITOR),
        "in_metrics": metrics.get("best_epoch"),
        "value_in_metrics": metrics.get("valid", {}).get(Plan.monitor),
        "in_checkpoint": given.best_epoch,
        "test_figures_in_history": foreign,
    }
    named = {evidence[key] for key in ("best_in_history", "in_metrics", "in_checkpoint")}
    good = bool(judged) and len(named) == 1 and evidence["value_in_metrics"] == evidence["best_value"]
    good = good and not foreign
    if foreign:
        because = f"training looked at {', '.join(foreign)}"
    elif good:
        because = f"epoch {given.best_epoch} is the first with the best validation figure, everywhere"
    else:
        because = "history, metrics and checkpoint do not agree on the epoch of the best validation figure"
    return Check("epoch", HOLDS if good else VIOLATED, because, evidence)


def validated(given: Material) -> Check:
    """The kept weights, asked again for the validation targets, give the figure that chose them."""
    from recommender.fit import validation

    name = "validation figure"
    recorded = next((r.get(MONITOR) for r in given.run.history() if r["epoch"] == given.best_epoch), None)
    if not given.same_items or given.run.split_hash != given.split.hash:
        return Check(name, UNKNOWN, "the release gives other events than the run learnt under", {})
    found = validation(given.model, given.split, given.config)[Plan.monitor]
    evidence = {
        "users": len(given.split.users("valid")),
        "recorded": recorded,
        "recomputed": found,
        "tolerance": TOLERANCE,
    }
    good = recorded is not None and abs(found - recorded) <= TOLERANCE
    because = (
        "the kept weights give the recorded figure again" if good else "the kept weights give another figure"
    )
    return Check(name, HOLDS if good else VIOLATED, because, evidence)


def opened(given: Material) -> Check:
    """The journal's order of training and test evaluations; how often the test of this split was opened at all."""
    if given.cell is not None:
        return _opened_for_a_cell(given, given.cell)
    root, run = given.release.root, given.run
    entries = list(enumerate(journal.read(root)))
    trained = [(at, e) for at, e in entries if e["verb"] == "train" and e.get("run") == run.name]
    tests = [(at, e) for at, e in entries if e["verb"] == "evaluate" and e.get("on") == "test"]
    own = [(at, e) for at, e in tests if e.get("run") == run.name]
    others = {r.name for r in list_runs(root) if r.split_hash == run.split_hash}
    kept = run.metrics().get("test")
    evidence: dict[str, Any] = {
        "times_for_this_run": len(own),
        "times_for_runs_of_this_split": sum(e.get("run") in others for _, e in tests),
        "first_opened": own[0][1]["at"] if own else None,
        "last_training": trained[-1][1]["at"] if trained else None,
        "figures_kept": kept is not None,
    }
    name = "test"
    if kept is None and not own:
        return Check(name, HOLDS, "it was never opened for this run", evidence)
    if kept is not None and kept.get("split_hash") != run.split_hash:
        evidence["split_of_the_figures"] = kept.get("split_hash")
        return Check(name, VIOLATED, "the kept test figures are of another split", evidence)
    if not own or not trained:
        because = "the journal here does not tell when it was trained and when the test was opened"
        return Check(name, UNKNOWN, because, evidence)
    before = max((e.get("epochs", 0) for at, e in trained if at < own[0][0]), default=0)
    evidence["epochs_learnt_afterwards"] = max(0, trained[-1][1].get("epochs", 0) - before)
    if evidence["epochs_learnt_afterwards"]:
        return Check(name, VIOLATED, "it was opened, and training went on afterwards", evidence)
    often = "once" if len(own) == 1 else f"{len(own)} times"
    return Check(name, HOLDS, f"opened {often}, after training had ended", evidence)


def _opened_for_a_cell(given: Material, cell: Mapping[str, Any]) -> Check:
    """A study keeps no journal: its record names the weights that were tested, and records that it replaced."""
    name, now = "test", files.sha256_file(given.run.folder / "checkpoint" / checkpoint.BEST)
    test = cell["test"]
    evidence = {
        "opened": test and test["opened"],
        "weights_tested": cell["checkpoint_sha256"],
        "weights_now": now,
        "opened_for_earlier_options": sum(bool(one["tested"]) for one in cell["earlier"]),
    }
    if now != cell["checkpoint_sha256"]:
        return Check(name, VIOLATED, "the weights are not those that the record tells of", evidence)
    if test is None:
        return Check(name, HOLDS, "it was never opened for this cell", evidence)
    return Check(name, HOLDS, "opened once, by the weights that are kept: training had ended", evidence)
