"""The dual view: what an item's two views depend on, and what they may not depend on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from featurestore.errors import BadInput
from ingest.fuse.dual import DualView, Fusion, OneToken
from ingest.fuse.stored import Stored, Tokens, Vectors

N, WIDTH = 9, 6
COARSE, FINE = ("image", "text"), ("title", "chunks")
LACKS = 4  # an item without any feature
NO_FINE, NO_COARSE = 5, 6


def catalogue(seed: int = 0) -> dict[str, Stored]:
    random = np.random.default_rng(seed)

    def one(wide: int, missing: tuple[int, ...]) -> Vectors:
        values = random.normal(size=(N, wide)).astype(np.float32)
        present = np.ones(N, dtype=np.bool_)
        present[list(missing)] = False
        values[~present] = np.nan  # never to be read
        return Vectors(values, present)

    def several(wide: int, counts: list[int]) -> Tokens:
        values = random.normal(size=(sum(counts), wide)).astype(np.float32)
        return Tokens(values, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    return {
        "image": one(5, (2, LACKS, NO_COARSE)),
        "text": one(4, (LACKS, NO_COARSE)),
        "title": one(3, (LACKS, NO_FINE)),
        "chunks": several(7, [3, 1, 2, 4, 0, 0, 2, 1, 3]),
    }


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def made(
    stored: Mapping[str, Stored] | None = None,
    coarse: tuple[str, ...] = COARSE,
    fine: tuple[str, ...] = FINE,
    **options: object,
) -> DualView:
    """With weights of which no part is near nothing, so that what is read is felt."""
    torch.manual_seed(0)
    fusion = Fusion(**({"width": WIDTH, "scaling": "standard"} | options))  # type: ignore[arg-type]
    view = DualView(stored or catalogue(), coarse, fine, fusion)
    with torch.no_grad():
        for weight in view.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return view.eval()


def both(view: DualView, *args: object) -> Tensor:
    """(n, 2, d)."""
    found = view(*args)
    return torch.stack([found.coarse, found.fine], dim=1)


def replaced(stored: dict[str, Stored], item: int) -> dict[str, Stored]:
    """The same catalogue with other vectors of one item."""
    other = {}
    for name, given in stored.items():
        values = given.values.copy()
        if isinstance(given, Tokens):
            values[given.offsets[item] : given.offsets[item + 1]] += 3
            other[name] = Tokens(values, given.offsets)
        else:
            values[item] += 3
            other[name] = Vectors(values, given.present)
    return other


@pytest.mark.parametrize("pooling", ["mean", "gated"])
@pytest.mark.parametrize("attend", ["both", "coarse", "fine", "none"])
def test_rows_are_rows_of_all_items_and_all_are_numbers(attend: str, pooling: str) -> None:
    view = made(attend=attend, pooling=pooling)
    found = view()
    assert found.coarse.shape == found.fine.shape == (N, WIDTH)
    assert torch.equal(found.joint, torch.cat([found.coarse, found.fine], dim=1))
    assert view.out_dim == 2 * WIDTH
    assert torch.isfinite(found.joint).all()
    rows = torch.tensor([3, LACKS, 3, 0, NO_FINE, NO_COARSE, 8])
    torch.testing.assert_close(both(view, rows), both(view)[rows], rtol=1e-4, atol=1e-5)
    view(rows).joint.square().sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in view.parameters() if weight.grad is not None)


@pytest.mark.parametrize("item", [0, 3, 7])
def test_an_items_views_depend_on_its_own_tokens_only(item: int) -> None:
    stored = catalogue()
    view = made(stored)
    before = both(view, None, view.placed(stored))
    moved = (both(view, None, view.placed(replaced(stored, item))) - before).abs().amax(dim=(1, 2)) > 1e-4
    assert moved.tolist() == [other == item for other in range(N)]


@pytest.mark.parametrize("pooling", ["mean", "gated"])
def test_the_order_of_the_tokens_of_one_feature_is_of_no_account(pooling: str) -> None:
    stored = catalogue()
    view = made(stored, pooling=pooling)
    chunks = stored["chunks"]
    assert isinstance(chunks, Tokens)
    values = chunks.values.copy()
    for first, end in zip(chunks.offsets[:-1], chunks.offsets[1:], strict=True):
        values[first:end] = values[first:end][::-1]
    turned = stored | {"chunks": Tokens(values, chunks.offsets)}
    torch.testing.assert_close(both(view, None, view.placed(turned)), both(view), rtol=1e-4, atol=1e-5)


def test_other_items_in_the_catalogue_do_not_change_an_items_views() -> None:
    """As many tokens as the item that has most are laid out for every item; they must not be felt."""
    stored = catalogue()
    view = made(stored)
    for item in range(N):
        alone = {name: given.take(np.array([item])) for name, given in stored.items()}
        torch.testing.assert_close(
            both(view, None, view.placed(alone)), both(view)[item : item + 1], rtol=1e-4, atol=1e-5
        )


def test_items_that_came_later_are_viewed_as_items_of_the_catalogue_are() -> None:
    stored = catalogue()
    view = made(stored)
    rows = np.array([8, LACKS, NO_FINE, 1, 1])
    later = {name: given.take(rows) for name, given in stored.items()}
    torch.testing.assert_close(both(view, None, view.placed(later)), both(view)[rows], rtol=1e-4, atol=1e-5)
    none = {name: given.take(np.zeros(0, dtype=np.int64)) for name, given in stored.items()}
    assert view(None, view.placed(none)).joint.shape == (0, 2 * WIDTH)
    with pytest.raises(BadInput, match="needs the feature 'text'"):
        view.placed({"image": stored["image"]})
    with pytest.raises(BadInput, match="size 5; the model learnt from 4"):
        view.placed(stored | {"text": stored["image"]})


@pytest.mark.parametrize(
    ("attend", "coarse_feels", "fine_feels"),
    [
        ("none", "coarse", "fine"),
        ("coarse", "coarse fine", "fine"),
        ("fine", "coarse", "coarse fine"),
        ("both", "coarse fine", "coarse fine"),
    ],
)
def test_a_view_feels_the_other_side_only_where_its_side_attends_to_it(
    attend: str, coarse_feels: str, fine_feels: str
) -> None:
    stored = catalogue()
    view = made(stored, attend=attend)
    before = view()
    for side, names in (("coarse", COARSE), ("fine", FINE)):
        other = replaced(stored, 3)
        found = view(placed=view.placed({n: (other if n in names else stored)[n] for n in stored}))
        assert ((found.coarse - before.coarse)[3].abs().max() > 1e-4) == (side in coarse_feels.split())
        assert ((found.fine - before.fine)[3].abs().max() > 1e-4) == (side in fine_feels.split())


def test_an_item_without_tokens_on_a_side_has_the_learned_one_there() -> None:
    view = made(attend="none")
    before = both(view)
    with torch.no_grad():
        view.coarse.missing += torch.arange(WIDTH)
    changed = (both(view) - before).abs().amax(dim=2) > 1e-4
    assert changed[:, 0].tolist() == [item in (LACKS, NO_COARSE) for item in range(N)]
    assert not changed[:, 1].any()
    with torch.no_grad():
        view.fine.missing += torch.arange(WIDTH)
    changed = (both(view) - before).abs().amax(dim=2) > 1e-4
    assert changed[:, 1].tolist() == [item in (LACKS, NO_FINE) for item in range(N)]  # a chunk is enough


@pytest.mark.parametrize("given", [(COARSE, ()), ((), FINE)])
def test_a_side_without_features_reads_the_other_sides(
    given: tuple[tuple[str, ...], tuple[str, ...]],
) -> None:
    view = made(None, *given)
    found = view()
    assert torch.isfinite(found.joint).all()
    assert not torch.allclose(found.coarse, found.fine)
    apart = made(None, *given, attend="none", norm=False)()
    torch.testing.assert_close(apart.coarse[:4], apart.fine[:4])  # the same tokens, pooled


@pytest.mark.parametrize(
    ("coarse", "fine", "attend", "warned"),
    [
        (("text",), ("title",), "both", ["coarse", "fine"]),
        (("text",), ("title",), "none", []),
        (("text",), ("title",), "coarse", ["fine"]),
        (("text",), ("chunks",), "both", ["coarse"]),
        (("text",), ("chunks",), "coarse", []),
        (("text",), ("chunks",), "fine", ["coarse"]),
        (("text", "image"), ("title",), "both", ["fine"]),
        (("text", "image"), ("chunks",), "both", []),
        (("text", "image"), (), "both", []),
        (("text",), (), "both", ["coarse", "fine"]),
    ],
)
def test_attention_to_one_token_an_item_is_told_and_nothing_else_is(
    coarse: tuple[str, ...], fine: tuple[str, ...], attend: str, warned: list[str]
) -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        DualView(catalogue(), coarse, fine, Fusion(WIDTH, attend=attend))  # type: ignore[arg-type]
    assert sorted(str(w.message).split(" side")[0].removeprefix("the ") for w in found) == warned
    assert all(w.category is OneToken for w in found)


def test_one_item_of_two_tokens_does_not_silence_it() -> None:
    """What counts is how many items have a choice."""
    given = catalogue()
    chunks = given["chunks"]
    assert isinstance(chunks, Tokens)
    for most, told in ((1, f"one token in {1 - 1 / len(chunks):.0%} of the items"), (len(chunks), "")):
        counts = np.where(np.arange(len(chunks)) < most, 2, 1)
        few = Tokens(np.ones((int(counts.sum()), chunks.width), np.float32), np.r_[0, np.cumsum(counts)])
        few.values[:] = np.random.default_rng(0).normal(size=few.values.shape)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            DualView(given | {"chunks": few}, ("text",), ("chunks",), Fusion(WIDTH, attend="coarse"))
        assert [told in str(w.message) for w in found] == ([True] if told else [])


def test_with_one_token_a_side_the_view_that_asks_is_linear_in_the_other_side() -> None:
    """The collapse that the warning speaks of: without residual, what asks is not heard."""
    stored = catalogue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        view = made(stored, ("text",), ("title",), attend="coarse", residual=False, norm=False)
    before = view().coarse
    other = replaced(stored, 0)
    asked = view(placed=view.placed(stored | {"text": other["text"]})).coarse
    answered = view(placed=view.placed(stored | {"title": other["title"]})).coarse
    torch.testing.assert_close(asked, before, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(answered[0], before[0], atol=1e-3)


def test_residual_and_norm_do_what_they_say() -> None:
    without = made(residual=False, norm=False)
    for found in (made()().coarse, made()().fine):
        assert not torch.allclose(found, without().coarse, atol=1e-3)
    plain = made(norm=True)
    with torch.no_grad():
        plain.norm_coarse.weight.fill_(1)
        plain.norm_coarse.bias.zero_()
    torch.testing.assert_close(plain().coarse.mean(1), torch.zeros(N), rtol=0, atol=1e-5)
    assert not any("norm" in name for name, _ in without.named_parameters())


@pytest.mark.parametrize("attend", ["both", "none"])
def test_tokens_are_hidden_while_learning_only_and_never_leave_nothing(attend: str) -> None:
    view = made(token_dropout=0.9, attend=attend)
    assert torch.equal(both(view), both(view))
    view.train()
    found = [both(view) for _ in range(5)]
    assert not torch.equal(found[0], found[1])
    assert torch.isfinite(torch.stack(found)).all()
    torch.stack(found).square().sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in view.parameters() if weight.grad is not None)
    assert view.coarse.missing.grad is not None
    assert view.coarse.missing.grad.any()  # most items were left without any


def test_every_part_is_learnt() -> None:
    view = made(pooling="gated")
    (view().joint * torch.randn(N, 2 * WIDTH)).sum().backward()
    untouched = [
        name for name, weight in view.named_parameters() if weight.grad is None or not weight.grad.any()
    ]
    assert untouched == []


def test_aligned_views_are_the_coarse_ones_before_fusion() -> None:
    stored = catalogue()
    view = made(stored)
    views, there = view.aligned()
    assert views.shape == (N, 2, WIDTH)
    assert there.tolist() == [[bool(stored[n].present[i]) for n in COARSE] for i in range(N)]
    rows = torch.tensor([7, 1])
    some, some_there = view.aligned(rows)
    torch.testing.assert_close(some, views[rows], rtol=1e-4, atol=1e-5)
    assert torch.equal(some_there, there[rows])
    with torch.no_grad():
        for weight in view.to_fine.parameters():  # type: ignore[union-attr]
            weight.add_(1)
    torch.testing.assert_close(view.aligned()[0], views)
    only_fine = made(stored, (), FINE)
    none, none_there = only_fine.aligned(rows)
    assert none.shape == (2, 0, WIDTH)
    assert none_there.shape == (2, 0)


def test_stored_vectors_are_no_weights() -> None:
    kept = made().state_dict()
    assert not any(name.endswith((".scaled", ".places", ".rows", ".there")) for name in kept)
    assert {f"sources.{name}.scaling.matrix" for name in (*COARSE, *FINE)} <= set(kept)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(BadInput, match="at least one feature"):
        DualView({}, (), (), Fusion(WIDTH))
    with pytest.raises(BadInput, match="width 6 cannot be shared by 4 heads"):
        DualView(catalogue(), COARSE, FINE, Fusion(WIDTH, heads=4))
    stored = catalogue()
    stored["chunks"].values[0, 0] = np.inf
    with pytest.raises(BadInput, match="'chunks' has vectors with NaN or infinite"):
        DualView(stored, COARSE, FINE, Fusion(WIDTH, scaling="none"))
