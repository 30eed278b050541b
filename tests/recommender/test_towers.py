"""What holds for every item tower, from its vectors to a run that answers with them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from featurestore.errors import BadInput
from featurestore.interactions import upsert_interactions
from featurestore.items import upsert_items
from featurestore.store import Store
from ingest.fuse.dual import OneToken
from ingest.materialize import materialize
from recommender import objectives, runs
from recommender.config import Config
from recommender.evaluate import evaluate
from recommender.fit import adamw, fit
from recommender.items import (
    ConcatTower,
    DualTower,
    EsrTower,
    FeaturesTower,
    InitTower,
    Stored,
    Tokens,
    Vectors,
    kept_scalings,
)
from recommender.items import build as build_tower
from recommender.items.build import Towers
from recommender.items.ids import SharedIds
from recommender.model import build, scorer
from recommender.retrieve import Retriever, facts
from recommender.runs import Run
from recommender.sequences import TrainingBatches
from recommender.splits import Split
from tests.recommender.learning import ring

N, WIDTH = 20, 16
LACKS = 4  # an item without any feature
UNSEEN = 7  # an item that training never saw
SMALL = {"width": WIDTH, "length": 6, "batch": 32, "epochs": 1, "layers": 1, "lr": 1e-2}

TOWERS = {
    "id": {"items": "id"},
    "features": {"items": "text+image"},
    "summed": {"items": "id+text+image", "gate": "count"},
    "init": {"tower": "init", "items": "id+text+image"},
    "init of several": {"tower": "init", "items": "id+chunks"},
    "concat": {"tower": "concat", "items": "id+text+image"},
    "concat without ids": {"tower": "concat", "items": "text+image+chunks", "adapter": "bottleneck"},
    "concat of several": {"tower": "concat", "items": "id+text+chunks", "gate": "count"},
    "llm-esr": {"tower": "llm-esr", "items": "id+text+image", "gate": "count"},
    "llm-esr, one feature": {"tower": "llm-esr", "items": "id+text", "adapter": "bottleneck"},
    "dmesr": {"tower": "dmesr", "items": "id+text+image+chunks", "align_learned": True, "gate": "count"},
    "dmesr without ids": {
        "tower": "dmesr",
        "items": "text+image+chunks",
        "pooling": "gated",
        "adapter": "moe",
    },
    "dmesr, summed views": {"tower": "dmesr", "items": "id+text+image+chunks", "views": "sum"},
    "dmesr, summed, no ids": {
        "tower": "dmesr",
        "items": "text+image+chunks",
        "views": "sum",
        "align": "soft",
    },
    "dmesr, two of one": {"tower": "dmesr", "items": "id+text+image"},
    "dmesr, one and several": {"tower": "dmesr", "items": "id+text+chunks", "attend": "coarse"},
    "dmesr, several only": {"tower": "dmesr", "items": "chunks", "across": True},
    "dmesr, one feature": {"tower": "dmesr", "items": "id+text"},
}
FEATURED = [name for name in TOWERS if name != "id"]
WITH_IDS = [name for name in FEATURED if "id" in str(TOWERS[name]["items"]) and "init" not in name]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OneToken)
        yield


def catalogue(seed: int = 0) -> dict[str, Stored]:
    random = np.random.default_rng(seed)

    def one(wide: int, *missing: int) -> Vectors:
        values, present = random.normal(size=(N, wide)).astype(np.float32), np.ones(N, dtype=np.bool_)
        present[list(missing)] = False
        values[~present] = np.nan  # never to be read
        return Vectors(values, present)

    counts = random.integers(0, 5, size=N)
    counts[LACKS] = 0
    chunks = random.normal(size=(counts.sum(), 7)).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return {"text": one(6, LACKS), "image": one(5, LACKS, 2), "chunks": Tokens(chunks, offsets)}


def counts() -> np.ndarray:
    found = np.arange(1, N + 1)
    found[UNSEEN] = 0
    return found


def tower(name: str, **options: object) -> Towers:
    torch.manual_seed(0)
    return build_tower(Config.of(**({"width": WIDTH} | TOWERS[name] | options)), counts(), catalogue()).eval()


def ids_of(made: Towers) -> SharedIds:
    found = made.ids
    assert isinstance(found, SharedIds)
    return found


def close(one: object, other: object) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TOWERS)
def test_rows_are_rows_of_all_items(name: str) -> None:
    made, rows = tower(name), torch.tensor([3, LACKS, 3, UNSEEN, 0, 19])
    assert made.out_dim == WIDTH
    assert made.all_items().shape == (N, WIDTH)
    assert torch.isfinite(made.all_items()).all()
    close(made(rows), made.all_items()[rows])


@pytest.mark.parametrize("name", FEATURED)
def test_an_item_that_training_never_saw_is_its_features_alone(name: str) -> None:
    made, given = tower(name), catalogue()
    content = made.embed(given)
    close(content[UNSEEN], made.all_items()[UNSEEN])
    seen = torch.arange(N) != UNSEEN
    with_ids = name in WITH_IDS
    assert (torch.isclose(content, made.all_items(), atol=1e-6).all(1)[seen]).any() != with_ids
    later = np.array([5, LACKS, 5, 1])
    close(made.embed({feature: stored.take(later) for feature, stored in given.items()}), content[later])
    none = {feature: stored.take(np.zeros(0, dtype=np.int64)) for feature, stored in given.items()}
    assert made.embed(none).shape == (0, WIDTH)
    with pytest.raises(BadInput, match="needs the feature"):
        made.embed({})


@pytest.mark.parametrize("name", [name for name in WITH_IDS if "concat" in name or "esr" in name])
def test_ids_have_a_place_of_their_own_where_views_are_apart(name: str) -> None:
    """Beside the features in concat and llm-esr; added to them in dmesr."""
    made = tower(name)
    before = made.all_items()
    with torch.no_grad():
        ids_of(made).weight.add_(1)
    moved = (made.all_items() - before).abs() > 1e-6
    assert not moved[UNSEEN].any()
    expected = [True] * WIDTH
    if isinstance(made, ConcatTower):
        expected = [True] * (WIDTH // 2) + [False] * (WIDTH // 2)
    elif isinstance(made, EsrTower):
        expected = [False] * (WIDTH // 2) + [True] * (WIDTH // 2)
    assert moved[0].tolist() == expected


@pytest.mark.parametrize("name", WITH_IDS)
def test_ids_are_dropped_while_learning_only_and_gated_by_count(name: str) -> None:
    made = tower(name, id_dropout=0.5, gate="count")
    content, shares = made.embed(catalogue()), ids_of(made).share(ids_of(made).counts)[:, 0]
    assert shares[UNSEEN] == 0
    others = torch.arange(N) != UNSEEN
    assert (shares[others].diff() > 0).all()  # the more training events, the more of an id
    assert torch.equal(made.all_items(), made.all_items())
    torch.manual_seed(1)
    dropped = torch.isclose(made.train().all_items(), content, atol=1e-6).all(1)
    assert 0 < int(dropped[others].sum()) < N - 1
    if name != "summed":  # the adapter has no dropout of its own here
        assert not torch.isclose(made.eval().all_items(), content, atol=1e-6).all(1)[others].any()


@pytest.mark.parametrize("name", TOWERS)
def test_every_weight_is_learnt(name: str) -> None:
    split = ring(users=40)
    config = Config.of(**(SMALL | TOWERS[name]), dropout=0.0)
    torch.manual_seed(0)
    model = build(config, split.counts, catalogue())
    objective = objectives.build(model, config, split, catalogue())
    (batch,) = TrainingBatches(split, length=6, batch=100, seed=0).epoch(1)
    objective(batch)["loss"].backward()
    found = {n for n, weight in objective.named_parameters() if weight.grad is None or not weight.grad.any()}
    parts = [
        f"model.tower.view.to_{side}.{part}"
        for side in ("coarse", "fine")
        for part in ("query.weight", "query.bias", "key.weight")
    ]
    # over one token an item a softmax is 1, whatever asks: `OneToken` warns of it
    assert found == (set(parts) if name == "dmesr, one feature" else set())
    optimizer = adamw(model, config)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_rates_of_ids_and_features_are_those_of_their_towers() -> None:
    for name in WITH_IDS:
        config = Config.of(**(SMALL | TOWERS[name]), lr_ids=0.5, lr_features=0.25, weight_decay_ids=0.1)
        model = build(config, counts(), catalogue())
        rates = {id(w): g["lr"] for g in adamw(model, config).param_groups for w in g["params"]}
        of = {n: rates[id(weight)] for n, weight in model.named_parameters()}
        assert of["tower.ids.weight"] == 0.5
        assert {rate for n, rate in of.items() if n.startswith("backbone.")} == {1e-2}
        own = {rate for n, rate in of.items() if n.startswith("tower.") and not n.startswith("tower.ids.")}
        assert own == {0.25}


def without(given: dict[str, Stored], item: int) -> dict[str, Stored]:
    """The same catalogue after an item's features are gone."""
    rest, gone = np.arange(N) != item, {}
    for feature, stored in given.items():
        if isinstance(stored, Tokens):
            kept = np.where(rest, stored.counts, 0)
            gone[feature] = Tokens(stored.take(rest).values, np.concatenate([[0], np.cumsum(kept)]))
        else:
            gone[feature] = Vectors(stored.values, stored.present & rest)
    return gone


