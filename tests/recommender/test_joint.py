"""The joint loss, its terms in the history, and the options of towers that are refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dualview.cli import app
from dualview.training import parse_options
from featurestore.errors import BadInput
from ingest.fuse.align import LOSSES
from ingest.fuse.dual import OneToken
from recommender import checkpoint, losses, objectives
from recommender.config import ONLY_IN, Config
from recommender.fit import fit
from recommender.items import DualTower, Stored, Tokens, Vectors
from recommender.items.build import build as build_tower
from recommender.model import build
from recommender.objectives import ItemLoss
from recommender.sequences import Batch, TrainingBatches
from recommender.splits import Split
from tests.recommender.learning import ring
from tests.recommender.test_fit import Killed, killed_after, same, weights

N = 20
SMALL = {"width": 16, "length": 8, "batch": 16, "epochs": 3, "layers": 1, "patience": 50, "lr": 1e-2}
DMESR = {"tower": "dmesr", "items": "id+text+image+chunks"}
STILL = {"dropout": 0.0, "id_dropout": 0.0}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OneToken)
        yield


def features() -> dict[str, Stored]:
    random = np.random.default_rng(0)

    def one(missing: int) -> Vectors:
        present = np.arange(N) != missing
        return Vectors(random.normal(size=(N, 6)).astype(np.float32), present)

    counts = random.integers(0, 4, size=N)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return {
        "text": one(3),
        "image": one(8),
        "chunks": Tokens(random.normal(size=(counts.sum(), 5)).astype(np.float32), offsets),
    }


def made(split: Split, **options: object) -> tuple[ItemLoss, Batch]:
    config = Config.of(**(SMALL | DMESR | STILL | options))
    torch.manual_seed(0)
    model = build(config, split.counts, features())
    objective = objectives.build(model, config, split, features())
    batch, *_ = TrainingBatches(split, length=model.backbone.reads, batch=30, seed=0).epoch(1)
    return objective, batch


def told(objective: ItemLoss, batch: Batch) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return objective(batch)


@pytest.mark.parametrize("align", LOSSES)
@pytest.mark.parametrize("backbone", ["sasrec", "bert4rec"])
def test_the_loss_is_that_of_recommending_and_a_weight_times_that_of_aligning(
    backbone: str, align: str
) -> None:
    objective, batch = made(ring(), backbone=backbone, align=align, align_weight=0.3)
    terms = told(objective, batch)
    assert list(terms) == ["loss", "rec", "align"]
    torch.testing.assert_close(terms["loss"], terms["rec"] + 0.3 * terms["align"])
    tower = objective.model.tower
    assert isinstance(tower, DualTower)
    rows = torch.from_numpy(np.unique(batch.targets.numpy()))
    rows = rows[(rows != 3) & (rows != 8)]  # those have one of the two views only
    text, image = (tower.view.sources[name](rows)[0][:, 0] for name in ("text", "image"))
    temperature = {"infonce": 0.2, "soft": 1.0}[align]
    torch.testing.assert_close(terms["align"], LOSSES[align](text, image, temperature), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["sasrec", "bert4rec"])
@pytest.mark.parametrize("off", [{"align_weight": 0.0}, {"align": "none"}])
def test_without_alignment_the_loss_is_the_plain_one(off: dict[str, object], backbone: str) -> None:
    split = ring()
    plain = told(*made(split, backbone=backbone, **off))
    assert list(plain) == ["loss"]
    assert torch.equal(plain["loss"], told(*made(split, backbone=backbone))["rec"])


def test_no_item_is_twice_in_an_alignment_batch_and_none_is_of_another_batch() -> None:
    objective, batch = made(ring(), align_items=6)
    targets = batch.targets.tolist()
    assert len(set(targets)) < len(targets)
    drawn = []
    for seed in range(20):
        torch.manual_seed(seed)
        rows = objective._different(batch).tolist()
        assert len(rows) == len(set(rows)) == 6
        assert set(rows) <= set(targets)
        drawn.append(rows)
    assert set().union(*drawn) == set(targets)
    whole, _ = made(ring(), align_items=512)
    assert sorted(whole._different(batch).tolist()) == sorted(set(targets))


def test_alignment_teaches_adapters_and_not_ids_backbone_or_attention() -> None:
    objective, batch = made(ring(), align_learned=True)
    told(objective, batch)["align"].backward()
    felt = {
        n for n, weight in objective.model.named_parameters() if weight.grad is not None and weight.grad.any()
    }
    source = "tower.view.sources."
    assert {name for name in felt if not name.startswith((f"{source}text.", f"{source}image."))} == {
        "tower.temperature.log"
    }
    assert len(felt) > 4


@pytest.mark.parametrize("loss", ["sampled_softmax", "bce", "gbce"])
@pytest.mark.parametrize("tower", ["sum", "dmesr", "llm-esr"])
def test_a_step_over_the_items_that_it_needs_is_one_over_all_of_them(tower: str, loss: str) -> None:
    items = "id+text" if tower == "llm-esr" else "id+text+image"
    align = {"align": "none"} if tower == "dmesr" else {}
    given = {"items": items, "tower": tower, "loss": loss, "negatives": 5, "negative_power": 0.5, **align}
    distill = {"distill_weight": 0.0} if tower == "llm-esr" else {}
    objective, _ = made(ring(), **given, **distill)
    objective.eval()
    batch, *_ = TrainingBatches(ring(), length=8, batch=1, seed=0).epoch(1)
    assert len(objective.step_items(batch.history.items, batch.targets).table) < N
    found = told(objective, batch)["loss"]
    hidden, table = objective.model(batch.history)
    torch.manual_seed(1)
    negatives = objective.sample(len(batch.targets), torch.device("cpu"))
    if loss == "sampled_softmax":
        expected = losses.sampled_softmax(
            hidden, table, batch.targets, negatives, log_expected=(objective.shares * 5).log()
        )
    else:
        expected = getattr(losses, loss)(hidden, table, batch.targets, negatives)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_view_that_nothing_can_be_aligned_with_costs_nothing() -> None:
    objective, batch = made(ring(), items="id+text+chunks")
    terms = told(objective, batch)
    assert terms["align"] == 0
    terms["loss"].backward()
    objective, batch = made(ring(), items="id+chunks")
    told(objective, batch)["loss"].backward()


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        (DMESR, {"loss", "rec", "align"}),
        (DMESR | {"align": "none"}, {"loss"}),
        ({"tower": "llm-esr", "items": "id+text"}, {"loss", "rec", "distill"}),
        ({"tower": "llm-esr", "items": "id+text", "distill_weight": 0.0}, {"loss"}),
    ],
)
def test_rows_of_the_history_carry_every_term(
    tmp_path: Path, options: dict[str, object], terms: set[str]
) -> None:
    config = Config.of(**(SMALL | options | {"epochs": 2}))
    run = fit(ring(), config, tmp_path / "run", features=features(), device="cpu")
    for row in run.history():
        assert {"loss", "rec", "align", "distill"} & set(row) == terms
        rest = config.align_weight * row.get("align", 0) + config.distill_weight * row.get("distill", 0)
        assert row["loss"] == pytest.approx(row.get("rec", row["loss"]) + rest, rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {
            "align_learned": True,
            "align_items": 6,
            "token_dropout": 0.2,
            "feature_dropout": 0.2,
            "average": 0.9,
        },
        {"backbone": "bert4rec", "views": "sum", "pooling": "gated", "align": "soft", "gate": "count"},
        {"backbone": "gru4rec", "across": True, "adapter": "moe", "windows": "random", "length": 4},
    ],
    ids=["sasrec", "bert4rec", "gru4rec"],
)
def test_a_killed_and_resumed_dual_view_ends_with_the_same_bits(
    tmp_path: Path, options: dict[str, object]
) -> None:
    split, given, config = ring(), features(), Config.of(**(SMALL | DMESR | {"epochs": 2} | options))
    whole = fit(split, config, tmp_path / "whole", features=given, device="cpu")
    with pytest.raises(Killed):
        fit(split, config, tmp_path / "parts", features=given, device="cpu", progress=killed_after(1))
    torch.manual_seed(99)  # what the caller's generator holds is of no account
    parts = fit(split, config, tmp_path / "parts", features=given, device="cpu")
    assert same(weights(whole), weights(parts))
    assert same(weights(whole, checkpoint.LAST), weights(parts, checkpoint.LAST))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"items": "id+text", name: value}, f"{name} is an option of tower") for name, value in {
            "views": "sum", "across": True, "view_heads": 4, "view_residual": False, "across_residual": True,
            "view_norm": False, "attend": "none", "pooling": "gated", "token_dropout": 0.1, "align": "soft",
            "align_weight": 0.2, "align_temperature": 0.5, "align_learned": True, "align_items": 9,
            "distill_weight": 0.2, "distill_users": 3,
        }.items()),
        ({"tower": "llm-esr", "items": "text"}, r"tower llm-esr has ids: write items = id\+text"),
        ({"tower": "init", "items": "text+image"}, r"tower init has ids: write items = id\+text\+image"),
        ({"tower": "llm-esr", "items": "id"}, "reads features"),
        ({"tower": "dmesr", "items": "id"}, "reads features"),
        ({"tower": "concat", "items": "id"}, "reads features"),
        ({"tower": "dmesr", "items": "text", "distill_weight": 0.2}, "distill_weight is an option of tower llm-esr"),
        ({"tower": "llm-esr", "items": "id+text", "align": "none"}, "align is an option of tower dmesr"),
        ({"tower": "dmesr", "items": "text", "width": 15, "heads": 1}, "halves the width, and 15 is odd"),
        ({"tower": "concat", "items": "id+text", "width": 15, "heads": 1}, "halves the width, and 15 is odd"),
        ({"tower": "dmesr", "items": "text", "width": 12, "heads": 4}, "views of width 6 cannot be shared by 4 heads"),
        ({"tower": "dmesr", "items": "text", "view_heads": 3}, "views of width 8 cannot be shared by 3 view_heads"),
        ({"tower": "dmesr", "items": "text", "views": "sum", "view_heads": 3}, "width 16 cannot be shared by 3 view_"),
        ({"tower": "dmesr", "items": "text", "views": "sum", "across": True}, "across needs two sequences"),
        ({"tower": "dmesr", "items": "text", "align_temperature": 0.001}, "align_temperature"),
        ({"tower": "dmsr", "items": "text"}, "tower"),
        *((options, f"{list(options)[-1]} would change nothing here: it is an option of {what}") for options, what in [
            ({"items": "id", "adapter": "moe"}, "features"),
            ({"items": "text", "gate": "count"}, "ids beside features"),
            ({"items": "text", "lr_ids": 0.1}, "items with id"),
            ({"items": "text", "scaling": "standard", "scaling_dim": 9}, "scaling whiten"),
            ({"tower": "dmesr", "items": "text", "align": "none", "align_learned": True}, "align"),
            ({"tower": "dmesr", "items": "text", "align_weight": 0, "align_items": 9}, "an align_weight above 0"),
            ({"tower": "dmesr", "items": "text", "align_weight": 0, "align": "soft"}, "an align_weight above 0"),
            ({"tower": "init", "items": "id+text", "id_init": "normal"}, "a tower other than init"),
            ({"items": "text", "adapter": "linear", "feature_dropout": 0.1}, "an adapter with an inside"),
            ({"tower": "dmesr", "items": "text", "attend": "none", "view_residual": False}, "attend"),
            ({"tower": "dmesr", "items": "text", "attend": "none", "view_heads": 4}, "attention between views"),
            ({"tower": "llm-esr", "items": "id+text", "across": False, "view_heads": 4}, "attention between views"),
            ({"tower": "dmesr", "items": "text", "across_residual": True}, "across"),
            ({"tower": "llm-esr", "items": "id+text", "distill_weight": 0, "distill_users": 3}, "a distill_weight"),
            ({"temperature": 0.1}, "cosine"),
            ({"loss": "bce", "head": "bfloat16"}, "loss softmax"),
            ({"negative_power": 0.5}, "a sampled loss"),
            ({"loss": "gbce", "logq": False}, "loss sampled_softmax"),
            ({"loss": "bce", "calibration": 0.5}, "loss gbce"),
            ({"hide_seed": 1}, "hide_items"),
        ]),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_together_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Config.of(**({"width": 16, "backbone": "sasrec"} | options))


def test_options_that_fit_together_are_not_refused() -> None:
    fits: list[dict[str, object]] = [
        {"tower": "dmesr", "items": "text", "width": 12, "heads": 4, "views": "sum"},
        {"tower": "dmesr", "items": "text", "width": 6, "heads": 5, "view_heads": 3, "backbone": "gru4rec"},
        {"tower": "concat", "items": "text", "width": 15, "heads": 3},
        {"tower": "llm-esr", "items": "id+text", "view_heads": 4, "across_residual": True},
        {
            "tower": "dmesr",
            "items": "text",
            "across": True,
            "attend": "none",
            "view_heads": 4,
            "across_residual": True,
        },
        {"tower": "dmesr", "items": "text", "adapter": "linear", "feature_dropout": 0.1},
    ]
    for options in fits:
        if options.get("backbone") == "gru4rec":
            options = {name: value for name, value in options.items() if name != "heads"}
        assert Config.of(**({"width": 16} | options)).tower == options["tower"]
    soft = {"tower": "dmesr", "items": "text", "align": "soft"}
    assert Config.of(**soft).align_temperature == 1
    assert Config.of(**soft, align_temperature=0.5).align_temperature == 0.5
    assert Config.of(tower="dmesr", items="id+text").slug == "sasrec-dmesr-id-text"
    assert Config.of(items="id+text").slug == "sasrec-id-text"


def test_a_run_of_before_an_option_was_refused_is_read_and_other_faults_are_told() -> None:
    given = Config.of(items="text").model_dump() | {"temperature": 0.5}
    assert Config.stored(given).temperature == 0.5
    with pytest.raises(BadInput, match=r"options of a run: .*halves the width"):
        Config.stored(given | {"tower": "dmesr", "width": 15, "heads": 1})


def test_every_option_of_a_tower_is_listed_with_its_default_and_meaning() -> None:
    listed = CliRunner().invoke(app, ["train", ".", "--options", "--json"])
    assert listed.exit_code == 0, listed.output
    text = json.dumps(json.loads(listed.output))
    for name in ("tower", *ONLY_IN):
        assert f'"{name}"' in text
        assert Config.model_fields[name].description
    shown = CliRunner().invoke(app, ["train", ".", "--options"])
    assert "distill_users" in shown.output


def test_the_list_of_options_says_what_each_can_be_and_spells_it_as_set_takes_it() -> None:
    listed = CliRunner().invoke(app, ["train", ".", "--options", "--json"])
    found = {row["option"]: row for row in json.loads(listed.output)}
    assert found["tower"]["values"] == "sum, init, concat, llm-esr, dmesr"
    assert found["width"]["values"] == ""
    assert found["id_init"]["values"] == "normal, pca"
    given = [f"{name}={row['default']}" for name, row in found.items()]
    assert Config.of(**parse_options(given)) == Config()  # every default can be given as it is printed
    assert (
        "llm-esr, dmesr:"
        in CliRunner().invoke(app, ["train", ".", "--options"], env={"COLUMNS": "150"}).output
    )


def test_a_refusal_of_several_options_names_none_that_does_not_exist() -> None:
    with pytest.raises(BadInput, match=r"^training options: tower init reads features"):
        Config.of(tower="init", items="id")


def test_a_feature_without_vectors_is_refused_by_its_name() -> None:
    empty = Vectors(np.zeros((4, 8), np.float32), np.zeros(4, bool))
    with pytest.raises(BadInput, match="feature 'image' has vectors of 0 items"):
        build_tower(Config.of(items="id+image"), np.ones(4, np.int64), {"image": empty})
