"""What holds for every backbone, from training to answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dualview.cli import app
from featurestore.errors import BadInput
from featurestore.recipe import Recipe
from featurestore.store import Store
from recommender import checkpoint, runs
from recommender.backbones import BUILDERS
from recommender.config import Config
from recommender.evaluate import evaluate
from recommender.fit import fit
from recommender.model import build, scorer
from recommender.ranking import top_k
from recommender.retrieve import Retriever, facts
from recommender.splits import leave_one_out
from tests.recommender.learning import ring
from tests.recommender.test_fit import Killed, features, killed_after, same, weights
from tests.recommender.test_retrieve import DIM, FEATURES, compute, ids_of, put

SMALL = {"width": 16, "length": 10, "batch": 16, "epochs": 4, "patience": 50, "lr": 1e-2}
NEW = ["gru4rec", "bert4rec"]
N_ITEMS, CAME_LATER = 30, 4


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("gru4rec", {}),
        ("gru4rec", {"layers": 1, "hidden": 24, "loss": "sampled_softmax", "negatives": 8}),
        ("bert4rec", {}),
        ("bert4rec", {"mask_last": "always", "loss": "bce", "negatives": 8, "epochs": 100}),
        ("bert4rec", {"mask_last": "chance", "mask_share": 0.4, "loss": "sampled_softmax", "negatives": 8}),
    ],
)
def test_a_backbone_learns_what_comes_next(tmp_path: Path, backbone: str, options: dict[str, object]) -> None:
    split = ring(users=150)
    config = Config.of(**(SMALL | {"backbone": backbone, "epochs": 25, "eval_every": 5} | options))
    run = fit(split, config, tmp_path / "run", device="cpu")
    result = evaluate(scorer(run.load_model(), split, "test"), split, "test", (1,), lists=False)
    assert result.metrics["HR@1"] > 0.5  # chance is about 0.1 among the items a user has left


@pytest.mark.parametrize(
    "options",
    [
        {"backbone": "gru4rec", "windows": "random", "length": 3, "average": 0.9},
        {"backbone": "bert4rec", "windows": "random", "length": 4, "attention_dropout": 0.1},
        {"backbone": "bert4rec", "items": "id+text", "loss": "gbce", "negatives": 4, "mask_last": "always"},
    ],
    ids=["gru4rec", "bert4rec", "bert4rec with features"],
)
def test_a_killed_and_resumed_run_ends_with_the_same_bits(tmp_path: Path, options: dict[str, object]) -> None:
    split = ring()
    config, given = Config.of(**(SMALL | options)), features(split)
    whole = fit(split, config, tmp_path / "whole", features=given, device="cpu")
    with pytest.raises(Killed):
        fit(split, config, tmp_path / "parts", features=given, device="cpu", progress=killed_after(2))
    torch.manual_seed(99)  # what the caller's generator holds is of no account
    parts = fit(split, config, tmp_path / "parts", features=given, device="cpu")
    assert same(weights(whole), weights(parts))
    assert same(weights(whole, checkpoint.LAST), weights(parts, checkpoint.LAST))


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("backbone", BUILDERS)
def test_a_user_is_answered_alone_as_in_company(backbone: str, cosine: bool) -> None:
    split = ring(users=40)
    model = build(Config.of(**SMALL, backbone=backbone, cosine=cosine), split.counts)
    users = split.users("test")
    starts, ends = split.history(users, "test")
    together = model.user_vectors(split.log.items, starts, ends)
    alone = [model.user_vectors(split.log.items, starts[i : i + 1], ends[i : i + 1])[0] for i in range(40)]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two releases, the second with some items more, and a run by the command line of each new backbone
    on the first."""
    store = Store.create(tmp_path_factory.mktemp("backbones") / "store", FEATURES)
    rng = np.random.default_rng(0)
    events = [
        (f"u{u:03d}", f"i{int(rng.random() ** 2 * N_ITEMS):03d}", t)
        for u in range(40)
        for t in range(int(rng.integers(4, 12)))
    ]
    recipe = Recipe(kind="embed_text", inputs=("column:title",), encoder="given", dim=DIM)
    put(store, range(N_ITEMS), events)
    compute(store, recipe, seed=0)
    store.publish()
    put(store, range(N_ITEMS + CAME_LATER), events)
    compute(store, recipe, seed=0)
    store.publish()
    for backbone in NEW:
        said = train(store.root, "--backbone", backbone, "--items", "text")
        assert json.loads(said)["run"] == f"{backbone}-text-001"
    return store.root


