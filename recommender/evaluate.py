"""How good is a scorer: each user's held-out target is ranked against the whole catalogue.

Items that the user had before the target are out of the ranking; the target never is. Where people take the
same item again that mask is wrong, and `repeat="allow"` leaves every item in; the result names the policy.
Users are scored in batches whose size follows from a memory budget, shortest histories first, so that a
sequence model pads little.

Ranking among a few sampled items (`sampled`) is another, easier question with larger figures. It is here
because papers report it, and its result carries its own name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.errors import BadInput
from recommender import metrics
from recommender.events import Bool, Int64
from recommender.negatives import Negatives
from recommender.ranking import as_scores, ranges, target_ranks, top_k
from recommender.splits import Split, Which

ScoreFn = Callable[[Int64], Any]
"""`score_fn(users)`: users (b,) int64 rows of the log's vocabulary -> (b, n_items) float32, higher is better.
It must know by itself which history counts; for a model that is the events before the target that is asked
for."""

Repeat = Literal["mask", "allow"]


class Answers(Protocol):
    """What is asked of a trained model: vectors whose dot product is the score, of items that it can rank."""

    @property
    def ranked(self) -> Bool | None: ...

    def item_vectors(self) -> npt.NDArray[np.float32]: ...

    def user_vectors(self, values: Any, starts: Int64, ends: Int64) -> npt.NDArray[np.float32]: ...


HEAD_SHARE = 0.2
BYTES_A_SCORE = 16  # a float32 of the scorer, our copy, its negative, and comparisons


@dataclass(frozen=True, eq=False)
class Result:
    """What an evaluation found, and the protocol that gives it meaning.

    metrics: means over users. groups: name -> {"users": n, metrics}. Per-user arrays, all of one length and
    in the order of `users`: users, targets (rows of the vocabularies), ranks (1-based) and candidates (items
    ranked).
    tied_times: targets that hang on a tied time. tied_scores: targets that share their score with another
    candidate.
    repeat_targets: targets that the user had taken before.
    """

    split: str
    split_hash: str
    which: Which
    protocol: str
    metrics: dict[str, float]
    groups: dict[str, dict[str, float]]
    users: Int64
    targets: Int64
    ranks: Int64
    candidates: Int64
    n_items: int
    tied_times: int
    tied_scores: int
    repeat_targets: int
    seconds: float
    seconds_scoring: float
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All but the per-user arrays, ready for JSON (a metric that is undefined becomes None)."""
        return {
            "split": self.split,
            "split_hash": self.split_hash,
            "which": self.which,
            "protocol": self.protocol,
            "users": len(self.users),
            "items": self.n_items,
            "metrics": _finite(self.metrics),
            "groups": {name: _finite(values) for name, values in self.groups.items()},
            "tied_times": self.tied_times,
            "tied_scores": self.tied_scores,
            "repeat_targets": self.repeat_targets,
            "seconds": round(self.seconds, 3),
            "seconds_scoring": round(self.seconds_scoring, 3),
            **self.extra,
        }

    def to_table(self, split: Split) -> pa.Table:
        """One row a user: user_id, item_id of the target, rank, candidates. `split` must be the one
        evaluated."""
        if split.hash != self.split_hash:
            raise BadInput(
                "this result was made on another split", remedy="pass the split that was evaluated"
            )
        return pa.table(
            {
                "user_id": pa.array(split.log.user_ids[self.users]),
                "item_id": pa.array(split.log.item_ids[self.targets]),
                "rank": pa.array(self.ranks, pa.int64()),
                "candidates": pa.array(self.candidates, pa.int64()),
            }
        )


