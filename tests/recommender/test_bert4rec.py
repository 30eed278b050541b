from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recommender.backbones.bert4rec import BERT4Rec
from recommender.config import Config
from recommender.model import build
from recommender.objectives import MaskedItem
from recommender.sequences import Batch, Packed, TrainingBatches
from tests.recommender.learning import ring

WIDTH, LENGTH, ITEMS = 8, 12, 20


def model() -> BERT4Rec:
    torch.manual_seed(0)
    made = BERT4Rec(WIDTH, length=LENGTH, dropout=0.0).double()
    with torch.no_grad():  # so that no part of it is near nothing
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return made.eval()


def sequences(lengths: list[int]) -> tuple[Tensor, np.ndarray]:
    torch.manual_seed(1)
    return torch.randn(sum(lengths), WIDTH, dtype=torch.float64), np.array(lengths)


def objective(**options: object) -> MaskedItem:
    torch.manual_seed(0)
    config = Config.of(backbone="bert4rec", width=WIDTH, length=LENGTH, dropout=0.0, **options)
    counts = np.ones(ITEMS, dtype=np.int64)
    return MaskedItem(build(config, counts), config, counts)


def batch(lengths: list[int]) -> Batch:
    """Windows of so many events, one more than the history has."""
    torch.manual_seed(2)
    inputs = np.array(lengths) - 1
    items = [torch.randint(ITEMS, (length,)) for length in lengths]
    return Batch(
        Packed(torch.cat([window[:-1] for window in items]), inputs),
        torch.cat([window[1:] for window in items]),
        np.arange(len(lengths)),
    )


def test_a_hidden_place_does_not_feel_its_own_item_and_feels_both_neighbours() -> None:
    backbone = model()
    vectors, lengths = sequences([6, 4])
    hidden = torch.tensor([2, 9])

    def at_masks(shown: Tensor) -> Tensor:
        return backbone(backbone.hide(shown, hidden), lengths)[hidden]

    before = at_masks(vectors)
    for place in range(10):
        changed = vectors.clone()
        changed[place] += torch.randn(WIDTH, dtype=torch.float64)
        moved = (at_masks(changed) - before).abs().amax(dim=1) > 1e-9
        own = place in hidden.tolist()
        assert moved.tolist() == [not own and place < 6, not own and place >= 6]


@pytest.mark.parametrize("mask_last", ["copy", "always", "chance"])
def test_what_is_scored_in_training_does_not_change_with_the_items_to_be_found(mask_last: str) -> None:
    learner = objective(mask_last=mask_last, mask_share=0.3).train()
    window, hidden = learner.cloze(batch([5, 12, 2]))
    others = window.items.clone()
    others[hidden] = (others[hidden] + 1) % ITEMS
    items = learner.model.tower.all_items()
    said, table = learner.said(window, hidden, items)
    found = said[hidden]
    assert torch.equal(learner.said(Packed(others, window.lengths), hidden, items)[0][hidden], found)
    assert found.shape == (len(hidden), WIDTH)
    assert table.shape == (ITEMS, WIDTH)


def test_the_answer_is_what_stands_at_a_mask_put_last() -> None:
    backbone = model()
    vectors, lengths = sequences([4, 1, 7])
    padded = torch.cat([torch.cat([part, backbone.mask[None]]) for part in vectors.split([4, 1, 7])])
    expected = backbone(padded, lengths + 1)[[4, 6, 14]]
    torch.testing.assert_close(backbone.answer(vectors, lengths), expected)
    alone = [backbone.answer(part, np.array([len(part)])) for part in vectors.split([4, 1, 7])]
    torch.testing.assert_close(torch.cat(alone), expected, rtol=1e-10, atol=1e-10)


def test_the_mask_takes_one_place_of_the_window() -> None:
    backbone = model()
    assert backbone.reads == LENGTH - 1
    vectors, lengths = sequences([LENGTH - 1])
    assert backbone.answer(vectors, lengths).shape == (1, WIDTH)  # every position is there
    built = build(Config.of(backbone="bert4rec", width=WIDTH, length=LENGTH), np.ones(ITEMS, dtype=np.int64))
    values = np.arange(ITEMS)
    whole, cut = (built.user_vectors(values, np.array([first]), np.array([ITEMS])) for first in (0, 9))
    np.testing.assert_array_equal(whole, cut)


def test_the_mask_is_learnt_and_is_no_item() -> None:
    learner = objective()
    assert len(learner.model.item_vectors()) == ITEMS
    learner(batch([5, 9]))["loss"].backward()
    mask = learner.model.get_parameter("backbone.mask")
    assert mask.grad is not None
    assert mask.grad.abs().sum() > 0


def test_a_window_is_the_history_and_what_came_next() -> None:
    split = ring()
    for found in TrainingBatches(split, length=5, batch=7, seed=0).epoch(1):
        whole = found.whole
        rows = [
            np.arange(max(split.log.offsets[user], split.train_end[user] - 6), split.train_end[user])
            for user in found.users
        ]
        assert whole.items.tolist() == split.log.items[np.concatenate(rows)].tolist()
        assert whole.lengths.tolist() == [len(part) for part in rows]


@given(
    lengths=st.lists(st.integers(2, LENGTH), min_size=1, max_size=12),
    share=st.floats(0.01, 0.99),
    mask_last=st.sampled_from(["copy", "always", "chance"]),
)
def test_every_window_hides_its_share_and_keeps_something_in_sight(
    lengths: list[int], share: float, mask_last: str
) -> None:
    learner = objective(mask_share=share, mask_last=mask_last)
    given_batch = batch(lengths)
    window, hidden = learner.cloze(given_batch)
    places = hidden.tolist()
    assert len(set(places)) == len(places)
    ends = np.cumsum(window.lengths)
    in_window = [
        [place for place in places if first <= place < end] for first, end in pairwise([0, *ends.tolist()])
    ]
    for own, n, end in zip(in_window[: len(lengths)], lengths, ends[: len(lengths)], strict=True):
        assert len(own) == min(max(1, round(n * share)), n - 1)
        if mask_last == "always":
            assert end - 1 in own
    if mask_last == "copy":
        assert window.items.tolist() == given_batch.whole.items.tolist() * 2
        assert in_window[len(lengths) :] == [[end - 1] for end in ends[len(lengths) :].tolist()]
    else:
        assert window.items.tolist() == given_batch.whole.items.tolist()


def test_each_place_of_a_window_is_hidden_equally_often_by_chance() -> None:
    learner = objective(mask_last="chance", mask_share=0.3)
    windows = batch([10] * 50)
    drawn = [learner.cloze(windows)[1] % 10 for _ in range(60)]
    shares = torch.bincount(torch.cat(drawn), minlength=10) / (60 * 50)
    assert shares.tolist() == pytest.approx([0.3] * 10, abs=0.04)
