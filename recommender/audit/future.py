"""A proof by change: events that a model must not see are replaced by others, and nothing that it says may move."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from recommender.audit.base import HOLDS, UNKNOWN, VIOLATED, Check, Material
from recommender.events import Int32, Int64
from recommender.sequences import pack
from recommender.splits import Which

USERS = 32  # whose histories are changed
SAME = 1e-5  # relative: so far two sums of the same numbers may differ


def checks(given: Material) -> Iterator[Check]:
    if not given.same_items or given.split.log.n_items < 2:
        because = "the run's items are not those of the split, or too few, so no history can be changed"
        yield Check("answers", UNKNOWN, because, {"items": given.split.log.n_items})
        return
    windows: tuple[Which, Which] = ("valid", "test")
    for which in windows:
        if len(given.split.users(which)):
            yield answers(given, which)
    yield places(given)


def answers(given: Material, which: Which) -> Check:
    """What users are answered with before their target does not change with the target or anything after it."""
    name = f"answers before {which}"
    users = _some(given, which)
    model, items = given.model, given.split.log.items
    target = given.split.rows(which)[users]
    after = _changed(given, users, target)
    first, end = given.split.history(users, which)  # what is read, wherever an answer is made
    before = model.user_vectors(items, first, end)
    moved = np.abs(model.user_vectors(after, first, end) - before).max()
    # the same with the target read, so that a change that is read is seen to show
    first, end = given.split.log.offsets[users], target + 1
    control = np.abs(model.user_vectors(after, first, end) - model.user_vectors(items, first, end))
    evidence = {
        "users": len(users),
        "events_replaced": int((after != items).sum()),
        "largest_change": float(moved),
        "largest_change_where_the_target_is_read": float(control.max()),
    }
    if not control.max():
        return Check(name, UNKNOWN, "the answers are the same whatever is read", evidence)
    good = float(moved) <= SAME * max(float(np.abs(before).max()), 1.0)
    because = (
        "targets and all that follows were replaced: no answer moved"
        if good
        else "answers move with what is held out"
    )
    return Check(name, HOLDS if good else VIOLATED, because, evidence)


@torch.no_grad()
def places(given: Material) -> Check:
    """What the model says at each event of a whole history: with the later half replaced, the earlier half stays.

    It must, in a model that learns the next item at every event. One that sees both sides learns hidden events of its
    training part; that part is all it reads there (see "training batches"), so it is told and not judged.
    """
    users = _some(given, "valid")
    log, model = given.split.log, given.model
    start, end = log.offsets[users], log.offsets[users + 1]
    causal = given.config.backbone != "bert4rec" and given.config.causal
    name = "places before a change"
    reads = model.backbone.reads
    first = np.maximum(start, end - reads)
    middle = (first + end + 1) // 2
    changed = _changed(given, users, middle)
    sides = [model(pack(items, start, end, reads))[0] for items in (log.items, changed)]
    moved = (sides[1] - sides[0]).abs().amax(dim=-1)
    lengths = end - first
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    earlier = torch.from_numpy(within < np.repeat(middle - first, lengths))
    evidence = {
        "users": len(users),
        "earlier_places": int(earlier.sum()),
        "largest_change_earlier": float(moved[earlier].max()),
        "largest_change_later": float(moved[~earlier].max()) if bool((~earlier).any()) else None,
    }
    if not evidence["largest_change_later"]:
        return Check(name, UNKNOWN, "no place feels its own event", evidence)
    still = float(moved[earlier].max()) <= SAME * max(float(sides[0].abs().max()), 1.0)
    if still:
        return Check(name, HOLDS, "later events were replaced: no earlier place moved", evidence)
    if causal:
        return Check(name, VIOLATED, "earlier places move with later events", evidence)
    because = (
        "it sees both sides by design; in training both sides are training events, in answers the past alone"
    )
    return Check(name, HOLDS, because, evidence)


def _some(given: Material, which: Which) -> Int64:
    """At most USERS of those with a target, spread over all."""
    users = given.split.users(which)
    at = np.linspace(0, len(users) - 1, min(USERS, len(users))).round().astype(np.int64)
    return users[at]


def _changed(given: Material, users: Int64, since: Int64) -> Int32:
    """The log's items, those of each user from row `since` on replaced by others."""
    log = given.split.log
    items = log.items.copy()
    random = np.random.default_rng(0)
    for user, row in zip(users, since, strict=True):
        rows = slice(int(row), int(log.offsets[user + 1]))
        steps = random.integers(1, log.n_items, rows.stop - rows.start)
        items[rows] = (items[rows] + steps) % log.n_items
    return items
