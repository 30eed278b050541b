"""One backbone over two views of an item: what a place may read, with attention between the sequences and without."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recommender import backbones
from recommender.backbones.base import Backbone
from recommender.backbones.layers import Layout
from recommender.backbones.views import SequenceAttention, SharedViews
from recommender.config import Config
from recommender.items import Vectors
from recommender.model import SequentialModel, build
from recommender.objectives import MaskedItem
from recommender.sequences import Packed, TrainingBatches
from tests.recommender.learning import ring

WIDTH, LENGTH, ITEMS = 12, 9, 20
CAUSAL = ["sasrec", "gru4rec"]
EVERY = [*CAUSAL, "bert4rec"]


def config(backbone: str, across: bool, **options: object) -> Config:
    given = {"tower": "dmesr", "items": "text", "backbone": backbone, "across": across, "attend": "none"}
    return Config.of(**(given | {"width": WIDTH, "length": LENGTH, "dropout": 0.0} | options))


def made(backbone: str, across: bool, **options: object) -> SharedViews:
    torch.manual_seed(0)
    found = backbones.build(config(backbone, across, **options), WIDTH).double()
    with torch.no_grad():  # so that no part of it is near nothing
        for weight in found.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    assert isinstance(found, SharedViews)
    assert (found.mixer is not None) == across
    return found.eval()


def sequences(lengths: list[int]) -> tuple[Tensor, np.ndarray]:
    torch.manual_seed(1)
    return torch.randn(sum(lengths), WIDTH, dtype=torch.float64), np.array(lengths)


def moved(
    backbone: Backbone, vectors: Tensor, lengths: np.ndarray, place: int, view: int
) -> list[list[bool]]:
    """Which views of which places (T, 2) feel a change of one view of one place."""
    changed, half = vectors.clone(), WIDTH // 2
    changed[place, view * half : (view + 1) * half] += torch.randn(half, dtype=torch.float64)
    found = (backbone(changed, lengths) - backbone(vectors, lengths)).abs() > 1e-9
    return found.view(len(vectors), 2, half).any(-1).tolist()


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("backbone", CAUSAL)
def test_no_place_feels_anything_later_and_views_meet_only_across(backbone: str, across: bool) -> None:
    model = made(backbone, across)
    vectors, lengths = sequences([7])
    for place in range(7):
        for view in (0, 1):
            # what the other view asks at the first place of all changes nothing: there is one place to find
            meets = across and place > 0
            expected = [[other >= place and (meets or seen == view) for seen in (0, 1)] for other in range(7)]
            assert moved(model, vectors, lengths, place, view) == expected


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("backbone", CAUSAL)
def test_no_gradient_comes_from_anything_later_while_learning(backbone: str, across: bool) -> None:
    model = made(backbone, across, dropout=0.3).train()
    vectors, lengths = sequences([8, 6, 2])
    vectors.requires_grad_()
    model(vectors, lengths)[4].square().sum().backward()
    assert vectors.grad is not None
    felt = vectors.grad.abs().amax(1) > 0
    assert felt[4]
    assert not felt[5:].any()


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize(("backbone", "causal"), [("bert4rec", True), ("sasrec", False)])
def test_without_a_causal_mask_a_place_feels_its_own_sequence_and_no_other(
    backbone: str, causal: bool, across: bool
) -> None:
    model = made(backbone, across, causal=causal)
    vectors, lengths = sequences([4, 5, 2])
    own = [False] * 4 + [True] * 5 + [False] * 2
    expected = [[seen and across, seen] for seen in own]
    assert moved(model, vectors, lengths, 6, view=1) == expected


@pytest.mark.parametrize("across", [False, True])
def test_a_hidden_event_is_felt_nowhere(across: bool) -> None:
    model = made("bert4rec", across)
    vectors, lengths = sequences([6, 4])
    hidden = torch.tensor([2, 9])
    before = model(model.hide(vectors, hidden), lengths)
    for place in range(10):
        changed = vectors.clone()
        changed[place] += torch.randn(WIDTH, dtype=torch.float64)
        felt = ((model(model.hide(changed, hidden), lengths) - before).abs() > 1e-9).any(1).tolist()
        user = range(6) if place < 6 else range(6, 10)
        assert felt == [place not in hidden.tolist() and other in user for other in range(10)]


@pytest.mark.parametrize("across", [False, True])
def test_what_is_scored_in_training_does_not_change_with_the_items_to_be_found(across: bool) -> None:
    split = ring(users=12)
    given = {"text": Vectors(np.eye(ITEMS, dtype=np.float32), np.ones(ITEMS, np.bool_))}
    options = config("bert4rec", across, mask_share=0.3)
    torch.manual_seed(0)
    learner = MaskedItem(build(options, split.counts, given), options, split.counts).eval()
    (batch,) = TrainingBatches(split, length=LENGTH - 1, batch=100, seed=0).epoch(1)
    window, hidden = learner.cloze(batch)
    others = window.items.clone()
    others[hidden] = (others[hidden] + 1) % ITEMS
    items = learner.model.tower.all_items()
    found = learner.said(window, hidden, items)[0]
    assert torch.equal(learner.said(Packed(others, window.lengths), hidden, items)[0], found)
    seen = torch.ones(len(window.items), dtype=torch.bool)
    seen[hidden] = False
    others = torch.where(seen, (window.items + 1) % ITEMS, window.items)
    assert not torch.equal(
        learner.said(Packed(others, window.lengths), hidden, items)[0][hidden], found[hidden]
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("backbone", EVERY)
def test_a_batch_is_its_users_one_by_one(backbone: str, across: bool, training: bool) -> None:
    model = made(backbone, across).train(training)
    lengths = [3, 8, 1, 7, 7, 2, 8, 5]
    vectors, sizes = sequences(lengths)
    for ask in (model, model.answer):
        together = ask(vectors, sizes)
        alone = [ask(part, np.array([len(part)])) for part in vectors.split(lengths)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backbone", EVERY)
def test_two_views_are_the_inner_backbone_on_each_apart(backbone: str) -> None:
    model = made(backbone, across=False)
    vectors, lengths = sequences([4, 8, 1])
    halves = vectors.chunk(2, dim=1)
    expected = torch.cat([model.inner(half.contiguous(), lengths) for half in halves], dim=1)
    torch.testing.assert_close(model(vectors, lengths), expected, rtol=1e-10, atol=1e-10)
    expected = torch.cat([model.inner.answer(half.contiguous(), lengths) for half in halves], dim=1)
    torch.testing.assert_close(model.answer(vectors, lengths), expected, rtol=1e-10, atol=1e-10)
    assert model.reads == model.inner.reads
    if backbone == "bert4rec":
        places = torch.tensor([1, 5])
        expected = torch.cat([model.inner.hide(half, places) for half in halves], dim=1)
        assert torch.equal(model.hide(vectors, places), expected)


def test_a_sequences_attention_is_torchs_own_as_the_other_view_asks() -> None:
    torch.manual_seed(0)
    half, lengths = WIDTH // 2, [5, 3]
    ours = SequenceAttention(half, 2, causal=True, residual=True).double()
    vectors = torch.randn(8, 2, half, dtype=torch.float64)
    layout = Layout.of(np.array(lengths), vectors.device)
    found = ours(vectors, layout)
    for own in (0, 1):
        theirs = nn.MultiheadAttention(half, 2, batch_first=True, dtype=torch.float64)
        query, offered = ours.query[own], ours.key_value[own]
        with torch.no_grad():
            theirs.in_proj_weight.copy_(torch.cat([query.weight, offered.weight]))  # type: ignore[list-item]
            theirs.in_proj_bias.copy_(torch.cat([query.bias, offered.bias]))  # type: ignore[list-item]
        theirs.out_proj = ours.outward[own]  # type: ignore[assignment]
        for part, rows in zip(vectors.split(lengths), found.split(lengths), strict=True):
            later = torch.ones(len(part), len(part), dtype=torch.bool).triu(1)
            view, asks = part[None, :, own], part[None, :, 1 - own]
            expected = view + theirs(asks, view, view, attn_mask=later)[0]
            torch.testing.assert_close(rows[:, own], expected[0], rtol=1e-10, atol=1e-10)
    without = SequenceAttention(half, 2, causal=True, residual=False).double()
    without.load_state_dict(ours.state_dict())
    torch.testing.assert_close(without(vectors, layout) + vectors, found, rtol=1e-10, atol=1e-10)


def test_attention_across_comes_after_positions_and_before_the_layers() -> None:
    model = made("sasrec", across=True)
    assert model.mixer is not None
    vectors, lengths = sequences([4, 6])
    layout = Layout.of(lengths, vectors.device)
    placed = [model.inner.place(half, layout) for half in vectors.chunk(2, dim=1)]
    mixed = model.mixer(torch.stack(placed, dim=1), layout)
    expected = torch.cat([model.inner.encode(view, layout) for view in mixed.unbind(dim=1)], dim=1)
    torch.testing.assert_close(model(vectors, lengths), expected, rtol=1e-10, atol=1e-10)


def model_of(tower: str, backbone: str) -> SequentialModel:
    torch.manual_seed(0)
    options = Config.of(tower=tower, items="id+text", backbone=backbone, width=8, length=LENGTH, cosine=True)
    values = np.random.default_rng(0).normal(size=(ITEMS, 5)).astype(np.float32)
    return build(
        options, np.ones(ITEMS, np.int64), {"text": Vectors(values, np.ones(ITEMS, np.bool_))}
    ).eval()


@pytest.mark.parametrize("backbone", EVERY)
def test_llm_esr_attends_across_unless_told_otherwise_and_a_user_is_answered_alone_as_in_company(
    backbone: str,
) -> None:
    model, split = model_of("llm-esr", backbone), ring(users=15)
    assert isinstance(model.backbone, SharedViews)
    assert model.backbone.mixer is not None
    users = split.users("test")
    starts, ends = split.history(users, "test")
    together = model.user_vectors(split.log.items, starts, ends)
    alone = [model.user_vectors(split.log.items, starts[[u]], ends[[u]])[0] for u in range(len(users))]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    later = split.log.items.copy()
    later[ends] = (later[ends] + 3) % ITEMS  # the target itself and what comes after it are not read
    np.testing.assert_array_equal(model.user_vectors(later, starts, ends), together)
