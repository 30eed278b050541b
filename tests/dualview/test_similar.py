"""`dualview similar` and `Store.similar`, on a small drawn shop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dualview import Store
from dualview.cli import app
from dualview.demo.catalogue import CatalogueSettings
from dualview.demo.taste import TasteSettings
from dualview.demo.truth import make_shop
from featurestore.errors import BadInput, DualviewError


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain files of a small shop."""
    folder = tmp_path_factory.mktemp("shop")
    make_shop(folder, CatalogueSettings(items=120, seed=3, px=64, no_picture=0.05), TasteSettings(users=20))
    return folder


@pytest.fixture(scope="module")
def store(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store.create(tmp_path_factory.mktemp("stores") / "store", preset="offline")
    made.ingest(shop / "items.csv")
    made.materialize()
    made.publish()
    return made


@pytest.fixture(scope="module")
def pictured(store: Store) -> list[str]:
    """Items with a picture and a text."""
    return [row["item_id"] for row in store.release().catalogue.to_pylist() if row["image"]]


def cli(store: Store, *args: object) -> str:
    done = CliRunner().invoke(app, ["similar", str(store.root), *map(str, args)], env={"COLUMNS": "200"})
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def asked(store: Store, *args: object) -> Any:
    return json.loads(cli(store, *args, "--json"))


def ids(rows: Any) -> list[str]:
    return [row["item_id"] for row in (rows if isinstance(rows, list) else rows.to_pylist())]


def test_the_command_answers_as_python_does(store: Store, shop: Path, pictured: list[str]) -> None:
    one, two, three = pictured[:3]
    picture = next((shop / "images").glob(f"{one}.*"))
    cases: list[tuple[list[object], dict[str, Any]]] = [
        ([one], {"item": one}),
        ([one, two, "--unlike", three], {"item": [one, two], "unlike": three}),
        (["--text", "mug", "--mode", "keyword"], {"text": "mug", "mode": "keyword"}),
        (["--text", "mug", "--mode", "hybrid"], {"text": "mug", "mode": "hybrid"}),
        ([one, "-f", "text:0.3", "-f", "image:0.7"], {"item": one, "features": {"text": 0.3, "image": 0.7}}),
        ([one, "-f", "text", "-f", "image"], {"item": one, "features": ["text", "image"]}),
        ([one, "--diversity", 0.5], {"item": one, "diversity": 0.5}),
        ([one, "--text", "mug"], {"item": one, "text": "mug"}),
        (["--text", "mug", "--image", picture], {"text": "mug", "image": picture}),
        ([one, "--unlike", two, "--beta", 0.9], {"item": one, "unlike": [two], "beta": 0.9}),
    ]
    for args, given in cases:
        assert asked(store, *args, "-k", 6) == store.similar(**given, k=6).to_pylist(), args


def test_keywords_find_the_word(store: Store) -> None:
    found = asked(store, "--text", "UMBRELLA", "--mode", "keyword", "-k", 5)
    assert len(found) == 5
    assert all("umbrella" in f"{row['title']} {row['category']}".lower() for row in found)


def test_a_text_and_a_picture_ask_a_feature_each(store: Store, shop: Path, pictured: list[str]) -> None:
    picture = next((shop / "images").glob(f"{pictured[0]}.*"))
    told = asked(store, "--text", "mug", "--image", picture, "--explain")["explain"]
    assert {f["feature"]: f["asked_with"] for f in told["features"]} == {
        "text": ["the text"],
        "image": ["the picture"],
    }


def test_an_explanation_is_one_json_document_whose_parts_add_up(store: Store, pictured: list[str]) -> None:
    told = asked(store, pictured[0], "-f", "text:0.3", "-f", "image:0.7", "--explain")
    assert told["explain"]["release"] == "0001"
    assert [f["weight"] for f in told["explain"]["features"]] == [0.3, 0.7]
    for row in told["items"]:
        assert row["score"] == pytest.approx((row["part.text"] or 0) + (row["part.image"] or 0), abs=1e-6)


def test_an_explanation_is_read_under_the_table(store: Store, pictured: list[str]) -> None:
    said = cli(store, "--text", "mug wolverine", "--mode", "hybrid", "--where", "price < 40", "--explain")
    assert "which pass the filter" in said
    assert "text x 1: recipe" in said
    assert "no item has wolverine" in said
    assert "1 / (60 + rank)" in said
    said = cli(store, pictured[0], "--unlike", pictured[1], "--diversity", 0.5, "--explain")
    assert "diversity 0.5 among the best 50" in said
    assert "beta 0.25" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-f", "text:x"], "'x' in '--feature text:x' is no number"),
        (["-f", "text:0"], "no feature has a weight above 0"),
        (["-f", "text:-1"], "must be 0, or from"),
        (["-f", "text:nan"], "must be 0, or from"),
        (["-f", "text", "-f", "text:2"], "given twice"),
        (["-f", "txet"], "did you mean 'text'"),
        (["--text", "red", "-f", "text", "-f", "image"], "feature 'image' is made from pictures"),
        (["--mode", "hybird"], "did you mean 'hybrid'"),
        (["--where", "pirce < 3"], "did you mean 'price'"),
        (["--text", "umbrela", "--mode", "keyword"], "did you mean 'umbrella'"),
        (["--unlike", "nothing"], "has no item 'nothing'"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_remedy(
    store: Store, pictured: list[str], args: list[str], said: str
) -> None:
    with pytest.raises(DualviewError) as caught:
        cli(store, *([] if "--text" in args else [pictured[0]]), *args)
    assert said in str(caught.value)
    assert caught.value.remedy


def test_an_empty_answer_says_why_beside_the_document(store: Store, pictured: list[str]) -> None:
    assert asked(store, pictured[0], "--where", "price > 99999") == []
    done = CliRunner().invoke(app, ["similar", str(store.root), pictured[0], "--where", "price > 99999"])
    assert "no item satisfies the filter" in done.stderr


def test_feature_and_features_are_not_given_both(store: Store, pictured: list[str]) -> None:
    with pytest.raises(BadInput, match="not both"):
        store.similar(pictured[0], feature="text", features={"image": 1.0})
