"""What was held out, and whether anything counted or read in training was: split, counts, vocabulary, batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from featurestore.recipe import SHORT
from recommender.audit.base import HOLDS, UNKNOWN, VIOLATED, Check, Material, differs, hedged
from recommender.distill import similar_users, user_means
from recommender.events import Bool, EventLog, Int64
from recommender.sequences import Ints, TrainingBatches
from recommender.splits import Split, Which

WINDOWS: tuple[Which, Which] = ("valid", "test")


def checks(given: Material) -> Iterator[Check]:
    yield split(given)
    yield disjoint(given)
    yield order(given)
    if given.split.name == "global-time":
        yield cut(given)
    yield counts(given)
    yield vocabulary(given)
    if len(given.split.hidden):
        yield hidden(given)
    yield batches(given)
    if given.config.tower == "llm-esr" and given.config.distill_weight:
        yield teachers(given)


def split(given: Material) -> Check:
    """The release's log and the run's configuration give the split that the run says it learnt under."""
    then, now = given.run.split_hash, given.split.hash
    numbers = given.split.numbers()
    evidence = {
        "recorded": then,
        "recomputed": now,
        "events": numbers["events"],
        "train_events": numbers["train_events"],
        "held_out_events": numbers["events"] - numbers["train_events"],
        "valid_targets": numbers["valid_users"],
        "test_targets": numbers["test_users"],
    }
    if then == now:
        return Check(
            "split", HOLDS, f"recomputed from the log, it has the run's hash {now[:SHORT]}", evidence
        )
    because = f"the release's log gives split {now[:SHORT]}, the run names {then[:SHORT]}"
    return Check("split", differs(given.forgotten), hedged(because, given.forgotten), evidence)


def disjoint(given: Material) -> Check:
    """No event is two of: learnt from, asked for in validation, asked for in test."""
    cut = given.split
    training = np.flatnonzero(cut.in_training)
    valid, test = (cut.rows(which)[cut.users(which)] for which in WINDOWS)
    shared = {
        "training_and_valid": len(np.intersect1d(training, valid)),
        "training_and_test": len(np.intersect1d(training, test)),
        "valid_and_test": len(np.intersect1d(valid, test)),
    }
    sizes = {"training": len(training), "valid": len(valid), "test": len(test)}
    bad = sum(shared.values())
    because = f"{bad:,} events stand in two parts" if bad else "no event stands in two parts"
    return Check("parts are disjoint", VIOLATED if bad else HOLDS, because, {"shared": shared} | sizes)


def order(given: Material) -> Check:
    """Every target comes after all that its user is known by, in the log's order and by its clock."""
    cut, bad = given.split, 0
    evidence: dict[str, Any] = {}
    for which in WINDOWS:
        users = cut.users(which)
        first, row = cut.log.offsets[users], cut.rows(which)[users]
        early = int((row <= first).sum() + (row < cut.train_end[users]).sum())
        if cut.log.times is not None:
            early += int((cut.log.times[row] < _latest(cut.log, first, row)).sum())
        evidence[which] = {"targets": len(users), "not_later": early, "tied": len(cut.tied(which))}
        bad += early
    because = (
        f"{bad:,} targets are not later than their history"
        if bad
        else "every target is later than its history; of tied ones the input order says so"
    )
    return Check("targets come last", VIOLATED if bad else HOLDS, because, evidence)


def _latest(log: EventLog, first: Int64, end: Int64) -> Int64:
    """The latest time in each of the ranges [first, end) of events, none of them empty."""
    assert log.times is not None
    edges = np.stack([first, end], axis=1).ravel()
    latest: Int64 = np.maximum.reduceat(log.times, edges)[::2]
    return latest


def cut(given: Material) -> Check:
    """One clock for all users: nothing that was learnt happened at or after the first moment of validation."""
    whole, times = given.split, given.split.log.times
    assert times is not None  # or there is no such split
    targets = np.concatenate([whole.rows(which)[whole.users(which)] for which in WINDOWS])
    late_events = np.concatenate([times[~whole.in_training], times[targets]])
    last, first = int(times[whole.in_training].max()), int(late_events.min()) if len(late_events) else None
    late = int((times[whole.in_training] >= first).sum()) if first is not None else 0
    return Check(
        "cut in time",
        VIOLATED if late else HOLDS,
        f"{late:,} training events are not before the cut"
        if late
        else "every training event is before every other",
        {"last_training_time": last, "first_time_after": first, "training_events_after_cut": late},
    )


def counts(given: Material) -> Check:
    """Popularity, cold and head items, gates and weighted negatives all rest on counts.npy: training events alone."""
    cut, kept = given.split, given.run.counts
    training = np.bincount(cut.log.items[cut.in_training], minlength=cut.log.n_items)
    whole = np.bincount(cut.log.items, minlength=cut.log.n_items)
    evidence: dict[str, Any] = {
        "recorded_sum": int(kept.sum()),
        "training_sum": int(training.sum()),
        "all_events_sum": int(whole.sum()),
        "items_whose_count_would_differ": int((training != whole).sum()),
    }
    same = np.array_equal(kept, training)
    evidence["items_that_differ"] = int((kept != training).sum()) if len(kept) == len(training) else None
    inside = {}
    for name, tensor in given.weights.items():
        if name.endswith("counts") and tensor.shape == training.shape:
            inside[name] = bool(np.array_equal(tensor.numpy(), training.astype(np.float32)))
    if inside:
        evidence["counts_in_the_weights_are_these"] = inside
    same = same and all(inside.values())
    because = (
        "they are those of the training events and of no other"
        if same
        else "they are not the training events'"
    )
    verdict = HOLDS if same else differs(given.forgotten)
    return Check("training counts", verdict, because if same else hedged(because, given.forgotten), evidence)


