"""Weights of a fused item: learned from items alone, or taken from a run."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from featurestore.errors import BadInput
from ingest.encode.dmesr import FuseOptions
from ingest.fuse.apply import WEIGHTS, Fuser, files_of, load_view
from ingest.fuse.dual import DualView, Fusion
from ingest.fuse.stored import Stored, Tokens, Vectors
from recommender import fusion
from recommender.config import Config
from recommender.fit import fit
from recommender.fusion import Halves, ItemBatches
from recommender.items import DualTower
from tests.recommender import shelves

QUICK = FuseOptions(
    width=8, epochs=40, patience=40, batch=32, hold_out=0.2, lr=1e-2, scaling="whiten", token_dropout=0.3
)


def catalogue(n: int = 160, seed: int = 0) -> tuple[dict[str, Stored], np.ndarray]:
    """Items that two coarse inputs and a fine one tell of, each in a language of its own and with noise; ids."""
    draw = np.random.default_rng(seed)
    meant = draw.normal(size=(n, 4))

    def told(rows: np.ndarray, width: int) -> np.ndarray:
        return (rows @ draw.normal(size=(4, width)) + 0.2 * draw.normal(size=(len(rows), width))).astype(
            np.float32
        )

    counts = draw.integers(1, 4, n)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return {
        "text": Vectors(told(meant, 8), np.ones(n, np.bool_)),
        "image": Vectors(told(meant, 6), draw.random(n) < 0.8),
        "fine": Tokens(told(np.repeat(meant, counts, axis=0), 5), offsets),
    }, np.array([f"i{row:03d}" for row in range(n)])


@pytest.fixture(scope="module")
def learned() -> fusion.Fit:
    return fusion.learn(*catalogue(), QUICK, device="cpu")


def figures(found: fusion.Fit, when: str) -> dict[str, dict[str, float]]:
    return {row["views"]: row for row in found.report if row["when"] == when}


def test_views_of_items_that_were_held_out_agree_better_than_before(learned: fusion.Fit) -> None:
    assert (learned.learnt, learned.held_out) == (128, 32)
    assert (learned.coarse, learned.fine) == (["text", "image"], ["fine"])
    before, after = figures(learned, "before"), figures(learned, "after")
    pairs = {"text ~ image", "text ~ fine", "image ~ fine"}
    assert set(after) == pairs | {"coarse ~ fine", "coarse alone ~ fine alone", "half ~ half"}
    for views in ("text ~ image", "coarse alone ~ fine alone", "coarse ~ fine"):
        assert after[views]["recall@10"] > before[views]["recall@10"] + 0.1
        assert after[views]["alignment"] < before[views]["alignment"]
    assert after["text ~ image"]["items"] < 32  # those that have both


def test_the_best_epoch_is_kept_and_terms_are_told(learned: fusion.Fit) -> None:
    rows = learned.history
    best = max(rows, key=lambda row: row["valid_recall@1"])
    assert rows[learned.best_epoch - 1]["valid_recall@1"] == best["valid_recall@1"]
    assert learned.epochs == len(rows) <= QUICK.epochs
    for row in rows:
        assert row["loss"] == pytest.approx(row["view"] + row["cross"] + row["align"], abs=1e-5)
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_the_same_seed_gives_the_same_weights_and_another_others() -> None:
    short = QUICK.model_copy(update={"epochs": 2})
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = fusion.learn(*catalogue(), short, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    files = [
        files_of(each.view, each.coarse, each.fine, each.scale)
        for each in (
            one,
            fusion.learn(*catalogue(), short, device="cpu"),
            fusion.learn(*catalogue(), short.model_copy(update={"seed": 1}), device="cpu"),
        )
    ]
    assert files[0] == files[1]
    assert files[0][WEIGHTS] != files[2][WEIGHTS]


def test_nothing_of_the_items_held_out_is_learned_from() -> None:
    """Their vectors may be anything: weights and scalings are the same, and only the report differs."""
    short = QUICK.model_copy(update={"epochs": 1})
    stored, ids = catalogue()
    one = fusion.learn(stored, ids, short, device="cpu")
    _, held = fusion.held_out(stored, ids, short)
    text = stored["text"]
    assert isinstance(text, Vectors)
    values = text.values.copy()
    values[held] = 7 * np.roll(values[held], 1, axis=1)
    two = fusion.learn(stored | {"text": Vectors(values, text.present)}, ids, short, device="cpu")
    assert files_of(one.view, one.coarse, one.fine) == files_of(two.view, two.coarse, two.fine)
    assert one.report != two.report


def test_an_item_stays_held_out_while_others_come() -> None:
    stored, ids = catalogue(100)
    more, longer = catalogue(150)
    held = {str(ids[row]) for row in fusion.held_out(stored, ids, QUICK)[1]}
    train, later = (set(map(str, longer[rows])) for rows in fusion.held_out(more, longer, QUICK))
    assert not train & later
    assert (
        len(held & later) > len(held) * 0.6
    )  # the share is of a longer list: those at its end may change sides


def test_items_without_a_vector_are_left_out_and_too_few_are_refused() -> None:
    stored, ids = catalogue(30)
    some = np.arange(30) < 7
    bare: dict[str, Stored] = {
        "text": Vectors(stored["text"].means, some),
        "more": Vectors(stored["image"].means, some),
    }
    with pytest.raises(BadInput, match="7 items have a vector"):
        fusion.learn(bare, ids, QUICK, device="cpu")
    bare["text"] = Vectors(stored["text"].means, np.arange(30) < 20)
    train, held = fusion.held_out(bare, ids, QUICK)
    assert sorted([*train, *held]) == list(range(20))


def test_batches_of_an_epoch_hold_each_item_once_and_epochs_differ() -> None:
    batches = ItemBatches(50, 16, seed=3)
    one, again, two = (torch.cat(list(batches.epoch(number))).tolist() for number in (1, 1, 2))
    assert len(batches) == 3
    assert len(set(one)) == len(one) == 48
    assert one == again != two
    assert len(ItemBatches(5, 16, seed=0)) == 1


@pytest.mark.parametrize("align", ["infonce", "soft", "none"])
def test_the_loss_is_the_sum_of_its_terms(align: str) -> None:
    stored, _ = catalogue(40)
    options = FuseOptions.model_validate({"width": 8, "align": align, "learn_temperature": True})
    view = DualView(stored, ["text", "image"], ["fine"], Fusion(width=8, token_dropout=0.3))
    objective = Halves(view, options).train()
    terms = objective(torch.arange(20))
    assert ("align" in terms) == (align != "none")
    parts = sum(float(term.detach()) for name, term in terms.items() if name != "loss")
    assert float(terms["loss"].detach()) == pytest.approx(parts, rel=1e-5)
    terms["loss"].backward()
    assert objective.temperature.log.grad is not None


def test_either_view_alone_sees_nothing_of_the_other_side() -> None:
    stored, _ = catalogue(40)
    view = DualView(stored, ["text", "image"], ["fine"], Fusion(width=8)).eval()
    apart = fusion._apart(view, view.placed(stored))
    assert apart is not None
    changed = dict(stored)
    fine = stored["fine"]
    assert isinstance(fine, Tokens)
    changed["fine"] = Tokens(fine.values[::-1].copy(), fine.offsets)
    again = fusion._apart(view, view.placed(changed))
    assert again is not None
    torch.testing.assert_close(apart[0][:, 0], again[0][:, 0])
    assert not torch.allclose(apart[0][:, 1], again[0][:, 1])
    both_read_the_same = DualView(stored, ["text", "image"], [], Fusion(width=8)).eval()
    assert fusion._apart(both_read_the_same, both_read_the_same.placed(stored)) is None


def test_stored_vectors_are_compared_where_their_sizes_agree() -> None:
    stored, _ = catalogue(40)
    assert fusion.raw(stored) == []
    twice = {"text": stored["text"], "again": stored["text"], "image": stored["image"]}
    (row,) = fusion.raw(twice)
    assert (row["views"], row["recall@1"], row["alignment"]) == (
        "text ~ again",
        1.0,
        pytest.approx(0, abs=1e-6),
    )


def test_an_item_that_came_later_lies_near_what_it_is_like(learned: fusion.Fit, tmp_path: Path) -> None:
    for name, data in files_of(learned.view, learned.coarse, learned.fine).items():
        (tmp_path / name).write_bytes(data)
    stored, _ = catalogue()
    joint = Fuser.load(tmp_path, output="joint").fuse(stored)
    text = stored["text"]
    assert isinstance(joint, Vectors)
    assert isinstance(text, Vectors)
    nothing = np.zeros(1, np.bool_)
    later: dict[str, Stored] = {
        "text": Vectors(text.values[5:6] + 0.01, ~nothing),
        "image": Vectors(np.zeros((1, 6), np.float32), nothing),
        "fine": Tokens(np.zeros((0, 5), np.float32), np.zeros(2, np.int64)),
    }
    found = Fuser.load(tmp_path, output="joint").fuse(later)
    assert 5 in np.argsort(-(joint.values @ found.values[0]))[:8]


# ---- from a run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a release, and two runs on it: one of a dual tower, one of a plain one."""
    store = shelves.build(tmp_path_factory.mktemp("runs") / "store")
    release = store.publish(allow_stale=True)
    small = {"width": 8, "length": 6, "batch": 32, "epochs": 1, "layers": 1, "heads": 1}
    for name, tower in (("dual-001", "dmesr"), ("plain-001", "sum")):
        config = Config.of(**small | {"items": "id+text+brought", "tower": tower})
        fit(release, config, store.root / "runs" / name, device="cpu")
    return store.root