def evaluate(
    score_fn: ScoreFn,
    split: Split,
    which: Which = "valid",
    ks: Sequence[int] = (5, 10, 20),
    *,
    repeat: Repeat = "mask",
    users: Int64 | None = None,
    among: Bool | None = None,
    lists: bool = True,
    head_share: float = HEAD_SHARE,
    memory_mb: float = 32,
) -> Result:
    """Rank each user's target against all items of the log's vocabulary.

    users: only these (they must have a target); all that have one by default.
    among: (n_items,) bool, only these items are ranked, the targets all of them; the protocol says how many.
    lists: also take the top max(ks) items of each user, for coverage and novelty.
    head_share: share of the items that counts as head, by training events (see `item_groups`).
    """
    _check(ks, repeat, memory_mb)
    began, scoring = time.perf_counter(), 0.0
    chosen = _users(split, which, users)
    log, n_items = split.log, split.log.n_items
    first, target_row = split.history(chosen, which)
    targets = log.items[target_row].astype(np.int64)
    if among is not None and not among[targets].all():
        raise BadInput(
            "to rank among some items, every target must be one of them", remedy="name fewer users"
        )
    aside_owner, aside_item = split.taken_aside(chosen, which)
    n = len(chosen)
    ranks, equal, candidates = (np.zeros(n, dtype=np.int64) for _ in range(3))
    repeated = np.zeros(n, dtype=np.bool_)
    shown = np.full((n, max(ks) if lists else 0), -1, dtype=np.int32)
    for batch in batches(target_row - first, n_items, memory_mb):
        start = time.perf_counter()
        answer = score_fn(chosen[batch])
        scoring += time.perf_counter() - start
        scores = as_scores(answer, len(batch), n_items)
        events, owner = ranges(first[batch], target_row[batch])
        seen = log.items[events]
        if len(aside_owner):  # what they took of hidden items
            place = np.full(n, -1, dtype=np.int64)
            place[batch] = np.arange(len(batch))
            inside = place[aside_owner] >= 0
            owner = np.concatenate([owner, place[aside_owner[inside]]])
            seen = np.concatenate([seen, aside_item[inside]])
        again = seen == targets[batch][owner]
        repeated[batch[owner[again]]] = True
        if repeat == "mask":
            scores[owner[~again], seen[~again]] = np.nan
        if among is not None:
            scores[:, ~among] = np.nan
        ranks[batch], equal[batch] = target_ranks(scores, targets[batch])
        candidates[batch] = np.count_nonzero(~np.isnan(scores), axis=1)
        if lists:
            shown[batch] = top_k(scores, max(ks))
    overall = metrics.from_ranks(ranks, ks) | {"AUC": _mean(metrics.auc(ranks, candidates))}
    if lists:
        for k in ks:
            overall[f"coverage@{k}"] = metrics.coverage(shown[:, :k], n_items)
            overall[f"novelty@{k}"] = metrics.novelty(shown[:, :k], split.counts)
    return Result(
        split=split.name,
        split_hash=split.hash,
        which=which,
        protocol=_protocol(split, among, repeat, head_share),
        metrics=overall,
        groups=_groups(split, targets, target_row - first, ranks, ks, head_share),
        users=chosen,
        targets=targets,
        ranks=ranks,
        candidates=candidates,
        n_items=n_items,
        tied_times=len(np.intersect1d(split.tied(which), chosen)),
        tied_scores=int((equal > 0).sum()),
        repeat_targets=int(repeated.sum()),
        seconds=time.perf_counter() - began,
        seconds_scoring=scoring,
        extra={"repeat": repeat},
    )


def _protocol(split: Split, among: Bool | None, repeat: Repeat, head_share: float) -> str:
    n_items = split.log.n_items
    ranking = f"full ranking of {n_items:,} items"
    if among is not None:
        ranking = f"ranked AMONG {int(among.sum()):,} of {n_items:,} items, not comparable with full ranking"
    policy = (
        "items of the user's history are out of the ranking, the target never"
        if repeat == "mask"
        else "items of the user's history stay in the ranking (repeat consumption)"
    )
    return (
        f"{ranking}; {policy}; equal scores by item id; {split.description}; "
        f"head: the {head_share:.0%} of items with most training events"
    )


def sampled(
    score_fn: ScoreFn,
    split: Split,
    negatives: Negatives,
    ks: Sequence[int] = (5, 10),
    *,
    head_share: float = HEAD_SHARE,
    memory_mb: float = 32,
) -> Result:
    """Rank each user's target among the negatives drawn for that user (protocols named 1:100, 1:20).

    "AUC" is the mean over users, "AUC_pooled" compares all positive with all negative rows at once.
    """
    _check(ks, "mask", memory_mb)
    if negatives.split_hash != split.hash:
        raise BadInput(
            "these negatives were drawn for another split", remedy="draw them again with draw_negatives"
        )
    began, scoring = time.perf_counter(), 0.0
    which, users = negatives.which, negatives.users
    first, target_row = split.history(users, which)
    targets = split.log.items[target_row].astype(np.int64)
    ranks, equal = np.zeros(len(users), dtype=np.int64), np.zeros(len(users), dtype=np.int64)
    positive = np.zeros(len(users), dtype=np.float32)
    negative = np.zeros(negatives.items.shape, dtype=np.float32)
    for batch in batches(target_row - first, split.log.n_items, memory_mb):
        start = time.perf_counter()
        answer = score_fn(users[batch])
        scoring += time.perf_counter() - start
        scores = as_scores(answer, len(batch), split.log.n_items)
        positive[batch] = scores[np.arange(len(batch)), targets[batch]]
        negative[batch] = np.take_along_axis(scores, negatives.items[batch].astype(np.int64), axis=1)
        own, theirs = positive[batch][:, None], negative[batch]
        same = theirs == own
        ahead = (theirs > own) | (same & (negatives.items[batch] < targets[batch][:, None]))
        ranks[batch] = 1 + np.count_nonzero(ahead, axis=1)
        equal[batch] = np.count_nonzero(same, axis=1)
    n = negatives.items.shape[1]
    candidates = np.full(len(users), n + 1, dtype=np.int64)
    overall = metrics.from_ranks(ranks, ks) | {
        "AUC": _mean(metrics.auc(ranks, candidates)),
        "AUC_pooled": metrics.pooled_auc(positive, negative.ravel()),
    }
    events, owner = ranges(first, target_row)
    again = np.unique(owner[split.log.items[events] == targets[owner]])
    return Result(
        split=split.name,
        split_hash=split.hash,
        which=which,
        protocol=f"SAMPLED 1:{n}, not comparable with full ranking: the target among {n} items drawn "
        f"uniformly (seed {negatives.seed}), none of them in the user's train, validation or test events; "
        f"equal scores by item id; {split.description}; "
        f"head: the {head_share:.0%} of items with most training events",
        metrics=overall,
        groups=_groups(split, targets, target_row - first, ranks, ks, head_share),
        users=users,
        targets=targets,
        ranks=ranks,
        candidates=candidates,
        n_items=split.log.n_items,
        tied_times=len(split.tied(which)),
        tied_scores=int((equal > 0).sum()),
        repeat_targets=len(again),
        seconds=time.perf_counter() - began,
        seconds_scoring=scoring,
        extra={"negatives": n, "negatives_hash": negatives.hash, "seed": negatives.seed},
    )


