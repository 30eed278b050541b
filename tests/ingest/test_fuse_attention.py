"""Attention between two sets of tokens against torch's own, and what its masks must keep out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ingest.fuse.attention import CrossAttention, Pool

N, ASKING, OTHERS, WIDTH = 5, 3, 4, 8


def made(heads: int = 2, **options: float) -> CrossAttention:
    torch.manual_seed(0)
    return CrossAttention(WIDTH, heads, **options).double().eval()


def tokens(count: int, seed: int = 1) -> Tensor:
    return torch.randn(N, count, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mask() -> Tensor:
    there = torch.rand(N, OTHERS, generator=torch.Generator().manual_seed(2)) > 0.4
    there[:, 1] = True
    assert not there.all()
    return there


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_it_is_torchs_own_attention_with_the_same_weights(heads: int) -> None:
    ours = made(heads)
    theirs = nn.MultiheadAttention(WIDTH, heads, batch_first=True, dtype=torch.float64).eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        # whatever the keys' bias is, no share depends on it
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, torch.randn(WIDTH), ours.value.bias]))
        theirs.out_proj.weight.copy_(ours.outward.weight)
        theirs.out_proj.bias.copy_(ours.outward.bias)
    queries, others, there = tokens(ASKING), tokens(OTHERS, seed=3), mask()
    expected, _ = theirs(queries, others, others, key_padding_mask=~there)
    found = ours(queries, others, there)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_weights_of_before_keys_lost_their_bias_are_read() -> None:
    ours, other = made(2), made(2)
    other.load_state_dict(ours.state_dict() | {"key.bias": torch.ones(WIDTH)})
    queries, others, there = tokens(ASKING), tokens(OTHERS, seed=3), mask()
    assert torch.equal(ours(queries, others, there), other(queries, others, there))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_pooled_answers_are_the_answers_pooled(dropout: float) -> None:
    attention = made(4, dropout=dropout).train()
    queries, others, there = tokens(ASKING).requires_grad_(), tokens(OTHERS, seed=3), mask()
    weights = torch.rand(N, ASKING, dtype=torch.float64)
    sums = []
    for way in ("each", "pooled"):
        torch.manual_seed(7)
        attention.zero_grad()
        queries.grad = None
        if way == "each":
            found = torch.einsum("nq,nqd->nd", weights, attention(queries, others, there))
        else:
            found = attention.pooled(weights, queries, others, there)
        found.square().sum().backward()
        grads = [weight.grad.clone() for weight in attention.parameters() if weight.grad is not None]
        assert queries.grad is not None
        sums.append([found, queries.grad.clone(), *grads])
    for one, other in zip(*sums, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_a_mask_for_each_query_apart_is_read_so() -> None:
    attention = made()
    queries, others = tokens(ASKING), tokens(OTHERS, seed=3)
    apart = torch.rand(N, ASKING, OTHERS, generator=torch.Generator().manual_seed(4)) > 0.4
    apart[..., 0] = True
    found = attention(queries, others, apart)
    for asking in range(ASKING):
        alone = attention(queries[:, asking : asking + 1], others, apart[:, asking])
        torch.testing.assert_close(found[:, asking : asking + 1], alone, rtol=1e-10, atol=1e-10)


def test_masked_tokens_never_matter_and_others_do() -> None:
    attention, queries, others, there = made(), tokens(ASKING), tokens(OTHERS, seed=3), mask()
    before = attention(queries, others, there)
    spoiled = torch.where(there[..., None], others, torch.full_like(others, 1e6))
    torch.testing.assert_close(attention(queries, spoiled, there), before, rtol=0, atol=0)
    moved = others.clone().requires_grad_()
    attention(queries, moved, there).square().sum().backward()
    assert moved.grad is not None
    assert torch.equal(moved.grad.abs().sum(-1) > 0, there)


def test_one_row_is_answered_alone_as_in_company() -> None:
    attention, queries, others, there = made(), tokens(ASKING), tokens(OTHERS, seed=3), mask()
    found = attention(queries, others, there)
    for row in range(N):
        part = slice(row, row + 1)
        alone = attention(queries[part], others[part], there[part])
        torch.testing.assert_close(found[part], alone, rtol=1e-10, atol=1e-10)


def test_over_one_token_it_is_a_linear_map_that_no_query_can_move() -> None:
    attention = made()
    others = tokens(1, seed=3)
    there = torch.ones(N, 1, dtype=torch.bool)
    one, other = (attention(tokens(ASKING, seed), others, there) for seed in (5, 6))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    value = attention.value(others)
    torch.testing.assert_close(one[:, :1], attention.outward(value), rtol=1e-10, atol=1e-10)
    several = tokens(OTHERS, seed=3)
    one, other = (attention(tokens(ASKING, seed), several, mask()) for seed in (5, 6))
    assert not torch.allclose(one, other, atol=1e-3)


def test_the_order_of_what_is_attended_to_is_of_no_account() -> None:
    attention, queries, others, there = made(), tokens(ASKING), tokens(OTHERS, seed=3), mask()
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        attention(queries, others[:, order], there[:, order]), attention(queries, others, there)
    )


def test_nothing_asked_is_answered_with_nothing() -> None:
    found = made()(tokens(ASKING)[:0], tokens(OTHERS)[:0], mask()[:0])
    assert found.shape == (0, ASKING, WIDTH)


def test_dropped_weights_are_dropped_while_learning_only() -> None:
    attention = made(dropout=0.5)
    given = tokens(ASKING), tokens(OTHERS, seed=3), mask()
    assert torch.equal(attention(*given), attention(*given))
    attention.train()
    assert not torch.equal(attention(*given), attention(*given))


@pytest.mark.parametrize("kind", ["mean", "gated"])
def test_a_pool_reads_only_what_is_there_and_knows_no_order(kind: str) -> None:
    torch.manual_seed(0)
    pool, others, there = Pool(WIDTH, kind).double(), tokens(OTHERS), mask()
    before = pool(others, there)
    assert torch.equal(before > 0, there)
    torch.testing.assert_close(before.sum(dim=1), torch.ones(N, dtype=torch.float64))
    spoiled = torch.where(there[..., None], others, torch.full_like(others, 1e6))
    torch.testing.assert_close(pool(spoiled, there), before, rtol=0, atol=0)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(pool(others[:, order], there[:, order]), before[:, order])
    alike = there / there.sum(dim=1, keepdim=True)
    assert torch.allclose(before, alike.double()) == (kind == "mean")