@pytest.mark.parametrize("name", TOWERS)
def test_a_run_comes_back_from_its_folder_as_it_was(tmp_path: Path, name: str) -> None:
    """And where an item's features are gone by then, no other item changes: scalings are kept."""
    split, given = ring(users=30), catalogue()
    run = fit(split, Config.of(**(SMALL | TOWERS[name])), tmp_path / "run", features=given, device="cpu")
    model, again = run.load_model(features=given), Run(run.folder).load_model(features=given)
    found, ranks = (
        evaluate(scorer(m, split, "valid"), split, "valid", (10,), lists=False) for m in (model, again)
    )
    assert found.metrics["NDCG@10"] == pytest.approx(run.metrics()["valid"]["ndcg@10"], abs=1e-12)
    np.testing.assert_array_equal(found.ranks, ranks.ranks)
    before = model.item_vectors()
    np.testing.assert_array_equal(before, again.item_vectors())
    if name == "id":
        return
    after, rest = run.load_model(features=without(given, 11)).item_vectors(), np.arange(N) != 11
    np.testing.assert_allclose(after[rest], before[rest], rtol=1e-4, atol=1e-5)
    if "init" not in name:  # there the vector is the id's
        assert np.abs(after[11] - before[11]).max() > 1e-4


def test_ids_begin_as_a_pca_of_the_features_in_init_and_llm_esr_and_at_random_elsewhere() -> None:
    given = catalogue()
    some = given["text"].present | given["image"].present
    values = np.concatenate(
        [
            np.where(each.present[:, None], each.means - each.known.mean(0), 0)
            for each in (given["text"], given["image"])
        ],
        axis=1,
    )
    centred = values[some]
    alike = centred @ centred.T
    for name, begun in (("init", True), ("llm-esr", True), ("concat", False), ("dmesr, two of one", False)):
        made = tower(name, **({"width": 32} if name == "llm-esr" else {}))
        assert isinstance(made, InitTower | EsrTower | ConcatTower | DualTower)
        ids = made.ids.weight.detach().numpy()[some]  # type: ignore[union-attr]
        ours = ids @ ids.T
        assert (np.corrcoef(ours.ravel(), alike.ravel())[0, 1] > 0.999) == begun, name
        spread = ids[:, : min(ids.shape[1], values.shape[1])].std()
        assert spread == pytest.approx(0.02, rel=0.2), name


