from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from recommender.backbones.gru4rec import GRU4Rec

WIDTH = 8


def model(**options: object) -> GRU4Rec:
    torch.manual_seed(0)
    return GRU4Rec(WIDTH, length=30, **({"dropout": 0.0} | options)).double()  # type: ignore[arg-type]


def sequences(lengths: list[int]) -> tuple[Tensor, np.ndarray]:
    torch.manual_seed(1)
    return torch.randn(sum(lengths), WIDTH, dtype=torch.float64), np.array(lengths)


def peer_of(backbone: GRU4Rec) -> nn.GRU:
    """torch's own GRU of as many layers, with the same weights."""
    layers = len(backbone.layers)
    hidden = backbone.layers[0].weight_hh_l0.shape[1]
    peer = nn.GRU(WIDTH, hidden, layers).double()
    own = backbone.layers.state_dict()
    peer.load_state_dict({name: own[f"{name[-1]}.{name[:-1]}0"] for name in peer.state_dict()})
    return peer


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("hidden", [None, 5])
def test_a_batch_is_what_torch_makes_of_a_packed_sequence(layers: int, hidden: int | None) -> None:
    backbone = model(layers=layers, hidden=hidden).train()
    lengths = [3, 30, 1, 17, 16, 2, 30, 5]
    vectors, sizes = sequences(lengths)
    packed = pack_sequence((vectors * WIDTH**0.5).split(lengths), enforce_sorted=False)
    states = torch.cat(unpack_sequence(peer_of(backbone)(packed)[0]))
    expected = states if hidden is None else states @ backbone.outward.weight.T + backbone.outward.bias
    expected = layer_norm(expected, (WIDTH,))
    torch.testing.assert_close(backbone(vectors, sizes), expected, rtol=1e-10, atol=1e-10)


def test_gradients_of_a_batch_are_those_of_its_sequences_one_by_one() -> None:
    backbone = model(layers=2, hidden=5)
    lengths = [3, 30, 1, 17]
    vectors, sizes = sequences(lengths)
    weight = torch.randn(sum(lengths), WIDTH, dtype=torch.float64)
    leaves = [vectors.requires_grad_(), *backbone.parameters()]
    together = torch.autograd.grad((backbone(vectors, sizes) * weight).sum(), leaves)
    outputs = [backbone(part, np.array([len(part)])) for part in vectors.split(lengths)]
    alone = torch.autograd.grad((torch.cat(outputs) * weight).sum(), leaves)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_no_place_sees_its_target_or_anything_later_or_another_user() -> None:
    backbone = model(layers=2).eval()
    vectors, lengths = sequences([12, 12, 3])
    before = backbone(vectors, lengths)
    for place in (0, 5, 11):
        changed = vectors.clone()
        changed[place] += torch.randn(WIDTH, dtype=torch.float64)
        moved = (backbone(changed, lengths) - before).abs().amax(dim=1) > 1e-9
        assert moved.tolist() == [place <= other < 12 for other in range(27)]


def test_the_answer_stands_at_the_last_event() -> None:
    backbone = model().eval()
    vectors, lengths = sequences([4, 1, 7])
    assert torch.equal(backbone.answer(vectors, lengths), backbone(vectors, lengths)[[3, 4, 11]])
    assert backbone.reads == 30


def test_dropout_is_felt_in_training_only() -> None:
    backbone = model(dropout=0.5)
    vectors, lengths = sequences([6])
    assert not torch.equal(backbone.train()(vectors, lengths), backbone(vectors, lengths))
    assert torch.equal(backbone.eval()(vectors, lengths), backbone(vectors, lengths))
