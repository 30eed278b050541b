"""Items hidden from training: what is left of the log, what learns from it, and how they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from featurestore.errors import BadInput
from recommender import cold, data, objectives
from recommender.baselines import content_knn
from recommender.config import Config
from recommender.evaluate import evaluate, scores_of
from recommender.events import EventLog
from recommender.fit import fit
from recommender.items import Stored, Tokens, Vectors
from recommender.model import build
from recommender.negatives import draw_negatives
from recommender.sequences import TrainingBatches
from recommender.splits import Split, global_time, hide_items, leave_one_out
from tests.recommender.learning import ring

N = 20
SMALL = {"width": 8, "length": 8, "batch": 16, "layers": 1, "heads": 1, "lr": 1e-2}


def log_of(rows: list[tuple[int, int]]) -> EventLog:
    users, items = zip(*rows, strict=True)
    table = {
        "user_id": [f"u{u}" for u in users],
        "item_id": [f"i{i}" for i in items],
        "timestamp": range(len(rows)),
    }
    return EventLog.from_table(pa.table(table))


def circle(n: int = N) -> Vectors:
    """An item's place on the ring that users walk round."""
    angle = 2 * np.pi * np.arange(n) / n
    return Vectors(np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32), np.ones(n, np.bool_))


# ---- the split


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=20, max_size=60),
    st.integers(0, 9),
    st.booleans(),
)
def test_every_event_of_a_hidden_item_leaves_the_log_but_test_targets(
    rows: list[tuple[int, int]], seed: int, by_time: bool
) -> None:
    log = log_of(rows)
    whole = global_time(log) if by_time else leave_one_out(log)
    try:
        split = hide_items(whole, 0.3, seed)
    except BadInput as error:
        refused = error.message
        assume("nothing is left" not in refused and "none be left" not in refused)
        raise
    hidden = set(split.hidden.tolist())
    assert len(hidden) == round(0.3 * log.n_items)
    assert not split.counts[split.hidden].any()
    assert split.log.item_ids.tolist() == log.item_ids.tolist()
    for user in range(log.n_users):
        events = range(log.offsets[user], log.offsets[user + 1])

        def left(end: int, events: range = events) -> list[int]:
            """Items of the user's events before a row of the old log that nobody hides."""
            return [int(log.items[j]) for j in events if j < end and log.items[j] not in hidden]

        first = split.log.offsets[user]
        assert split.log.items[first : split.train_end[user]].tolist() == left(whole.train_end[user])
        for which in ("valid", "test"):
            was, now = whole.rows(which)[user], split.rows(which)[user]  # type: ignore[arg-type]
            asked = was >= 0 and bool(left(was)) and (which == "test" or log.items[was] not in hidden)
            assert (now >= 0) == asked
            if asked:
                assert split.log.items[now] == log.items[was]
                assert split.log.items[first:now].tolist() == left(was)
                had = [int(log.items[j]) for j in events if j < was and log.items[j] in hidden]
                _, aside = split.taken_aside(np.array([user]), which)  # type: ignore[arg-type]
                assert sorted(aside.tolist()) == sorted(had)
    gone = sorted(zip(*(side.tolist() for side in split.put_aside[:2]), strict=True))
    stays = whole.test[whole.test >= 0]
    there = np.setdiff1d(np.arange(len(log)), stays)
    assert gone == sorted((int(log.users[j]), int(log.items[j])) for j in there if log.items[j] in hidden)
    assert len(split.log) + len(gone) == len(log)


def test_another_seed_hides_other_items_and_hash_and_description_say_so() -> None:
    whole = ring()
    one, same, other = (hide_items(whole, 0.2, seed) for seed in (0, 0, 1))
    assert one.hash == same.hash
    assert len({whole.hash, one.hash, other.hash}) == 3
    assert "4 of 20 items (0.2, seed 1) are hidden" in other.description
    assert one.numbers()["hidden_items"] == 4
    assert "hidden_items" not in whole.numbers()
    assert set(one.hidden.tolist()) != set(other.hidden.tolist())