def test_to_lack_a_feature_is_no_direction_of_the_pca_that_ids_begin_from() -> None:
    random = np.random.default_rng(0)
    values = (random.normal(size=(400, 6)) * np.arange(6, 0, -1) + 20).astype(np.float32)
    present = random.random(400) < 0.6
    names, width = ["text"], 3
    whole = InitTower(
        names, {"text": Vectors(values[present], present[present])}, np.ones(present.sum(), int), width
    )
    some = InitTower(names, {"text": Vectors(values, present)}, np.ones(400, int), width)
    close(some.ids.weight[torch.from_numpy(present)], whole.ids.weight)
    assert not some.ids.weight[torch.from_numpy(~present)].any()  # as the mean of the others
    with pytest.raises(BadInput, match="no item has any of the features that ids are to begin from"):
        InitTower(names, {"text": Vectors(values, np.zeros(400, np.bool_))}, np.ones(400, int), width)


@pytest.mark.parametrize("scaling", ["standard", "whiten"])
def test_in_concat_a_feature_that_an_item_lacks_counts_as_the_mean_of_it(scaling: str) -> None:
    made, given = tower("concat", scaling=scaling), catalogue()
    mean = np.stack([given["text"].known.mean(0)] * 2)
    image = given["image"].take(np.array([0, 0]))
    found = made.embed({"text": Vectors(mean, np.array([True, False])), "image": image})
    close(found[0], found[1])
    assert not torch.allclose(found[0], made.embed(given)[0], atol=1e-3)


@pytest.mark.parametrize("tower_name", ["sum", "concat", "dmesr"])
@pytest.mark.parametrize("feature", ["type", "items", "training", "title.v2"])
def test_a_feature_may_be_called_what_a_module_of_torch_calls_its_own(tower_name: str, feature: str) -> None:
    given, config = (
        {feature: catalogue()["text"]},
        Config.of(width=8, items=f"id+{feature}", tower=tower_name),
    )
    made = build_tower(config, counts(), given)
    assert made.all_items().shape == (N, 8)
    assert set(kept_scalings(made.state_dict(), [feature])) == {feature}


