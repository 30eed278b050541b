from __future__ import annotations

import numpy as np
import pytest
import torch

from featurestore.errors import BadInput
from recommender.config import Config
from recommender.items import FeaturesTower, FeatureTower, IdTower, Scaling, Vectors, build

N, WIDE = 12, 7


def vectors(seed: int = 0, missing: tuple[int, ...] = (4,), n: int = N) -> Vectors:
    random = np.random.default_rng(seed)
    values = (random.normal(size=(n, WIDE)) @ random.normal(size=(WIDE, WIDE)) + 3).astype(np.float32)
    present = np.ones(n, dtype=np.bool_)
    present[list(missing)] = False
    values[~present] = np.nan  # never to be read
    return Vectors(values, present)


def tower(items: str, counts: np.ndarray | None = None, **options: object) -> IdTower | FeaturesTower:
    torch.manual_seed(0)
    counts = np.arange(N) if counts is None else counts
    given = {"text": vectors(0), "image": vectors(1, missing=(2, 4))}
    made = build(Config.of(items=items, width=8, **options), counts, given)
    return made.eval()


@pytest.mark.parametrize("items", ["id", "text", "id+text", "text+image", "id+text+image"])
def test_rows_are_rows_of_all_items(items: str) -> None:
    made = tower(items, **({"gate": "count"} if items.startswith("id+") else {}))
    rows = torch.tensor([3, 3, 0, 11])
    assert made.out_dim == 8
    assert made.all_items().shape == (N, 8)
    torch.testing.assert_close(made(rows), made.all_items()[rows])
    assert torch.isfinite(made.all_items()).all()


def test_aligned_vectors_belong_to_the_ids_asked_for_and_the_rest_is_absent() -> None:
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    found = Vectors.aligned(np.array(["c", "a", "b"]), values, np.array(["b", "zz", "c", "", "b"]))
    assert found.present.tolist() == [True, False, True, False, True]
    assert found.values[found.present].tolist() == [[4, 5], [0, 1], [4, 5]]
    none = Vectors.aligned(np.array([], dtype=str), np.empty((0, 2), np.float32), np.array(["a"]))
    assert none.present.tolist() == [False]
    with pytest.raises(BadInput, match="one vector an item"):
        Vectors.aligned(np.array(["a"]), values, np.array(["a"]))


def test_whitening_leaves_unit_variance_and_no_correlation_and_forgets_the_missing() -> None:
    given = vectors(n=200, missing=(4, 9))
    scaled = Scaling(given, "whiten", 128)(torch.from_numpy(given.values[given.present]))
    covariance = scaled.T @ scaled / len(scaled)
    torch.testing.assert_close(covariance, torch.eye(WIDE), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(WIDE), rtol=0, atol=1e-4)
    assert Scaling(given, "whiten", 3).out_dim == 3


def test_whitening_leaves_out_directions_that_hold_nothing() -> None:
    flat = vectors(n=200, missing=())
    values = np.concatenate([flat.values, flat.values[:, :2], np.ones((200, 1), np.float32)], axis=1)
    made = Scaling(Vectors(values, flat.present), "whiten", 128)
    assert made.out_dim == WIDE
    assert torch.isfinite(made(torch.from_numpy(values))).all()


def test_standard_scaling_gives_every_dimension_the_same_spread() -> None:
    given = vectors(n=100)
    scaled = Scaling(given, "standard", 128)(torch.from_numpy(given.values[given.present]))
    torch.testing.assert_close(scaled.std(0, correction=0), torch.ones(WIDE), rtol=1e-4, atol=1e-4)
    same = Scaling(given, "none", 128)(torch.from_numpy(given.values[given.present]))
    assert torch.equal(same, torch.from_numpy(given.values[given.present]))


def test_items_without_a_stored_vector_share_a_learned_one() -> None:
    made = tower("text")
    assert isinstance(made, FeaturesTower)
    with torch.no_grad():
        made.towers[0].missing.fill_(0.5)
    assert made.all_items()[4].tolist() == [0.5] * 8
    assert made.all_items()[3].tolist() != [0.5] * 8