def scores_of(model: Answers, split: Split, which: Which) -> ScoreFn:
    """A trained model as a scorer; it reads each user's events before the target of `which`, and scores -inf what it
    cannot rank.

    The split must be over the run's own vocabulary. All user vectors are made at the first call, together.
    """
    known = split.users(which)
    made: list[npt.NDArray[np.float32]] = []

    def score(users: Int64) -> npt.NDArray[np.float32]:
        if not made:
            made.append(model.user_vectors(split.log.items, *split.history(known, which)))
            made.append(model.item_vectors().T)
        scores: npt.NDArray[np.float32] = made[0][np.searchsorted(known, users)] @ made[1]
        if (ranked := model.ranked) is not None:
            scores[:, ~ranked] = -np.inf
        return scores

    return score


def item_groups(counts: Int64, head_share: float = HEAD_SHARE) -> dict[str, Bool]:
    """Items by training events: head is the `head_share` of all items with most (ties by row), cold has
    none."""
    if not 0 <= head_share <= 1:
        raise BadInput(f"head_share is a share of the items, so within 0..1, not {head_share}")
    head = np.zeros(len(counts), dtype=np.bool_)
    head[np.argsort(-counts, kind="stable")[: round(head_share * len(counts))]] = True
    cold = counts == 0
    return {"items:head": head & ~cold, "items:tail": ~head & ~cold, "items:cold": cold}


def batches(lengths: Int64, n_items: int, memory_mb: float) -> list[Int64]:
    """Positions 0..n-1 by ascending length, cut so that one batch's score matrices fit into `memory_mb`."""
    size = max(1, int(memory_mb * 2**20 / (BYTES_A_SCORE * max(n_items, 1))))
    order = np.argsort(lengths, kind="stable")
    return [order[i : i + size] for i in range(0, len(order), size)]


def _groups(
    split: Split,
    targets: Int64,
    lengths: Int64,
    ranks: Int64,
    ks: Sequence[int],
    head_share: float,
) -> dict[str, dict[str, float]]:
    """Metrics by kind of target item, and by thirds of users after the length of their history."""
    members = {name: of[targets] for name, of in item_groups(split.counts, head_share).items()}
    edges = np.unique(np.quantile(lengths, [1 / 3, 2 / 3, 1], method="inverted_cdf").astype(np.int64))
    low = int(lengths.min())
    for high in edges.tolist():
        members[f"users:history {low}-{high}"] = (lengths >= low) & (lengths <= high)
        low = high + 1
    return {
        name: {"users": int(inside.sum()), **metrics.from_ranks(ranks[inside], ks)}
        for name, inside in members.items()
    }


def _users(split: Split, which: Which, users: Int64 | None) -> Int64:
    with_target = split.users(which)
    if not len(with_target):
        raise BadInput(
            f"no user of this split has a {which} target",
            remedy="check split.numbers(): users may have too few events, or the window no events",
        )
    if users is None:
        return with_target
    chosen = np.unique(np.asarray(users, dtype=np.int64))
    if not len(chosen) or not np.isin(chosen, with_target).all():
        raise BadInput(f"users to evaluate must be some of the {len(with_target)} that have a {which} target")
    return chosen


def _check(ks: Sequence[int], repeat: str, memory_mb: float) -> None:
    if not ks or min(ks) < 1:
        raise BadInput(f"ks must be positive cut-offs, got {tuple(ks)}")
    if repeat not in ("mask", "allow"):
        raise BadInput(f"repeat is 'mask' or 'allow', not {repeat!r}")
    if memory_mb <= 0:
        raise BadInput(f"memory_mb must be positive, got {memory_mb}")


def _mean(values: npt.NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in values.items()}
