"""Contrastive losses against plain loops, and measures of agreement against hand calculations."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ingest.fuse.align import (
    LOSSES,
    Temperature,
    agreement,
    alignment,
    between_views,
    info_nce,
    recall,
    soft_target,
    uniformity,
)

N, D = 6, 4


def pair(seed: int = 0, n: int = N) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, D, dtype=torch.float64, generator=random) for _ in range(2))  # type: ignore[return-value]


def cos(one: list[float], other: list[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def softmax(scores: list[float]) -> list[float]:
    whole = sum(math.exp(score) for score in scores)
    return [math.exp(score) / whole for score in scores]


def info_nce_by_hand(first: Tensor, second: Tensor, tau: float) -> float:
    x, y = first.tolist(), second.tolist()
    total = 0.0
    for i in range(len(x)):
        total -= math.log(softmax([cos(x[i], row) / tau for row in y])[i]) / 2
        total -= math.log(softmax([cos(y[i], row) / tau for row in x])[i]) / 2
    return total / len(x)


def soft_by_hand(first: Tensor, second: Tensor, tau: float) -> float:
    """L = X Y^T / tau, Q = softmax_row(tau/2 (X X^T + Y Y^T)), 1/2 mean_i [CE(Q_i, L_i) + CE(Q^T_i, L^T_i)]."""
    x, y = first.tolist(), second.tolist()
    places = range(len(x))
    target = [softmax([tau / 2 * (cos(x[i], x[j]) + cos(y[i], y[j])) for j in places]) for i in places]
    total = 0.0
    for i in places:
        there, back = (
            softmax([cos(x[i], y[j]) / tau for j in places]),
            softmax([cos(x[j], y[i]) / tau for j in places]),
        )
        total -= sum(target[i][j] * math.log(there[j]) for j in places) / 2
        total -= sum(target[j][i] * math.log(back[j]) for j in places) / 2
    return total / len(x)


@pytest.mark.parametrize("tau", [0.07, 0.3, 1.0])
@pytest.mark.parametrize(
    ("loss", "by_hand"), [(info_nce, info_nce_by_hand), (soft_target, soft_by_hand)], ids=["infonce", "soft"]
)
def test_a_loss_is_its_formula_in_a_plain_loop(
    loss: Callable[..., Tensor], by_hand: Callable[..., float], tau: float
) -> None:
    x, y = pair()
    expected = by_hand(x, y, tau)
    assert float(loss(x, y, tau)) == pytest.approx(expected, abs=1e-10)
    assert float(loss(x, y, torch.tensor(tau, dtype=torch.float64))) == pytest.approx(expected, abs=1e-10)
    assert float(loss(3 * x, y / 7, tau)) == pytest.approx(expected, abs=1e-10)  # a cosine knows no length


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_is_symmetric_and_the_order_of_items_is_of_no_account(kind: str) -> None:
    x, y = pair()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    expected = LOSSES[kind](x, y, 0.2)
    torch.testing.assert_close(LOSSES[kind](x[order], y[order], 0.2), expected)
    if kind == "infonce":
        torch.testing.assert_close(LOSSES[kind](y, x, 0.2), expected)
    assert float(LOSSES[kind](x, y[order], 0.2)) != pytest.approx(float(expected), abs=1e-3)


def test_gradients_are_those_of_finite_differences() -> None:
    x, y = (each.requires_grad_() for each in pair())
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(info_nce, (x, y, tau))


def test_the_soft_target_is_a_target_and_gets_no_gradient() -> None:
    x, y = pair()
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(soft_target(x, y, tau), tau)
    unit = [each / each.norm(dim=1, keepdim=True) for each in (x, y)]
    target = (0.15 * (unit[0] @ unit[0].T + unit[1] @ unit[1].T)).softmax(1)

    def with_target_held(at: Tensor) -> Tensor:
        scores = unit[0] @ unit[1].T / at
        forth = (target * scores.log_softmax(1)).sum()
        return -(forth + (target.T * scores.T.log_softmax(1)).sum()) / (2 * N)

    (expected,) = torch.autograd.grad(with_target_held(tau), tau)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert torch.autograd.gradcheck(with_target_held, (tau,))


def test_the_soft_target_of_identical_orthogonal_views_is_worked_out_by_hand() -> None:
    """Q has q at an item itself and (1 - q) / (n - 1) elsewhere; so has softmax(L), with p."""
    views, tau, n = torch.eye(D, dtype=torch.float64), 0.5, D
    q = math.exp(tau) / (math.exp(tau) + n - 1)
    p = math.exp(1 / tau) / (math.exp(1 / tau) + n - 1)
    expected = -(q * math.log(p) + (1 - q) * math.log((1 - p) / (n - 1)))
    assert float(soft_target(views, views, tau)) == pytest.approx(expected, abs=1e-12)


def test_the_soft_target_of_identical_views_at_temperature_one_cannot_be_met_better() -> None:
    """Then softmax(L) is Q itself by rows: half of the loss is the entropy of Q, which nothing undercuts."""
    x, _ = pair()
    unit = x / x.norm(dim=1, keepdim=True)
    target = (unit @ unit.T).softmax(1)
    entropy = float(-(target * target.log()).sum(1).mean())
    back = float(-(target.T * (unit @ unit.T).log_softmax(1)).sum(1).mean())
    assert float(soft_target(x, x, 1.0)) == pytest.approx((entropy + back) / 2, abs=1e-12)


@pytest.mark.parametrize("kind", LOSSES)
def test_pairs_are_made_over_the_items_that_have_both_views(kind: str) -> None:
    views = torch.stack([*pair(0), pair(1)[0]], dim=1)
    there = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 0]]).bool()
    pairs = [(0, 1, [0, 1, 4]), (1, 2, [0, 3])]  # only item 0 has views 0 and 2, and one is no contrast
    expected = sum(LOSSES[kind](views[rows, a], views[rows, b], 0.2) for a, b, rows in pairs) / 2
    torch.testing.assert_close(between_views(views, there, 0.2, kind), expected)
    spoiled = views.masked_fill(~there[..., None], math.nan)
    torch.testing.assert_close(between_views(spoiled, there, 0.2, kind), expected)


def test_without_two_items_that_have_two_views_there_is_no_loss_and_it_can_be_differentiated() -> None:
    views = torch.stack(pair(), dim=1).requires_grad_()
    alone = torch.zeros(N, 2, dtype=torch.bool)
    alone[2], alone[:, 0] = True, True
    loss = between_views(views, alone, 0.2)
    assert float(loss.detach()) == 0
    loss.backward()
    assert views.grad is not None
    assert not views.grad.any()
    assert float(between_views(views[:, :1].detach(), alone[:, :1], 0.2)) == 0
    assert float(between_views(views[:, :0].detach(), alone[:, :0], 0.2)) == 0


def test_a_learned_temperature_moves_and_comes_back_from_its_bounds() -> None:
    x, _ = pair()
    made = Temperature(0.2, learned=True)
    assert made().item() == pytest.approx(0.2)
    step = torch.optim.SGD(made.parameters(), lr=1.0)
    for away, bound in ((1.0, 0.01), (-1.0, 1.0)):
        for _ in range(9):  # far over the edge, as far as whoever steps is concerned
            step.zero_grad()
            (away * made().log()).backward()
            step.step()
        assert made().item() == pytest.approx(bound)
        step.zero_grad()
        (-away * made().log()).backward()
        step.step()
        assert 0.015 < made().item() < 0.9
    assert not list(Temperature(0.2, learned=False).parameters())
    assert Temperature(0.2, learned=False)().item() == pytest.approx(0.2)
    made = Temperature(0.2, learned=True)
    info_nce(x, x, made()).backward()  # views that agree already: sharper is better
    assert made.log.grad is not None
    assert float(made.log.grad) > 0


def test_alignment_is_the_mean_squared_distance_of_unit_vectors() -> None:
    first = torch.tensor([[1.0, 0.0], [0.0, 5.0], [2.0, 0.0]])
    second = torch.tensor([[3.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])  # distances 0, sqrt 2, 2
    assert alignment(first, second) == pytest.approx((0 + 2 + 4) / 3)


def test_uniformity_is_the_log_of_the_mean_potential_over_pairs() -> None:
    vectors = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-3.0, 0.0]])  # squared distances 2, 4, 2
    expected = math.log((2 * math.exp(-4) + math.exp(-8)) / 3)
    assert uniformity(vectors) == pytest.approx(expected, abs=1e-6)
    assert uniformity(torch.ones(4, 3)) == pytest.approx(0, abs=1e-5)


def test_recall_counts_items_found_among_the_nearest_both_ways() -> None:
    angles = torch.tensor([0.0, 1.0, 2.0])
    first = torch.stack([angles.cos(), angles.sin()], dim=1)
    turned = torch.tensor([0.2, 1.9, 2.2])
    second = torch.stack([turned.cos(), turned.sin()], dim=1)
    # there: item 0 finds .2; item 1 is .8 from .2 and .9 from its own: missed; item 2 is .1 from 1.9, .2 from its own
    # back: .2 finds item 0; 1.9 finds item 2, not 1; 2.2 finds item 2
    assert recall(first, second, 1) == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert recall(first, second, 2) == pytest.approx(1)


def test_views_that_are_all_the_same_find_nothing() -> None:
    same = torch.ones(5, 3)
    assert recall(same, same, 1) == 0
    assert recall(same, same, 5) == 1


def test_agreement_tells_of_each_pair_of_views_over_the_items_that_have_both() -> None:
    views = torch.stack([*pair(0), pair(1)[0]], dim=1)
    there = torch.ones(N, 3, dtype=torch.bool)
    there[:, 2] = False
    there[0, 2], there[1, 1] = True, False
    (row,) = agreement(views, there, ("image", "text", "both"), k=2)
    some = torch.tensor([0, 2, 3, 4, 5])
    assert row == {
        "views": "image ~ text",
        "items": 5,
        "alignment": alignment(views[some, 0], views[some, 1]),
        "uniformity": (uniformity(views[some, 0]) + uniformity(views[some, 1])) / 2,
        "recall@1": recall(views[some, 0], views[some, 1], 1),
        "recall@2": recall(views[some, 0], views[some, 1], 2),
    }


@pytest.mark.parametrize(("kind", "temperature"), [("infonce", 0.1), ("infonce", 1.0), ("soft", 1.0)])
def test_learning_brings_the_views_of_an_item_together(kind: str, temperature: float) -> None:
    torch.manual_seed(0)
    meant = torch.randn(64, 8)
    stored = [meant @ torch.randn(8, 24) for _ in range(2)]
    adapters = [torch.nn.Linear(24, 16) for _ in range(2)]
    optimizer = torch.optim.Adam([weight for each in adapters for weight in each.parameters()], lr=1e-2)

    def views() -> list[Tensor]:
        return [adapter(values) for adapter, values in zip(adapters, stored, strict=True)]

    def seen() -> list[Tensor]:
        return [view.detach() for view in views()]

    assert alignment(*seen()) > 1
    for _ in range(150):
        optimizer.zero_grad()
        LOSSES[kind](*views(), temperature).backward()
        optimizer.step()
    assert alignment(*seen()) < 0.2
    assert recall(*seen(), 1) > 0.95