def test_an_item_that_came_later_is_embedded_as_an_item_of_the_catalogue_would_be() -> None:
    made = tower("text+image")
    given = {"text": vectors(0), "image": vectors(1, missing=(2, 4))}
    torch.testing.assert_close(made.embed(given), made.all_items())
    some = {name: Vectors(v.values[3:5], v.present[3:5]) for name, v in given.items()}
    torch.testing.assert_close(made.embed(some), made.all_items()[3:5])


def test_an_item_that_training_never_saw_has_its_features_vector_and_no_id() -> None:
    made = tower("id+text", counts=np.array([0, 5] + [3] * (N - 2)))
    content = made.embed({"text": vectors(0)})
    torch.testing.assert_close(made.all_items()[0], content[0])
    assert not torch.allclose(made.all_items()[1], content[1])


def test_the_count_gate_leans_on_features_the_more_the_rarer_an_item() -> None:
    made = tower("id+text", counts=np.array([1, 10, 1000] + [3] * (N - 3)), gate="count")
    assert isinstance(made, FeaturesTower)
    assert made.ids is not None
    weights = made.ids.share(made.ids.counts)[:3, 0]
    assert 0 < weights[0] < weights[1] < weights[2] < 1
    assert made.ids.gate is not None
    made.all_items().sum().backward()
    assert made.ids.gate.grad is not None
    assert made.ids.gate.grad != 0


def test_id_dropout_drops_ids_while_learning_only() -> None:
    made = tower("id+text", counts=np.full(N, 5), id_dropout=0.5)
    assert isinstance(made, FeaturesTower)
    torch.manual_seed(1)
    content = made.embed({"text": vectors(0)})
    dropped = torch.isclose(made.train().all_items(), content).all(1)
    assert 0 < int(dropped.sum()) < N
    assert not torch.isclose(made.eval().all_items(), content).all(1).any()


def test_ids_can_start_from_a_pca_of_the_features() -> None:
    made = tower("id+text", id_init="pca", counts=np.full(N, 5))
    assert isinstance(made, FeaturesTower)
    assert made.ids is not None
    given = vectors(0)
    ids = made.ids.weight.detach().numpy()[:, :WIDE][given.present]
    expected = given.known - given.known.mean(0)
    # inner products between items are the features', up to one scale
    ours, theirs = ids @ ids.T, expected @ expected.T
    np.testing.assert_allclose(ours / np.abs(ours).max(), theirs / np.abs(theirs).max(), atol=1e-4)
    assert ids.std() == pytest.approx(0.02, rel=0.05)
    assert np.abs(made.ids.weight.detach().numpy()[~given.present]).min() > 0  # drawn


def test_stored_vectors_are_no_weights_but_their_scaling_is_kept() -> None:
    names = set(tower("id+text").state_dict())
    assert "features.text.scaling.matrix" in names
    assert not any("stored" in name for name in names)


def test_what_a_tower_cannot_do_is_refused_with_the_remedy() -> None:
    with pytest.raises(BadInput, match="by their id only"):
        tower("id").embed({})
    with pytest.raises(BadInput, match="'words', which was not given"):
        build(Config.of(items="words", width=8), np.arange(N), {"text": vectors()})
    with pytest.raises(BadInput, match="covers 12 items of 5"):
        build(Config.of(items="text", width=8), np.arange(5), {"text": vectors()})
    with pytest.raises(BadInput, match="needs the feature 'text'"):
        tower("text").embed({"image": vectors()})
    with pytest.raises(BadInput, match="size 2; the model learnt from 7"):
        tower("text").embed({"text": Vectors(np.zeros((1, 2), np.float32), np.array([True]))})
    bad = vectors()
    bad.values[0, 0] = np.inf
    with pytest.raises(BadInput, match="NaN or infinite"):
        FeatureTower("text", bad, 8, scaling="none")
    with pytest.raises(BadInput, match="fewer than two"):
        Scaling(vectors(missing=tuple(range(11))), "whiten", 4)