def test_a_user_of_whom_only_hidden_items_are_known_is_not_asked_and_counted() -> None:
    others = [(1, 2), (1, 3), (1, 4), (1, 5), (2, 1), (2, 2), (2, 3)]
    whole = leave_one_out(log_of([(0, 0), (0, 0), (0, 1), *others]))
    seed = next(s for s in range(99) if hide_items(whole, 1 / 6, s).hidden.tolist() == [0])
    split = hide_items(whole, 1 / 6, seed)
    assert split.users("test").tolist() == [1, 2]
    assert split.numbers()["test_without_history"] == 1


@pytest.mark.parametrize("share", [0.0, 1.0, 0.01, 0.99])
def test_a_share_that_hides_nothing_or_all_is_refused(share: float) -> None:
    with pytest.raises(BadInput, match=r"hide|hidden"):
        hide_items(ring(), share)


def test_what_is_hidden_cannot_be_hidden_again() -> None:
    with pytest.raises(BadInput, match="hides items already"):
        hide_items(hide_items(ring(), 0.2), 0.2)


# ---- training


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "softmax"},
        {"loss": "sampled_softmax", "negatives": 64},
        {"loss": "sampled_softmax", "negatives": 64, "negative_power": 0.5},
        {"loss": "bce", "negatives": 8, "share_negatives": False},
        {"loss": "softmax", "backbone": "bert4rec"},
    ],
)
@pytest.mark.parametrize("seen", [True, False])
def test_no_step_learns_anything_of_a_hidden_item(options: dict[str, Any], seen: bool) -> None:
    whole = ring()
    split = whole if seen else hide_items(whole, 0.2)
    config = Config.of(**SMALL, **options)
    torch.manual_seed(0)
    model = build(config, split.counts)
    batches = TrainingBatches(split, length=model.backbone.reads, batch=999, seed=0)
    objective = objectives.build(model, config, split)
    objective(next(batches.epoch(1)))["loss"].backward()
    touched = model.tower.ids.weight.grad.abs().sum(1) > 0
    assert touched[np.setdiff1d(np.arange(N), split.hidden)].all()
    assert not touched[split.hidden].any()


@pytest.mark.parametrize("loss", [{"loss": "softmax"}, {"loss": "sampled_softmax", "negatives": 500}])
def test_a_step_with_hidden_items_equals_one_over_a_vocabulary_without_them(loss: dict[str, object]) -> None:
    split = hide_items(ring(), 0.2)
    shown = np.setdiff1d(np.arange(N), split.hidden)
    config = Config.of(**SMALL, dropout=0.0, **loss)
    torch.manual_seed(0)
    model = build(config, split.counts)
    small = build(config, split.counts[shown])
    small.backbone.load_state_dict(model.backbone.state_dict())
    with torch.no_grad():
        small.tower.ids.weight.copy_(model.tower.ids.weight[shown])
    batch = next(TrainingBatches(split, length=8, batch=999, seed=0).epoch(1))
    place = np.cumsum(~split.is_hidden) - 1
    moved = batch.to("cpu")
    renamed = torch.from_numpy(place)
    few = type(moved)(
        type(moved.history)(renamed[moved.history.items], moved.history.lengths),
        renamed[moved.targets],
        moved.users,
    )
    found = []
    for objective, given_batch in (
        (objectives.build(model, config, split), batch),
        (objectives.NextItem(small, config, split.counts[shown]), few),
    ):
        torch.manual_seed(1)
        found.append(float(objective(given_batch)["loss"].detach()))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_hide_items_in_the_options_is_what_training_reads(tmp_path: Path) -> None:
    log = ring().log
    config = Config.of(**SMALL, epochs=2, items="place", hide_items=0.2, hide_seed=3, scaling="none")
    split = data.split_of(log, config)
    assert split.hidden.tolist() == hide_items(leave_one_out(log), 0.2, 3).hidden.tolist()
    features: dict[str, Stored] = {"place": circle()}
    run = fit(log, config, tmp_path / "run", features=features, device="cpu")
    assert run.split_hash == split.hash
    assert not run.counts[split.hidden].any()
    assert run.about["split"]["hidden_items"] == 4


# ---- asking


def scored(split: Split, which: str = "test") -> Any:
    return content_knn(split, which, [circle()])  # type: ignore[arg-type]