def vocabulary(given: Material) -> Check:
    """Ids of items whose events are all held out have a row too; that an id exists is all that is known of them."""
    cut = given.split
    training = np.bincount(cut.log.items[cut.in_training], minlength=cut.log.n_items)
    cold = int((training == 0).sum())
    evidence = {"items": len(given.run.item_ids), "in_no_training_event": cold}
    if not given.same_items:
        because = "the run's item ids are not those of the split"
        return Check("vocabulary", differs(given.forgotten), hedged(because, given.forgotten), evidence)
    because = (
        f"{cold:,} of its items have held-out events only: they are cold, known by id and content, never by an event"
        if cold
        else "every item has a training event"
    )
    return Check("vocabulary", HOLDS, because, evidence)


def hidden(given: Material) -> Check:
    """Items that were to be new: none of their events is learnt from, chose the epoch or stands in a history."""
    cut = given.split
    of_hidden = cut.is_hidden[cut.log.items]
    targets = np.zeros(len(cut.log), dtype=np.bool_)
    targets[cut.test[cut.users("test")]] = True
    known = np.arange(len(cut.log)) < np.maximum(cut.valid, cut.test)[cut.log.users]
    shared = {
        "recorded_training_events": int(given.run.counts[cut.hidden].sum()) if given.same_items else None,
        "training_events": int((of_hidden & cut.in_training).sum()),
        "valid_targets": int(cut.is_hidden[cut.targets("valid")].sum()),
        "events_in_histories": int((of_hidden & known).sum()),
    }
    evidence = {"items": len(cut.hidden), "test_targets": int((of_hidden & targets).sum())} | shared
    bad = any(shared.values())
    because = (
        "a hidden item is in training, validation or a history"
        if bad
        else "test alone asks for them; training, validation and all histories are of other items"
    )
    return Check("hidden items", VIOLATED if bad else HOLDS, because, evidence)


def batches(given: Material) -> Check:
    """The batches of the best epoch are made again: no user's held-out event is read."""
    cut, epoch = given.split, max(given.best_epoch, 1)
    made = TrainingBatches(
        cut,
        length=given.model.backbone.reads,
        batch=given.config.batch,
        seed=given.config.seed,
        windows=given.config.windows,
    )
    read = []
    for batch in made.epoch(epoch):
        whole = batch.whole
        read.append(_pairs(cut, np.repeat(batch.users, whole.lengths), whole.items.numpy()))
    pairs, times = np.unique(np.concatenate(read), return_counts=True)
    allowed = _times(cut, pairs, cut.in_training)
    beyond = int(np.maximum(times - allowed, 0).sum())
    evidence = {
        "epoch": epoch,
        "events_read": int(times.sum()),
        "training_events": int(cut.in_training.sum()),
        "read_beyond_training": beyond,
        "users_without_two_training_events": made.left_out,
    }
    because = (
        f"{beyond:,} events were read that are not training events"
        if beyond
        else "user by user, every event read is a training event"
    )
    return Check("training batches", VIOLATED if beyond else HOLDS, because, evidence)


def teachers(given: Material) -> Check:
    """Which users teach which is found again with every held-out event replaced by another: the same ones."""
    cut, config = given.split, given.config
    log, name = cut.log, "similar users"
    if not given.same_items or log.n_items < 2:
        return Check(name, UNKNOWN, "the run's items are not those of the split", {"items": log.n_items})
    steps = np.random.default_rng(0).integers(1, log.n_items, len(log))
    others = np.where(cut.in_training, log.items, (log.items + steps) % log.n_items).astype(np.int32)
    changed = replace(cut, log=replace(log, items=others))
    found, again = (
        similar_users(user_means(each, given.vectors, config.features), config.distill_users)
        for each in (cut, changed)
    )
    moved = int((found != again).any(axis=1).sum())
    evidence = {"users": log.n_users, "events_replaced": int((~cut.in_training).sum()), "users_moved": moved}
    because = (
        f"{moved:,} users are taught by others once held-out events are replaced"
        if moved
        else "held-out events were replaced: every user keeps the same teachers"
    )
    return Check(name, VIOLATED if moved else HOLDS, because, evidence)


def _pairs(split: Split, users: Ints, items: Ints) -> Int64:
    return users.astype(np.int64) * split.log.n_items + items


def _times(split: Split, pairs: Int64, rows: Bool) -> Int64:
    """How often each of the pairs (sorted) of user and item stands in these events."""
    known = _pairs(split, split.log.users[rows], split.log.items[rows])
    known.sort()
    found: Int64 = np.searchsorted(known, pairs, side="right") - np.searchsorted(known, pairs, side="left")
    return found