def test_the_weights_of_a_run_give_what_its_tower_gives(root: Path, tmp_path: Path) -> None:
    from recommender.runs import open_run

    run = open_run(root, "dual-001")
    found = fusion.of_run(run)
    assert (found.coarse, found.fine, found.held_out) == (["text", "brought"], [], 0)
    for name, data in files_of(found.view, found.coarse, found.fine, found.scale).items():
        (tmp_path / name).write_bytes(data)
    release = run.opened_release()
    stored = {
        name: Vectors.aligned(release.matrix(name).ids, release.matrix(name).values, run.item_ids)
        for name in ("text", "brought")
    }
    tower = run.load_model().tower
    assert isinstance(tower, DualTower)
    joint = Fuser.load(tmp_path, output="joint", normalised=False).fuse(stored)
    np.testing.assert_allclose(joint.values, tower.embed(stored).detach().numpy(), atol=1e-5)
    view, scale = load_view(tmp_path)
    assert torch.equal(scale, tower.scale.detach())
    assert {row["when"] for row in found.report} == {"raw", "after"}
    assert len(list(itertools.chain(view.parameters()))) > 0


def test_a_run_of_another_tower_has_no_weights_to_take(root: Path) -> None:
    from recommender.runs import open_run

    with pytest.raises(BadInput, match="the tower 'sum', which fuses no views"):
        fusion.of_run(open_run(root, "plain-001"))
