from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from featurestore.errors import BadInput
from recommender.baselines import chance, item_knn, popularity
from recommender.evaluate import evaluate
from recommender.events import EventLog
from recommender.splits import Split, leave_one_out


def split_of(seed: int = 0, users: int = 40, items: int = 25, events: int = 500) -> Split:
    rng = np.random.default_rng(seed)
    table = pa.table(
        {
            "user_id": [f"u{u:03d}" for u in rng.integers(users, size=events)],
            "item_id": [f"i{i:03d}" for i in (rng.random(events) ** 2 * items).astype(int)],
            "timestamp": np.arange(events),
        }
    )
    return leave_one_out(EventLog.from_table(table))


def test_popularity_scores_items_by_training_events_only() -> None:
    split = split_of()
    scores = popularity(split)(np.array([3, 0]))
    log = split.log
    held_out = set(split.valid.tolist()) | set(split.test.tolist())
    expected = np.bincount(
        [log.items[j] for j in range(len(log)) if j not in held_out], minlength=log.n_items
    )
    assert scores.tolist() == [expected.tolist()] * 2


def test_chance_depends_on_the_user_and_the_seed_and_not_on_the_batch() -> None:
    split = split_of()
    together, alone = chance(split)(np.array([1, 2])), chance(split)(np.array([2]))
    assert together[1].tolist() == alone[0].tolist() != together[0].tolist()
    assert chance(split, seed=1)(np.array([2]))[0].tolist() != alone[0].tolist()


@pytest.mark.parametrize("which", ["valid", "test"])
def test_item_knn_sums_the_similarity_to_the_items_of_the_history(which: str) -> None:
    split, shrink = split_of(3), 2.0
    log, n = split.log, split.log.n_items
    taken = np.zeros((log.n_users, n))
    for j in np.flatnonzero(split.in_training):
        taken[log.users[j], log.items[j]] = 1
    both, alone = taken.T @ taken, taken.sum(axis=0)
    similar = both / (np.sqrt(np.outer(alone, alone)) + shrink)
    np.fill_diagonal(similar, 0)
    users = split.users(which)  # type: ignore[arg-type]
    history = np.zeros((len(users), n))
    for place, user in enumerate(users):
        row = split.rows(which)[user]  # type: ignore[arg-type]
        history[place, log.items[log.offsets[user] : row]] = 1
    found = item_knn(split, which, neighbours=n, shrink=shrink)(users)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, history @ similar, rtol=1e-5, atol=1e-6)


def test_item_knn_keeps_only_the_nearest_neighbours() -> None:
    split = split_of(3)
    users = split.users("test")
    one = item_knn(split, "test", neighbours=1)(users)
    rows, columns = np.nonzero(one)
    assert len(columns)
    history = np.diff(np.stack(split.history(users, "test")), axis=0)[0]
    assert (np.bincount(rows, minlength=len(users)) <= history).all()


def test_item_knn_beats_popularity_and_popularity_beats_chance_where_taste_is_shared() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for u in range(300):
        group = u % 5
        for _ in range(8):
            item = int(rng.random() ** 2 * 20)
            rows.append((f"u{u:03d}", f"g{group}-{item:02d}"))
    users, items = zip(*rows, strict=True)
    split = leave_one_out(EventLog.from_table(pa.table({"user_id": users, "item_id": items})))
    knn, pop, random = (
        evaluate(f, split, "test", repeat="allow").metrics["NDCG@10"]
        for f in (item_knn(split, "test"), popularity(split), chance(split))
    )
    assert knn > 2 * pop > 2 * random


def test_item_knn_refuses_no_neighbours() -> None:
    with pytest.raises(BadInput):
        item_knn(split_of(), "test", neighbours=0)
