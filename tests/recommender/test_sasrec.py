from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from recommender.backbones.layers import Dropout, Layout, pad, unpad
from recommender.backbones.sasrec import SASRec

WIDTH, LENGTH = 8, 30


def model(**options: object) -> SASRec:
    torch.manual_seed(0)
    made = SASRec(WIDTH, length=LENGTH, dropout=0.0, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():  # so that no part of it is near nothing
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return made


def sequences(lengths: list[int]) -> tuple[torch.Tensor, np.ndarray]:
    torch.manual_seed(1)
    return torch.randn(sum(lengths), WIDTH, dtype=torch.float64), np.array(lengths)


def test_no_place_sees_its_target_or_anything_later() -> None:
    backbone = model().eval()
    vectors, lengths = sequences([12])
    before = backbone(vectors, lengths)
    for place in range(12):
        changed = vectors.clone()
        changed[place] += torch.randn(WIDTH, dtype=torch.float64)
        moved = (backbone(changed, lengths) - before).abs().amax(dim=1) > 1e-9
        assert moved.tolist() == [other >= place for other in range(12)]


def test_no_place_sees_its_target_while_it_learns_with_dropout_on_attention() -> None:
    backbone = model(attention_dropout=0.5).train()
    vectors, lengths = sequences([12, 9, 3])
    vectors.requires_grad_()
    torch.manual_seed(2)
    backbone(vectors, lengths)[5].sum().backward()
    assert vectors.grad is not None
    felt = vectors.grad.abs().amax(dim=1) > 0
    assert not felt[6:].any()
    assert felt[5]


def test_without_the_causal_mask_every_place_sees_its_own_sequence_and_no_other() -> None:
    backbone = model(causal=False).eval()
    vectors, lengths = sequences([5, 4, 2])
    before = backbone(vectors, lengths)
    changed = vectors.clone()
    changed[6] += torch.randn(WIDTH, dtype=torch.float64)
    moved = (backbone(changed, lengths) - before).abs().amax(dim=1) > 1e-9
    assert moved.tolist() == [False] * 5 + [True] * 4 + [False] * 2


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_is_its_sequences_one_by_one(causal: bool, training: bool) -> None:
    backbone = model(causal=causal).train(training)
    lengths = [3, 30, 1, 17, 16, 2, 30, 5]
    vectors, sizes = sequences(lengths)
    together = backbone(vectors, sizes)
    alone = [backbone(part, np.array([len(part)])) for part in vectors.split(lengths)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-10, atol=1e-10)


def test_gradients_of_a_batch_are_those_of_its_sequences_one_by_one() -> None:
    backbone = model()
    lengths = [3, 30, 1, 17]
    vectors, sizes = sequences(lengths)
    weight = torch.randn(sum(lengths), WIDTH, dtype=torch.float64)
    leaves = [vectors.requires_grad_(), *backbone.parameters()]
    together = torch.autograd.grad((backbone(vectors, sizes) * weight).sum(), leaves)
    outputs = [backbone(part, np.array([len(part)])) for part in vectors.split(lengths)]
    alone = torch.autograd.grad((torch.cat(outputs) * weight).sum(), leaves)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_the_last_event_always_stands_at_the_same_position() -> None:
    backbone = model().eval()
    vectors, _ = sequences([6])
    short, long = backbone(vectors[3:], np.array([3])), backbone(vectors, np.array([6]))
    with torch.no_grad():
        backbone.positions.weight[3:, 0] += 5  # read by the long sequence only
    assert torch.equal(backbone(vectors[3:], np.array([3])), short)
    assert not torch.allclose(backbone(vectors, np.array([6])), long)


def test_the_layers_are_those_of_a_plain_transformer() -> None:
    """Against torch's own pre-norm encoder with the same weights, on a padded batch."""
    backbone = model(inner=12, layers=2).eval()
    peer = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(
            WIDTH,
            2,
            12,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
            dtype=torch.float64,
        ),
        2,
        norm=nn.LayerNorm(WIDTH, dtype=torch.float64),
        enable_nested_tensor=False,
    ).eval()
    names = {
        "self_attn.in_proj_weight": "attention.inward.weight",
        "self_attn.in_proj_bias": "attention.inward.bias",
        "self_attn.out_proj.weight": "attention.outward.weight",
        "self_attn.out_proj.bias": "attention.outward.bias",
        **{f"linear1.{kind}": f"up.{kind}" for kind in ("weight", "bias")},
        **{f"linear2.{kind}": f"down.{kind}" for kind in ("weight", "bias")},
        **{f"norm1.{kind}": f"before_attention.{kind}" for kind in ("weight", "bias")},
        **{f"norm2.{kind}": f"before_inner.{kind}" for kind in ("weight", "bias")},
    }
    ours = backbone.state_dict()
    peer.load_state_dict(
        {
            f"layers.{layer}.{theirs}": ours[f"blocks.{layer}.{own}"]
            for layer in range(2)
            for theirs, own in names.items()
        }
        | {f"norm.{kind}": ours[f"last.{kind}"] for kind in ("weight", "bias")}
    )
    vectors, lengths = sequences([4, 7])
    padded = torch.zeros(2, 7, WIDTH, dtype=torch.float64)
    padded[0, 3:], padded[1] = vectors[:4], vectors[4:]
    places = backbone.positions(torch.arange(6, -1, -1))
    hidden = peer(
        padded * WIDTH**0.5 + places,
        mask=torch.triu(torch.ones(7, 7, dtype=torch.bool), 1) & ~torch.eye(7, dtype=torch.bool),
        src_key_padding_mask=torch.tensor([[True] * 3 + [False] * 4, [False] * 7]),
    )
    expected = torch.cat([hidden[0, 3:], hidden[1]])
    torch.testing.assert_close(backbone(vectors, lengths), expected, rtol=1e-9, atol=1e-9)


def test_padded_groups_come_back_as_they_were() -> None:
    lengths = np.array([2, 9, 1, 9, 6, 3])
    layout = Layout.of(lengths, torch.device("cpu"))
    values = torch.arange(30.0)[:, None]
    groups = pad(values, layout)
    assert len(groups) > 1
    assert sum(group.shape[0] for group in groups) == 6
    for group, known in zip(groups, layout.lengths, strict=True):
        assert int(known.min()) >= 0.7 * group.shape[1]
    assert torch.equal(unpad(groups, layout), values)


def test_dropout_keeps_the_mean_and_drops_the_share_that_was_asked() -> None:
    drop = Dropout(0.2)
    torch.manual_seed(0)
    kept = drop(torch.ones(200_000))
    assert (kept == 0).double().mean() == pytest.approx(0.2, abs=0.005)
    assert kept.double().mean() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(drop.eval()(torch.ones(5)), torch.ones(5))