def test_towers_that_take_one_vector_an_item_say_so_and_name_the_one_that_takes_more() -> None:
    for tower_name in ("sum", "llm-esr"):
        config = Config.of(width=WIDTH, tower=tower_name, items="id+chunks", id_init="normal")
        with pytest.raises(BadInput, match="several vectors an item") as said:
            build_tower(config, counts(), catalogue())
        assert "tower=dmesr" in str(said.value)


def test_what_has_several_vectors_an_item_is_the_fine_side() -> None:
    made = tower("dmesr")
    assert isinstance(made, DualTower)
    assert [source.name for source in made.view.coarse.sources] == ["text", "image"]
    assert [source.name for source in made.view.fine.sources] == ["chunks"]
    assert made.view.views == ("text", "image")
    assert isinstance(tower("features"), FeaturesTower)


# ---- a store whose items came later

TOML = """
[features.text]
kind = "embed_text"
inputs = ["title"]
encoder = "tfidf_svd"
dim = 4

[features.chunks]
kind = "embed_tokens"
inputs = ["title", "brand"]
encoder = "tfidf_svd"
dim = 4
"""
KEPT = {"init", "llm-esr", "dmesr"}
WORDS = ["red", "blue", "wool", "silk", "shoe", "hat", "long", "short", "summer", "winter"]


def put(store: Store, split: Split, count: int) -> None:
    """So many items and a log of the first ones; of item N + 4 no text is known."""
    ids = [f"i{n:03d}" for n in range(count)]
    titles = [" ".join(np.random.default_rng(n).choice(WORDS, 4)) for n in range(count)]
    shown = pa.array([None if n == N + 4 else title for n, title in enumerate(titles)], pa.string())
    brands = pa.array(
        [None if n == N + 4 else title.split()[0] for n, title in enumerate(titles)], pa.string()
    )
    items = pa.table({"item_id": ids, "title": shown, "brand": brands})
    log, n = split.log, len(split.log)
    events = {
        "user_id": log.user_ids[log.users],
        "item_id": log.item_ids[log.items],
        "event": ["view"] * n,
        "timestamp": np.arange(n),
        "position": pa.nulls(n, pa.int64()),
        "value": pa.nulls(n, pa.float64()),
    }
    with store.lock("test"):
        upsert_items(store.tables, items, remove_missing=True)
        upsert_interactions(store.tables, pa.table(events), replace=True)
    materialize(store)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two releases, five items more in the second, and a run of each tower on the first."""
    made = Store.create(tmp_path_factory.mktemp("towers") / "store", TOML)
    split = ring(users=30)
    put(made, split, N)
    first = made.publish()
    for tower_name in sorted(KEPT):
        items = "id+text" if tower_name == "llm-esr" else "id+text+chunks"
        config = Config.of(**SMALL, items=items, tower=tower_name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OneToken)
            fit(first, config, runs.allot(made.root, tower_name), device="cpu")
    put(made, split, N + 5)
    made.publish()
    return made


@pytest.mark.parametrize("tower_name", sorted(KEPT))
def test_items_that_came_later_are_ranked_by_their_features(store: Store, tower_name: str) -> None:
    asked = Retriever.open(store, f"{tower_name}-001", release="0002")
    found = asked.recommend("u003", k=100, exclude_seen=False)
    new = [f"i{n:03d}" for n in range(N, N + 4)]
    assert set(new) <= set(found["item_id"].to_pylist())
    assert f"i{N + 4:03d}" not in found["item_id"].to_pylist()  # nothing is known of it
    assert facts(found)["items_left_out"] == 1
    model, later = asked.run.load_model(), store.release("0002")
    given: dict[str, Stored] = {}
    for name in asked.run.config.features:
        matrix = later.matrix(name)
        given[name] = (
            Vectors.aligned(matrix.ids, matrix.values, new)
            if matrix.offsets is None
            else Tokens.aligned(matrix.ids, matrix.values, matrix.offsets, new)
        )
    served = asked._ready.served
    np.testing.assert_allclose(
        served.vectors[served.rows_of(np.array(new))], model.new_item_vectors(given), rtol=1e-4, atol=1e-5
    )
    old = served.rows_of(asked.run.item_ids)
    np.testing.assert_allclose(served.vectors[old], model.item_vectors(), rtol=1e-4, atol=1e-5)
