"""Similar users: who they are, and what they teach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from recommender import checkpoint, objectives
from recommender.config import Config
from recommender.distill import SimilarUsers, similar_users, user_means
from recommender.events import EventLog
from recommender.fit import fit
from recommender.items import Scaling, Stored, Vectors
from recommender.model import build
from recommender.runs import Run
from recommender.sequences import TrainingBatches
from recommender.splits import Split, leave_one_out
from tests.recommender.learning import ring
from tests.recommender.test_fit import Killed, killed_after, same, weights

SMALL = {"width": 16, "length": 8, "batch": 16, "epochs": 3, "layers": 1, "patience": 50, "lr": 1e-2}
ESR = {"tower": "llm-esr", "items": "id+text", "distill_users": 4, "distill_weight": 0.5}


def features(n: int = 20, seed: int = 0) -> dict[str, Stored]:
    random = np.random.default_rng(seed)
    present = np.ones(n, dtype=np.bool_)
    present[3] = False
    return {
        "text": Vectors(random.normal(size=(n, 6)).astype(np.float32), present),
        "image": Vectors(random.normal(size=(n, 4)).astype(np.float32), ~present | (np.arange(n) > 5)),
    }


def test_similar_users_are_those_of_a_plain_search() -> None:
    vectors = np.random.default_rng(0).normal(size=(1500, 5)).astype(np.float32)  # more than one block
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = similar_users(vectors, 7)
    scores = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    np.fill_diagonal(scores, -np.inf)
    expected = np.sort(scores, axis=1)[:, ::-1][:, :7]
    np.testing.assert_allclose(np.take_along_axis(scores, found, axis=1), expected, atol=1e-6)
    assert (found != np.arange(1500)[:, None]).all()
    assert similar_users(vectors[:3], 10).shape == (3, 2)  # no more than there are
    assert similar_users(vectors[:1], 10).shape == (1, 0)


def test_a_user_is_the_mean_of_what_the_user_took_in_training() -> None:
    split, given = ring(users=12), features()
    found = user_means(split, given, ("text", "image"))
    parts = []
    for name in ("text", "image"):
        stored = given[name]
        assert isinstance(stored, Vectors)
        scaled = Scaling(stored, "whiten", 128)(torch.from_numpy(stored.means)).numpy()
        parts.append(np.where(stored.present[:, None], scaled, 0))
    table = np.concatenate(parts, axis=1)
    for user in range(12):
        own = split.log.items[split.log.offsets[user] : split.train_end[user]]
        mean = np.mean([table[item] for item in own], axis=0)
        np.testing.assert_allclose(found[user], mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-5)


def test_events_that_are_held_out_say_nothing_of_a_user() -> None:
    split, given = ring(users=12), features()
    before = user_means(split, given, ("text",))

    def with_items(items: np.ndarray) -> Split:
        log = replace(split.log, items=items.astype(split.log.items.dtype))
        return replace(split, log=log)

    held = ~split.in_training
    others = (split.log.items + 7) % 20
    changed = with_items(np.where(held, others, split.log.items))
    np.testing.assert_array_equal(user_means(changed, given, ("text",)), before)
    changed = with_items(np.where(held, split.log.items, others))
    assert not np.allclose(user_means(changed, given, ("text",)), before, atol=1e-2)


def test_a_user_without_training_events_is_no_number_of_any_kind_but_zero() -> None:
    log = pa.table({"user_id": ["a"] * 4 + ["b"], "item_id": [*"wxyz", "w"], "position": [0, 1, 2, 3, 0]})
    split = leave_one_out(EventLog.from_table(log))
    split = replace(split, train_end=np.array([2, 4]))
    found = user_means(split, {"text": Vectors(np.eye(4, dtype=np.float32), np.ones(4, np.bool_))}, ("text",))
    assert not found[1].any()
    assert np.linalg.norm(found[0]) == pytest.approx(1, abs=1e-5)


def teachers() -> SimilarUsers:
    return SimilarUsers(np.array([[1, 2], [0, 3], [3, 1], [0, 1]]), 3)


def test_the_loss_is_the_squared_distance_to_the_mean_of_the_teachers_that_were_met() -> None:
    similar = teachers()
    first = torch.tensor([[1.0, 2.0, 3.0], [3.0, 0.0, 1.0]])
    assert float(similar(first, np.array([1, 3]))) == 0  # nobody was met before
    said = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    # user 0 has teachers 1 and 2, of whom 2 is unknown; user 2 has 3 and 1
    expected = np.mean([(0 - first[0].numpy()) ** 2, (1 - first.numpy().mean(0)) ** 2])
    assert float(similar(said, np.array([0, 2]))) == pytest.approx(float(expected))


def test_nobody_teaches_before_being_met_and_what_is_taught_is_what_was_said_last() -> None:
    similar = teachers()
    with torch.no_grad():
        similar.memory[2] = 1e6  # what stands at a user that was not met is never read
        similar(torch.ones(1, 3), np.array([1]))
        assert float(similar(torch.ones(1, 3), np.array([0]))) == 0  # exactly as its only known teacher
        similar(torch.full((1, 3), 5.0), np.array([1]))
        assert float(similar(torch.ones(1, 3), np.array([0]))) == pytest.approx(16)
        assert similar.met.tolist() == [True, True, False, False]
    alone = teachers()
    assert float(alone(torch.ones(3, 3), np.array([0, 1, 2]))) == 0  # met in this very batch


def test_a_teacher_carries_no_gradient_and_a_pupil_does() -> None:
    similar = teachers()
    first = torch.ones(1, 3, requires_grad=True)
    similar(first, np.array([1])).backward()
    assert first.grad is None or not first.grad.any()
    pupil = torch.zeros(1, 3, requires_grad=True)
    loss = similar(pupil, np.array([0]))
    loss.backward()
    assert pupil.grad is not None
    assert pupil.grad.tolist() == [[pytest.approx(-2 / 3)] * 3]
    assert first.grad is None or not first.grad.any()
    assert not similar.memory.requires_grad
    assert not list(similar.parameters())


@pytest.mark.parametrize("backbone", ["sasrec", "bert4rec"])
def test_what_is_remembered_of_a_user_is_what_was_said_at_its_last_place(backbone: str) -> None:
    split, given = ring(users=20), features()
    config = Config.of(**SMALL, **ESR, backbone=backbone, dropout=0.0, id_dropout=0.0)
    torch.manual_seed(0)
    model = build(config, split.counts, given)
    objective = objectives.build(model, config, split, given)
    (batch,) = TrainingBatches(split, length=model.backbone.reads, batch=100, seed=0).epoch(1)
    objective(batch)
    assert objective.similar is not None
    met = objective.similar.met.numpy()
    assert set(np.flatnonzero(met)) == set(batch.users.tolist())
    users = np.flatnonzero(met)
    ends = split.train_end[users]
    # what comes before a user's last training event answers for it: so will it be asked
    expected = model.user_vectors(split.log.items, split.log.offsets[users], ends - 1)
    np.testing.assert_allclose(objective.similar.memory[users].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_memory_is_in_the_checkpoint_and_a_killed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    split, given, config = ring(), features(), Config.of(**SMALL, **ESR)
    whole = fit(split, config, tmp_path / "whole", features=given, device="cpu")
    with pytest.raises(Killed):
        fit(split, config, tmp_path / "parts", features=given, device="cpu", progress=killed_after(1))
    tensors, _ = checkpoint.load(tmp_path / "parts/checkpoint" / checkpoint.LAST)
    assert tensors["objective.similar.memory"].shape == (60, 16)
    met = tensors["objective.similar.met"]
    assert met.tolist() == (split.train_end - split.log.offsets[:-1] >= 2).tolist()
    assert tensors["objective.similar.memory"][met].abs().sum(1).min() > 0
    torch.manual_seed(99)  # what the caller's generator holds is of no account
    parts = fit(split, config, tmp_path / "parts", features=given, device="cpu")
    assert same(weights(whole), weights(parts))
    assert same(weights(whole, checkpoint.LAST), weights(parts, checkpoint.LAST))
    assert not any("similar" in name for name in weights(whole))  # it is no part of the result
    assert Run(whole.folder).history()[0]["distill"] > 0


def test_distilling_draws_similar_users_together(tmp_path: Path) -> None:
    split, given = ring(users=40), features()
    apart = {}
    for weight in (0.0, 20.0):
        own = ESR if weight else {name: value for name, value in ESR.items() if name != "distill_users"}
        config = Config.of(**(SMALL | own | {"distill_weight": weight, "dropout": 0.0}))
        run = fit(split, config, tmp_path / str(weight), features=given, device="cpu")
        vectors = run.load_model(features=given).user_vectors(
            split.log.items, split.log.offsets[:-1], split.train_end
        )
        near = vectors[similar_users(user_means(split, given, ("text",)), 4)].mean(1)
        apart[weight] = float(((vectors - near) ** 2).mean())
        assert ("distill" in run.history()[0]) == bool(weight)
    assert apart[20.0] < 0.8 * apart[0.0]
