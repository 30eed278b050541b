from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from featurestore.errors import BadInput, NotFound
from featurestore.files import read_json, write_json
from recommender.config import Config
from recommender.fit import fit
from recommender.runs import Run, allot, list_runs, open_run, promote, promoted
from tests.recommender.learning import ring

SMALL = {"width": 8, "length": 6, "batch": 32, "epochs": 1}


def trained(root: Path, slug: str = "sasrec-id") -> Run:
    return fit(ring(users=20), Config.of(**SMALL), allot(root, slug), device="cpu")


def test_names_are_given_once_even_to_many_at_a_time(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: allot(tmp_path, "sasrec-id"), range(24)))
    assert sorted(folder.name for folder in folders) == [f"sasrec-id-{n:03d}" for n in range(1, 25)]


def test_a_number_is_one_past_the_highest_of_that_name(tmp_path: Path) -> None:
    for name in ("sasrec-id-007", "sasrec-id-text-042", "sasrec-id-x", "sasrec-id-1000"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert allot(tmp_path, "sasrec-id").name == "sasrec-id-1001"
    assert allot(tmp_path, "sasrec-id-text").name == "sasrec-id-text-043"


def test_a_run_says_everything_it_was_made_from(tmp_path: Path) -> None:
    run = trained(tmp_path)
    split = ring(users=20)
    assert run.name == "sasrec-id-001"
    assert run.config == Config.of(**SMALL)
    assert run.split_hash == split.hash
    assert run.release is None
    assert run.item_ids.tolist() == split.log.item_ids.tolist()
    assert run.counts.tolist() == split.counts.tolist()
    assert run.about["split"]["valid_users"] == len(split.users("valid"))
    assert read_json(run.folder / "environment.json")["device"] == "cpu"
    assert run.summary()["valid_ndcg@10"] == run.history()[0]["valid_ndcg@10"]
    assert run.summary()["finished"]
    model = run.load_model()
    assert not model.training
    assert model.item_vectors().shape == (split.log.n_items, 8)
    assert model.item_vectors().dtype == np.float32


def test_test_figures_stand_beside_those_of_validation(tmp_path: Path) -> None:
    run = trained(tmp_path)
    valid = run.metrics()["valid"]
    run.write_metrics(test={"ndcg@10": 0.17})
    assert Run(run.folder).metrics()["test"] == {"ndcg@10": 0.17}
    assert Run(run.folder).metrics()["valid"] == valid


def test_runs_are_listed_newest_first_and_latest_is_the_first_of_them(tmp_path: Path) -> None:
    assert list_runs(tmp_path) == []
    with pytest.raises(NotFound, match="nothing was trained yet"):
        open_run(tmp_path, "latest")
    for slug in ("sasrec-id", "sasrec-text", "sasrec-id"):
        trained(tmp_path, slug)
    (tmp_path / "runs" / "sasrec-id-009").mkdir()  # allotted, nothing in it yet
    names = [run.name for run in list_runs(tmp_path)]
    assert names == ["sasrec-id-002", "sasrec-text-001", "sasrec-id-001"]
    assert open_run(tmp_path, "latest").name == "sasrec-id-002"
    assert open_run(tmp_path, "sasrec-text-001").name == "sasrec-text-001"
    with pytest.raises(NotFound, match=re.escape("did you mean 'sasrec-text-001'?")):
        open_run(tmp_path, "sasrec-txt-001")


def test_a_promoted_run_stays_until_another_is_promoted(tmp_path: Path) -> None:
    assert promoted(tmp_path) is None
    first, second = trained(tmp_path), trained(tmp_path)
    assert promote(tmp_path, first.name).name == first.name
    found = promoted(tmp_path)
    assert found is not None
    assert found.name == first.name
    promote(tmp_path, "latest")
    found = promoted(tmp_path)
    assert found is not None
    assert found.name == second.name
    (second.folder / "checkpoint" / "best.safetensors").unlink()
    with pytest.raises(BadInput, match="no validated weights"):
        promote(tmp_path, second.name)


def test_a_folder_that_is_no_run_or_too_new_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is not a run"):
        Run(tmp_path)
    run = trained(tmp_path)
    write_json(run.folder / "run.json", run.about | {"format": 99})
    with pytest.raises(BadInput, match="newer version"):
        Run(run.folder)


def test_features_that_no_release_keeps_must_be_given(tmp_path: Path) -> None:
    run = trained(tmp_path)
    write_json(run.folder / "config.json", Config.of(**SMALL, items="id+text").model_dump(mode="json"))
    with pytest.raises(BadInput, match="no release keeps"):
        Run(run.folder).load_model()


def test_a_misspelt_option_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(BadInput, match=re.escape("unknown training option 'widht'")) as refused:
        Config.of(widht=3)
    assert refused.value.remedy == "did you mean 'width'?"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"width": 65}, "width 65 cannot be shared by 2 heads"),
        ({"dropout": 1.5}, "dropout"),
        ({"lr": float("nan")}, "lr"),
        ({"items": "id+"}, "joined by"),
        ({"items": "text+text"}, "different things"),
        ({"id_init": "pca"}, "needs both id and a feature"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"backbone": "gru"}, "backbone"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_options_out_of_range_are_refused_by_name(given: dict[str, object], told: str) -> None:
    with pytest.raises(BadInput, match=re.escape(told)):
        Config.of(**given)


def test_a_configuration_is_frozen_and_survives_json() -> None:
    config = Config.of(items="id + text", k_core=(6, 5), betas=(0.9, 0.999))
    assert Config.of(**config.model_dump(mode="json")) == config
    assert config.features == ("text",)
    assert config.slug == "sasrec-id-text"
    with pytest.raises(Exception, match="frozen"):
        config.width = 3  # type: ignore[misc]


def test_every_option_says_what_it_means() -> None:
    assert all(field.description for field in Config.model_fields.values())
