"""Stored vectors over a list of items, their scaling, and adapters from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featurestore.errors import BadInput
from ingest.fuse import adapters
from ingest.fuse.scaling import Scaling, check_width, kept_scalings, principal
from ingest.fuse.stored import Tokens, Vectors

WIDE = 5


def ragged(counts: list[int], seed: int = 0) -> Tokens:
    values = np.random.default_rng(seed).normal(size=(sum(counts), WIDE)).astype(np.float32)
    return Tokens(values, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def one_by_one(stored: Tokens) -> list[np.ndarray]:
    return [stored.values[a:b] for a, b in zip(stored.offsets[:-1], stored.offsets[1:], strict=True)]


COUNTS = st.lists(st.integers(0, 4), min_size=1, max_size=8)


@given(counts=COUNTS, data=st.data())
def test_taken_items_have_their_own_vectors_in_the_order_asked_for(
    counts: list[int], data: st.DataObject
) -> None:
    stored, lists = ragged(counts), one_by_one(ragged(counts))
    rows = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=10))
    for found, expected in zip(
        one_by_one(stored.take(np.array(rows, dtype=np.int64))), [lists[row] for row in rows], strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    some = stored.take(stored.present)
    assert len(some) == sum(count > 0 for count in counts)
    np.testing.assert_array_equal(some.values, stored.values)


@given(counts=COUNTS)
def test_the_mean_of_an_item_is_that_of_its_vectors_and_zeros_where_it_has_none(counts: list[int]) -> None:
    stored = ragged(counts)
    expected = [part.mean(axis=0) if len(part) else np.zeros(WIDE) for part in one_by_one(stored)]
    np.testing.assert_allclose(stored.means, expected, rtol=1e-5, atol=1e-6)
    assert stored.present.tolist() == [count > 0 for count in counts]


def test_a_vector_that_is_not_there_is_never_read() -> None:
    values = np.array([[1, 2], [np.nan, np.inf], [3, 4]], dtype=np.float32)
    stored = Vectors(values, np.array([True, False, True]))
    assert stored.means.tolist() == [[1, 2], [0, 0], [3, 4]]
    assert stored.known.tolist() == [[1, 2], [3, 4]]
    assert stored.take(np.array([2, 1])).present.tolist() == [True, False]


def test_tokens_are_joined_by_id_and_an_unknown_item_has_none() -> None:
    stored = ragged([2, 0, 1, 3])
    parts = dict(zip("cabd", one_by_one(stored), strict=True))
    wanted = ["d", "zz", "a", "c", "", "c"]
    found = Tokens.aligned(np.array(list("cabd")), stored.values, stored.offsets, np.array(wanted))
    assert found.counts.tolist() == [3, 0, 0, 2, 0, 2]
    for part, item in zip(one_by_one(found), wanted, strict=True):
        np.testing.assert_array_equal(part, parts.get(item, np.empty((0, WIDE), np.float32)))
    none = Tokens.aligned(
        np.array([], dtype=str), np.empty((0, WIDE), np.float32), np.zeros(1, np.int64), ["a"]
    )
    assert none.present.tolist() == [False]
    assert none.width == WIDE
    with pytest.raises(BadInput, match="do not fit together"):
        Tokens.aligned(np.array(["a"]), stored.values, stored.offsets, np.array(["a"]))


def test_a_scaling_is_fitted_to_every_vector_that_is_there_and_kept_as_it_was() -> None:
    stored = ragged([40, 0, 60, 20])
    made = Scaling(stored, "whiten", 128)
    scaled = made(torch.from_numpy(stored.values))
    torch.testing.assert_close(scaled.T @ scaled / len(scaled), torch.eye(WIDE), rtol=1e-4, atol=1e-4)
    kept = Scaling.kept(made.mean, made.matrix)
    assert kept.out_dim == made.out_dim
    assert torch.equal(kept(torch.from_numpy(stored.values)), scaled)
    with pytest.raises(BadInput, match="size 5; the model learnt from 3"):
        check_width("text", stored, Scaling(Vectors(stored.values[:, :3], np.ones(120, bool)), "none", 1))


def test_the_scaling_of_a_feature_is_not_taken_for_that_of_one_whose_name_ends_alike() -> None:
    def named(value: float, *names: str) -> dict[str, torch.Tensor]:
        made = {}
        for name in names:
            made[f"tower.features.{name}.scaling.mean"] = torch.full((2,), value)
            made[f"tower.features.{name}.scaling.matrix"] = torch.eye(2)
        return made

    weights = named(1.0, "text") | named(2.0, "alt-text", "subtext")
    assert kept_scalings(weights, ["text"])["text"].mean.tolist() == [1, 1]
    found = kept_scalings(weights, ["subtext", "text", "alt.text", "image"])
    assert {name: scaling.mean[0].item() for name, scaling in found.items()} == {
        "subtext": 2,
        "text": 1,
        "alt.text": 2,
    }


def test_principal_directions_hold_the_variance_that_they_say_and_point_one_way() -> None:
    rows = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1.0, 5.0, 2.0, 0.5]
    )
    centred = rows - rows.mean(0)
    variance, directions = principal(centred)
    torch.testing.assert_close(
        directions.T @ directions, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-10
    )
    torch.testing.assert_close((centred @ directions).var(0, correction=0), variance)
    assert variance.tolist() == sorted(variance.tolist(), reverse=True)
    torch.testing.assert_close(principal(-centred)[1], directions)
    assert (directions.gather(0, directions.abs().argmax(0)[None]) > 0).all()


@pytest.mark.parametrize("kind", adapters.ADAPTERS)
def test_an_adapter_leads_to_the_width_and_every_part_of_it_is_learnt(kind: str) -> None:
    torch.manual_seed(0)
    made = adapters.make(kind, 6, 4, dropout=0.2)
    found = made(torch.randn(9, 6))
    assert found.shape == (9, 4)
    (found * torch.randn(9, 4)).sum().backward()
    for name, weight in made.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name
    made.eval()
    values = torch.randn(3, 6)
    assert torch.equal(made(values), made(values))
    assert made(values[:0]).shape == (0, 4)
    tokens = torch.randn(3, 2, 6)  # several vectors an item
    torch.testing.assert_close(made(tokens), made(tokens.flatten(0, 1)).view(3, 2, 4))


def test_the_mixture_is_the_gated_sum_of_its_whitenings() -> None:
    torch.manual_seed(0)
    made = adapters.MixtureOfWhitenings(6, 4, dropout=0.0).double().eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_()
    values = torch.randn(7, 6, dtype=torch.float64)
    share = (values @ made.gate).softmax(-1)
    expected = sum(
        share[:, k, None] * ((values - made.shift[k]) @ made.experts[k]) for k in range(adapters.EXPERTS)
    )
    torch.testing.assert_close(made(values), expected, rtol=1e-10, atol=1e-10)


def test_an_unknown_adapter_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="none of linear, bottleneck, mlp, moe"):
        adapters.make("deep", 4, 4)
