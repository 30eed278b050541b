"""The whole journey on a smaller drawn shop: files to features, similar items, recommendations and a report."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from dualview.demo.catalogue import CatalogueSettings
from dualview.demo.journey import Journey, run_demo
from dualview.demo.taste import TasteSettings
from dualview.store import Store
from featurestore.errors import Conflict

SHOP = CatalogueSettings(items=1000, px=96)
USERS = TasteSettings(users=1000)
MODEL = "text+image"


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    return run_demo(
        tmp_path_factory.mktemp("demo"), catalogue=SHOP, taste=USERS, runs=(MODEL,), options={"epochs": 6}
    )


def test_visual_twins_are_found_by_image_and_not_by_text(journey: Journey) -> None:
    assert journey.precision["image"]["style"] >= 0.9
    assert journey.precision["text"]["style"] <= 2 * journey.chance["style"]


def test_textual_twins_are_found_by_text_and_not_by_image(journey: Journey) -> None:
    assert journey.precision["text"]["theme"] >= 0.9
    assert journey.precision["image"]["theme"] <= 2 * journey.chance["theme"]


def test_the_kind_of_product_is_found_by_both_and_the_factory_by_neither(journey: Journey) -> None:
    for feature in ("text", "image"):
        assert journey.precision[feature]["category"] > 2 * journey.chance["category"]
        assert journey.precision[feature]["factory"] < 1.5 * journey.chance["factory"]


def test_the_recommender_is_at_least_three_times_as_good_as_popularity_and_below_the_oracle(
    journey: Journey,
) -> None:
    ndcg = journey.metric("NDCG@10")
    assert ndcg[MODEL] >= 3 * ndcg["popularity"] > 0
    assert ndcg[MODEL] < journey.truth.oracle["oracle NDCG@10"]


def test_the_promoted_model_is_the_one_that_validated_best_whatever_the_test_says(journey: Journey) -> None:
    other = Journey(
        journey.folder,
        journey.truth,
        curves={"a": [(1, 7.0, 0.2), (2, 6.0, 0.1)], "b": [(1, 7.0, 0.1), (2, 6.0, 0.15)]},
        reports={"b": journey.reports[MODEL]},
    )
    assert other.best == "a"
    assert journey.best == MODEL


def test_nothing_of_the_shop_is_lost_and_nothing_of_the_truth_is_ingested(journey: Journey) -> None:
    store = Store.open(journey.folder / "store")
    status = store.status()
    assert status.current
    assert status.items == SHOP.items
    assert status.quarantined == 0
    events = (journey.folder / "shop" / "events.csv").read_text(encoding="utf-8").count("\n") - 1
    assert status.events == events
    columns = set(store.release().catalogue.column_names)
    assert columns.isdisjoint({"style", "palette", "pattern", "theme", "factory", "appeal", "launch_day"})


def test_the_report_is_one_file_with_every_section(journey: Journey) -> None:
    assert journey.report is not None
    page = journey.report.read_text(encoding="utf-8")
    for title in ("At a glance", "Similar by image", "Similar by text", "Who finds what", "Maps of the catalogue",
                  "What user", "How good the recommendations are", "Training"):  # fmt: skip
        assert title in page, title
    assert Counter(part in page for part in ('src="http', "file:", "<script")) == {False: 3}
    assert page.count("✓ same style") >= 15
    assert page.count("✓ same theme") >= 14


def test_a_second_run_in_the_same_folder_computes_no_vector_again_and_trains_another_run(
    journey: Journey,
) -> None:
    store = Store.open(journey.folder / "store")
    before = [(table, store.tables.version(table)) for table in store.tables.names()]
    again = run_demo(journey.folder, catalogue=SHOP, taste=USERS, runs=("id",), options={"epochs": 1})
    store = Store.open(journey.folder / "store")
    assert [(table, store.tables.version(table)) for table in store.tables.names()] == before
    assert len(store.releases()) == 1
    assert sorted(path.name for path in (store.root / "runs").iterdir() if path.is_dir()) == [
        "sasrec-id-001",
        "sasrec-text-image-001",
    ]
    assert again.precision == journey.precision


def test_a_folder_with_another_demo_is_refused_and_left_as_it_is(journey: Journey) -> None:
    truth = (journey.folder / "shop" / "truth.json").read_bytes()
    with pytest.raises(Conflict, match="another demo"):
        run_demo(journey.folder, seed=1)
    assert (journey.folder / "shop" / "truth.json").read_bytes() == truth
    assert len(json.loads(truth)["items"]) == SHOP.items


def test_progress_is_told_step_by_step(tmp_path: Path) -> None:
    heard: list[tuple[int, int | None, str]] = []
    run_demo(
        tmp_path,
        lambda done, total, label: heard.append((done, total, label)),
        catalogue=CatalogueSettings(items=160, px=32),
        taste=TasteSettings(users=60),
        runs=("id",),
        options={"epochs": 1},
    )
    labels = [label for _, _, label in heard]
    assert {"drawing products", "customers shopping"} <= set(labels)
    assert labels.index("drawing products") < labels.index("customers shopping")
    assert all(total is None or done <= total for done, total, _ in heard)
