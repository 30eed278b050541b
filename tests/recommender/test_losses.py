from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from recommender import losses


def inputs(places: int = 70, items: int = 90, width: int = 6, dtype: torch.dtype = torch.float64):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    hidden = (torch.randn(places, width, dtype=dtype) * 2).requires_grad_()
    table = (torch.randn(items, width, dtype=dtype) * 2).requires_grad_()
    return hidden, table, torch.randint(items, (places,))


def values_and_gradients(loss, *leaves):  # type: ignore[no-untyped-def]
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def close(found, expected, tolerance: float = 1e-10) -> None:  # type: ignore[no-untyped-def]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("chunk", [1 << 21, 90 * 16, 90 * 33])
def test_the_fused_softmax_and_its_gradients_are_those_of_plain_cross_entropy(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK_SCORES", chunk)
    hidden, table, targets = inputs()
    found = values_and_gradients(3 * losses.full_softmax(hidden, table, targets), hidden, table)
    close(found, values_and_gradients(3 * cross_entropy(hidden @ table.T, targets), hidden, table))


def test_the_fused_softmax_holds_for_scores_that_overflow_a_plain_exponential() -> None:
    hidden, table, targets = inputs()
    big = hidden * 400
    close([losses.full_softmax(big, table, targets)], [cross_entropy(big @ table.T, targets)], 1e-9)


@pytest.mark.parametrize("learnt", ["hidden", "items"])
def test_the_fused_softmax_gives_one_gradient_where_only_one_is_asked(learnt: str) -> None:
    hidden, table, targets = inputs()
    if learnt == "hidden":
        table = table.detach()
    else:
        hidden = hidden.detach()
    leaf = hidden if learnt == "hidden" else table
    found = values_and_gradients(losses.full_softmax(hidden, table, targets), leaf)
    close(found, values_and_gradients(cross_entropy(hidden @ table.T, targets), leaf))


def test_the_bfloat16_head_is_near_the_exact_one_and_keeps_the_inputs_type() -> None:
    hidden, table, targets = inputs(dtype=torch.float32)
    exact = values_and_gradients(losses.full_softmax(hidden, table, targets), hidden, table)
    low = values_and_gradients(
        losses.full_softmax(hidden, table, targets, dtype=torch.bfloat16), hidden, table
    )
    for one, other in zip(low, exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.02 * other.norm()
    assert not torch.equal(low[1], exact[1])  # it was in fact computed in the other type


def test_a_loss_that_is_not_a_number_stays_visible() -> None:
    hidden, table, targets = inputs()
    with torch.no_grad():
        hidden[3, 0] = float("nan")
    assert torch.isnan(losses.full_softmax(hidden, table, targets))


@pytest.mark.parametrize("shared", [True, False])
def test_sampled_softmax_is_cross_entropy_over_target_and_sample_with_hits_left_out(shared: bool) -> None:
    hidden, table, targets = inputs()
    negatives = torch.randint(90, (12,) if shared else (70, 12))
    negatives[..., 0] = targets[0]
    rows = []
    for place in range(70):
        drawn = (negatives if shared else negatives[place]).tolist()
        kept = [int(targets[place]), *[item for item in drawn if item != targets[place]]]
        rows.append(cross_entropy((table[kept] @ hidden[place])[None], torch.tensor([0])))
    expected = values_and_gradients(torch.stack(rows).mean(), hidden, table)
    found = values_and_gradients(losses.sampled_softmax(hidden, table, targets, negatives), hidden, table)
    close(found, expected)


def test_corrected_sampling_estimates_the_sum_over_all_items_without_bias() -> None:
    hidden, table, targets = inputs(places=1, items=4)
    share = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    scores = (hidden @ table.T)[0]
    target, drawn = int(targets[0]), 2
    others = [item for item in range(4) if item != target]
    estimate = torch.zeros((), dtype=torch.float64)
    for sample in itertools.product(range(4), repeat=drawn):
        loss = losses.sampled_softmax(
            hidden, table, targets, torch.tensor(sample), log_expected=(share * drawn).log()
        )
        chance = share[list(sample)].prod()
        estimate += chance * ((loss + scores[target]).exp() - scores[target].exp())
    torch.testing.assert_close(estimate, scores[others].exp().sum())


@pytest.mark.parametrize("shared", [True, False])
def test_bce_is_binary_cross_entropy_summed_over_target_and_negatives(shared: bool) -> None:
    hidden, table, targets = inputs()
    negatives = torch.randint(90, (5,) if shared else (70, 5))
    drawn = negatives.expand(70, 5)
    positive = (hidden * table[targets]).sum(1)
    negative = torch.einsum("td,tmd->tm", hidden, table[drawn])
    apart = binary_cross_entropy_with_logits(negative, torch.zeros_like(negative), reduction="none")
    apart = torch.where(drawn == targets[:, None], torch.zeros_like(apart), apart)
    together = binary_cross_entropy_with_logits(positive, torch.ones_like(positive), reduction="none")
    expected = values_and_gradients((together + apart.sum(1)).mean(), hidden, table)
    close(values_and_gradients(losses.bce(hidden, table, targets, negatives), hidden, table), expected)


def test_beta_of_gbce_runs_from_plain_to_fully_calibrated() -> None:
    assert losses.gbce_beta(0.1, 0.0) == pytest.approx(1.0)
    assert losses.gbce_beta(0.1, 1.0) == pytest.approx(0.1)
    # arXiv 2308.07192: beta = a (t (1 - 1/a) + 1/a)
    assert losses.gbce_beta(0.25, 0.75) == pytest.approx(0.25 * (0.75 * (1 - 4) + 4))


def test_gbce_is_the_published_transformed_logit_form() -> None:
    hidden, table, targets = inputs()
    negatives = torch.randint(90, (70, 8))
    negatives = torch.where(negatives == targets[:, None], (negatives + 1) % 90, negatives)
    beta = losses.gbce_beta(8 / 89, 0.75)
    scores = torch.einsum("td,tmd->tm", hidden, table[torch.cat([targets[:, None], negatives], 1)])
    # the authors' form: sigmoid(transformed) = sigmoid(positive) ** beta
    powered = torch.sigmoid(scores[:, :1]) ** beta
    transformed = (powered / (1 - powered)).log()
    logits = torch.cat([transformed, scores[:, 1:]], 1)
    truth = torch.zeros_like(logits)
    truth[:, 0] = 1
    expected = values_and_gradients(
        binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(-1).mean(), hidden, table
    )
    found = values_and_gradients(losses.gbce(hidden, table, targets, negatives), hidden, table)
    close(found, expected, 1e-7)  # the transformed form itself loses digits near 1


def test_gbce_without_calibration_is_bce_as_a_mean() -> None:
    hidden, table, targets = inputs()
    negatives = torch.randint(90, (8,))
    plain = losses.bce(hidden, table, targets, negatives) / 9
    close([losses.gbce(hidden, table, targets, negatives, calibration=0.0)], [plain])
