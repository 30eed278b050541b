from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.errors import BadInput
from featurestore.release import Release
from featurestore.store import Store
from recommender import data, leaks
from recommender.config import Config
from recommender.fit import fit, rehearse
from tests.recommender import shelves

SMALL = {"width": 8, "length": 6, "batch": 32, "epochs": 1, "layers": 1, "heads": 1}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three releases: without `fused`; with it, fitted on this log's split; with it, fitted on another one."""
    store = shelves.build(tmp_path_factory.mktemp("leaks") / "store")
    split = data.split_of(store.publish(allow_stale=True), Config())
    shelves.compute(store, "fused", shelves.fused("d"), shelves.saw(split.hash))
    store.publish()
    shelves.compute(store, "fused", shelves.fused("e"), shelves.saw("0" * 64, release="0009"))
    store.publish()
    return store


def trained(release: Release, folder: Path, **options: object) -> None:
    fit(release, Config.of(**SMALL | options), folder, device="cpu")


def test_a_feature_that_saw_events_is_read_under_the_split_it_saw(store: Store, tmp_path: Path) -> None:
    trained(store.release("0002"), tmp_path / "run", items="fused")
    assert (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("release", "options"), [("0002", {"split": "global-time"}), ("0002", {"k_core": (5, 5)}), ("0003", {})]
)
def test_one_that_saw_another_split_is_refused_before_anything_is_written(
    store: Store, tmp_path: Path, release: str, options: dict[str, object]
) -> None:
    with pytest.raises(BadInput, match="feature 'fused' was fitted on the training events of split") as said:
        trained(store.release(release), tmp_path / "run", items="id+fused", **options)
    assert f"dualview fit {store.root} fused --refit" in str(said.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(BadInput, match="would see some"):
        rehearse(store.release(release), Config.of(**SMALL | options, items="fused"), device="cpu")


def test_the_remedy_names_the_feature_whose_fit_is_shared(tmp_path: Path) -> None:
    shared = shelves.build(tmp_path / "store")
    shelves.compute(shared, "fused", shelves.fused(), shelves.saw("0" * 64) | {"same_fit": "text"})
    with pytest.raises(BadInput) as said:
        trained(shared.publish(), tmp_path / "run", items="fused")
    assert "text --refit" in str(said.value.remedy)


def test_features_that_saw_items_alone_may_be_read_under_any_split(store: Store, tmp_path: Path) -> None:
    trained(store.release("0003"), tmp_path / "run", items="text+brought", split="global-time")
    trained(store.release("0003"), tmp_path / "ids", split="global-time")


def test_what_a_feature_reads_it_has_seen(tmp_path: Path) -> None:
    store = shelves.build(tmp_path / "store")
    shelves.compute(store, "fused", shelves.fused(), shelves.FITTED)
    with store.lock("test"):
        store.lock_recipe("text", shelves.TEXT, shelves.saw("0" * 64))
    with pytest.raises(BadInput, match="feature 'text', which 'fused' reads, was fitted"):
        trained(store.publish(), tmp_path / "run", items="fused")


def test_the_sources_of_a_feature_are_found_in_an_earlier_lock_too(tmp_path: Path) -> None:
    store = shelves.build(tmp_path / "store")
    shelves.compute(store, "fused", shelves.fused(), shelves.saw("1" * 64))
    store.publish()
    with store.lock("test"):
        store.lock_recipe("text", shelves.TEXT.model_copy(update={"code_version": 2}), shelves.FITTED)
    late = store.publish(allow_stale=True)
    found = {made.name: made for made in leaks.sources(late, ["fused"])}
    assert list(found) == ["fused", "text"]
    assert found["fused"].events == shelves.saw("1" * 64)["events"]
    assert found["text"].recipe == shelves.TEXT
    assert found["text"].fitted == shelves.FITTED
    assert found["text"].read_by == "fused"
    (store.root / "releases" / "0001" / "manifest.json").unlink()
    assert [made.recipe for made in leaks.sources(late, ["fused"])] == [shelves.fused(), None]