def train(root: Path, *args: str, code: int = 0) -> str:
    few = ["--release", "0001", "--epochs", "2", "--length", "6", "--set", "width=8", "--json"]
    done = CliRunner().invoke(app, ["train", str(root), *args, *few])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else str(done.exception)


@pytest.mark.parametrize("backbone", NEW)
def test_the_retriever_answers_in_the_order_that_evaluation_ranks(store: Path, backbone: str) -> None:
    run = runs.open_run(store, f"{backbone}-text-001")
    asked = Retriever.open(store, run.name, release="0001")
    split = leave_one_out(asked.log)
    score = scorer(run.load_model(), split, "test")
    for user in split.users("test")[:5].tolist():
        start, target = int(split.log.offsets[user]), int(split.test[user])
        history = split.log.item_ids[split.log.items[start:target]].tolist()
        found = asked.recommend(history=history, k=N_ITEMS, exclude_seen=False)
        scores = score(np.array([user]))
        order = top_k(scores, N_ITEMS)[0]
        assert found["item_id"].to_pylist() == split.log.item_ids[order].tolist()
        np.testing.assert_allclose(found["score"].to_numpy(), scores[0, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", NEW)
def test_items_that_came_after_training_are_ranked_and_read(store: Path, backbone: str) -> None:
    asked = Retriever.open(store, f"{backbone}-text-001", release="0002")
    new = ids_of(range(N_ITEMS, N_ITEMS + CAME_LATER))
    assert not set(new) & set(runs.open_run(store, f"{backbone}-text-001").item_ids.tolist())
    found = asked.recommend("u005", k=100, exclude_seen=False)
    assert set(new) <= set(found["item_id"].to_pylist())
    cold = asked.recommend(history=[new[0], new[2]])
    assert facts(cold)["events_unreadable"] == 0
    assert not {new[0], new[2]} & set(cold["item_id"].to_pylist())


def test_the_command_line_announces_a_backbone_and_refuses_an_unknown_one(store: Path) -> None:
    plan = json.loads(train(store, "--backbone", "bert4rec", "--dry-run"))
    assert plan["run"] == "bert4rec-id-001"
    assert plan["config"]["mask_share"] == 0.2
    assert "'sasrec', 'gru4rec' or 'bert4rec'" in train(store, "--backbone", "gru4rek", code=1)


def test_an_option_of_another_backbone_and_a_misspelt_one_are_refused() -> None:
    with pytest.raises(BadInput, match="heads is an option of sasrec and bert4rec, not of gru4rec"):
        Config.of(backbone="gru4rec", heads=4)
    with pytest.raises(BadInput, match="causal is an option of sasrec, not of bert4rec"):
        Config.of(backbone="bert4rec", causal=False)
    with pytest.raises(BadInput, match="mask_share is an option of bert4rec, not of sasrec"):
        Config.of(mask_share=0.6)
    with pytest.raises(BadInput, match="length must be at least 2 in bert4rec"):
        Config.of(backbone="bert4rec", length=1)
    with pytest.raises(BadInput, match="unknown training option 'mask_shared'") as refused:
        Config.of(backbone="bert4rec", mask_shared=0.6)
    assert "mask_share" in str(refused.value.remedy)
    assert Config.of(backbone="gru4rec", width=7).slug == "gru4rec-id"  # no heads that must divide it
    for backbone in BUILDERS:
        resolved = Config.of(backbone=backbone).model_dump()
        assert Config.of(**resolved).backbone == backbone  # what a run keeps is what it reads again