def test_new_items_are_ranked_against_all_and_among_the_hidden_only() -> None:
    split = hide_items(ring(users=120), 0.3)
    found = cold.evaluate_new({"content": scored(split)}, split)
    full, among = found.full["content"], found.among["content"]
    assert split.is_hidden[full.targets].all()
    assert found.users == len(full.users) == split.is_hidden[split.targets("test")].sum()
    scores = scored(split)(full.users)
    for place, user in enumerate(full.users):
        target = full.targets[place]
        had = set(split.log.items[split.log.offsets[user] : split.test[user]].tolist())
        had |= set(split.put_aside[1][split.put_aside[0] == user].tolist())
        for result, others in ((full, range(N)), (among, split.hidden.tolist())):
            order = sorted(
                (i for i in others if i == target or i not in had), key=lambda i: (-scores[place, i], i)
            )
            assert result.ranks[place] == 1 + order.index(target)
            assert result.candidates[place] == len(order)
    assert "AMONG 6 of 20 items" in among.protocol
    assert "full ranking" in full.protocol
    assert (among.ranks <= full.ranks).all()


def test_hidden_items_that_a_user_had_are_no_negatives() -> None:
    split = hide_items(ring(users=30, most=10), 0.3)
    drawn = draw_negatives(split, "test", 5, seed=0)
    for user, items in zip(drawn.users, drawn.items, strict=True):
        assert not set(items.tolist()) & set(split.put_aside[1][split.put_aside[0] == user].tolist())


def test_targets_outside_the_items_ranked_are_refused() -> None:
    split = hide_items(ring(), 0.3)
    with pytest.raises(BadInput, match="every target"):
        evaluate(scored(split), split, "test", among=split.is_hidden)
    with pytest.raises(BadInput, match="hide_items"):
        cold.evaluate_new({"content": scored(ring())}, ring())


def test_a_model_of_features_finds_new_items_and_one_of_ids_does_not(tmp_path: Path) -> None:
    whole = ring(users=200)
    features: dict[str, Stored] = {"place": circle()}
    found = {}
    for items in ("id", "place"):
        more = {"scaling": "none", "feature_scale": 1.0} if items == "place" else {}
        config = Config.of(**SMALL | {"width": 16}, epochs=15, items=items, hide_items=0.2, **more)
        run = fit(whole.log, config, tmp_path / items, features=features, device="cpu")
        split = data.split_of(whole.log, config)
        model = run.load_model(features=features)
        if items == "id":  # what no step reads stays as it was: a new item in a history says nothing
            assert not model.tower.all_items()[split.is_hidden].any()
        found[items] = scores_of(model, split, "test")
    result = cold.evaluate_new(found, split, (1, 3))
    assert result.full["place"].metrics["HR@3"] > 2 * result.full["id"].metrics["HR@3"] + 0.2


# ---- neighbours by content


def test_content_neighbours_are_cosines_to_the_mean_of_the_history() -> None:
    random = np.random.default_rng(0)
    split = ring(users=12)
    values = random.normal(size=(N, 5)).astype(np.float32)
    present = np.arange(N) != 7
    counts = random.integers(0, 3, N)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    tokens = Tokens(random.normal(size=(offsets[-1], 4)).astype(np.float32), offsets)
    users = split.users("test")
    for half_life in (None, 1.5):
        found = content_knn(split, "test", [Vectors(values, present), tokens], half_life)(users)
        expected = np.zeros_like(found)
        for vectors, there in ((values * present[:, None], present), (tokens.means, counts > 0)):
            lengths = np.linalg.norm(vectors, axis=1)
            unit = vectors / np.where(lengths > 0, lengths, 1)[:, None]
            for row, user in enumerate(users):
                history = split.log.items[split.log.offsets[user] : split.test[user]]
                ages = np.arange(len(history))[::-1]
                weights = np.ones(len(history)) if half_life is None else 0.5 ** (ages / half_life)
                mean = np.average(unit[history], axis=0, weights=weights)
                expected[row] += np.where(there, unit @ mean / np.linalg.norm(mean), -1)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("features", "half_life", "says"),
    [
        ([], None, "need a feature"),
        ([circle(3)], None, "covers 3 items of 20"),
        ([circle()], 0.0, "half_life"),
    ],
)
def test_content_neighbours_refuse_what_they_cannot_use(
    features: list[Stored], half_life: float | None, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        content_knn(ring(), "test", features, half_life)
