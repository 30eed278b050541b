"""The journey as a person walks it: real processes, real exit codes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dualview.cli import _Notes, app
from dualview.demo.catalogue import CatalogueSettings
from dualview.demo.taste import TasteSettings
from dualview.demo.truth import make_shop
from ingest.fuse.dual import OneToken


def cli(*args: object, code: int = 0) -> str:
    """Run `dualview ARGS`; returns stdout. Fails when the exit code is another than `code`."""
    done = subprocess.run(
        [sys.executable, "-m", "dualview", *map(str, args)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "160"},
        check=False,
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout if code == 0 else done.stdout + done.stderr


def asked(*args: object, code: int = 0) -> Any:
    return json.loads(cli(*args, "--json", code=code))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain files of a small shop."""
    folder = tmp_path_factory.mktemp("shop")
    make_shop(folder, CatalogueSettings(items=160, seed=3, px=64), TasteSettings(users=120))
    return folder


@pytest.fixture(scope="module")
def store(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, ingested, computed and published by the command line."""
    root = tmp_path_factory.mktemp("stores") / "store"
    cli("init", root, "--preset", "offline")
    cli("ingest", root, shop / "items.csv", "--interactions", shop / "events.csv")
    cli("materialize", root)
    cli("publish", root)
    return root


def items(shop: Path) -> list[dict[str, str]]:
    with (shop / "items.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_help_is_light_and_lists_every_verb() -> None:
    code = (
        "import sys; sys.argv = ['dualview', '--help']\n"
        "from dualview.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('LOADED', sorted({'torch', 'lancedb', 'lance', 'numpy', 'pyarrow', 'faiss'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout
    for verb in (
        "init",
        "ingest",
        "materialize",
        "publish",
        "similar",
        "train",
        "evaluate",
        "recommend",
        "demo",
    ):
        assert verb in done.stdout


def test_a_store_that_was_computed_and_published_is_current(store: Path) -> None:
    status = asked("status", store)
    assert status["current"]
    assert status["items"] == 160
    assert {f["name"] for f in status["features"]} == {"text", "image"}
    assert status["release"] == "0001"
    assert asked("status", store, "--drift")["drift"]["text"]["items_then"] == 160


def test_similar_finds_by_item_text_and_picture(store: Path, shop: Path) -> None:
    with_picture = next(row for row in items(shop) if row["image"])
    by_item = asked("similar", store, with_picture["item_id"], "-k", 5)
    assert len(by_item) == 5
    assert with_picture["item_id"] not in {row["item_id"] for row in by_item}
    by_text = asked("similar", store, "--text", with_picture["title"], "-k", 3)
    assert by_text[0]["title"] == with_picture["title"]
    by_picture = asked("similar", store, "--image", shop / with_picture["image"], "-k", 1)
    assert by_picture[0]["item_id"] == with_picture["item_id"]


def test_a_filter_holds_for_every_answer(store: Path, shop: Path) -> None:
    some = items(shop)[0]["item_id"]
    found = asked("similar", store, some, "--where", "price < 30", "-k", 10)
    assert found
    assert all(row["price"] < 30 for row in found)
    said = cli("similar", store, some, "--where", "pirce < 30", code=1)
    assert "did you mean 'price'" in said


def test_train_evaluate_promote_and_recommend(store: Path, shop: Path) -> None:
    run = asked("train", store, "--items", "id+text", "--epochs", 2, "--length", 20, "--set", "width=16")
    assert run["run"] == "sasrec-id-text-001"
    report = asked("evaluate", store, "latest", "--negatives", 20)
    assert set(report["full"]) == {"sasrec-id-text-001", "popularity"}
    assert 0 <= report["overall"]["NDCG@10"] <= report["overall"]["HR@10"] <= 1
    assert "SAMPLED" in report["sampled"]["popularity"]["protocol"]
    cli("promote", store, "latest")
    assert asked("runs", store)[0]["promoted"]
    with (shop / "events.csv").open(newline="") as file:
        events = list(csv.DictReader(file))
    user = events[0]["user_id"]
    found = asked("recommend", store, user, "-k", 5)
    taken = {row["item_id"] for row in events if row["user_id"] == user}
    assert len(found) == 5
    assert not taken & {row["item_id"] for row in found}


def test_new_items_are_told_of_a_run_that_hid_some(store: Path, tmp_path: Path) -> None:
    cli("export", store, tmp_path / "out", "--to", "release")
    out = tmp_path / "out"
    hide = ("--set", "width=16", "--set", "hide_items=0.2")
    run = asked("train", out, "--items", "text", "--epochs", 1, *hide)["run"]
    report = asked("evaluate", out, "latest")["new_items"]
    scorers = {run, "chance", "popularity", "content_knn:text", "content_knn:text, latest first"}
    assert set(report["full"]) == set(report["among_hidden"]) == scorers
    assert report["full"][run]["users"] == report["users"] > 0
    assert "AMONG" in report["among_hidden"][run]["protocol"]
    assert "hidden from training" in cli("evaluate", out, "latest")
    assert "new_items" not in asked("evaluate", out, "latest", "--on", "valid")
    # an evaluation of validation leaves the figure that chose the epoch alone
    checks = {check["name"]: check["verdict"] for check in asked("audit", out, "latest")["checks"]}
    assert checks["hidden items"] == checks["split"] == "holds"


def test_an_audit_ends_with_one_where_a_check_is_violated(store: Path, tmp_path: Path) -> None:
    cli("export", store, tmp_path / "out", "--to", "release")
    run = asked("train", tmp_path / "out", "--items", "text", "--epochs", 1, "--set", "width=16")["run"]
    found = asked("audit", tmp_path / "out", "latest")
    assert (found["run"], found["verdicts"]["violated"]) == (run, 0)
    assert {"split", "feature text", "epoch", "answers before test"} <= {
        row["name"] for row in found["checks"]
    }
    metrics = tmp_path / "out" / "runs" / run / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"best_epoch": 1', '"best_epoch": 2'))
    assert "violated: 1" in cli("audit", tmp_path / "out", run, code=1)


def test_sql_answers_and_refuses_to_write(store: Path) -> None:
    assert asked("sql", store, "select count(*) as n from items") == [{"n": 160}]
    assert asked("sql", store, "select 1 as a, 2 as a, 3 as a_1") == [{"a": 1, "a_2": 2, "a_1": 3}]
    cli("sql", store, "select 1 as a, 2 as a")
    cli("sql", store, "delete from items", code=1)
    cli("sql", store, "select * from read_text('/etc/hostname')", code=1)


def test_an_edited_title_makes_exactly_its_cells_stale(store: Path, shop: Path, tmp_path: Path) -> None:
    rows = items(shop)
    rows[0]["title"] += " deluxe"
    edited = tmp_path / "items.csv"
    with edited.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    report = asked("ingest", store, edited, "--images", shop)
    assert report["items"]["changed"] == 1
    status = asked("status", store, code=2)
    assert {f["name"]: f["stale"] for f in status["features"]} == {"text": 1, "image": 0}
    computed = asked("materialize", store)
    assert {f["feature"]: f["computed"] for f in computed["features"]} == {"text": 1, "image": 0}
    assert asked("status", store)["current"]


def test_a_bad_row_is_named_with_file_line_and_reason(store: Path, tmp_path: Path) -> None:
    broken = tmp_path / "more.csv"
    broken.write_text("item_id,title,image\n,No id,\nextra-1,Fine,../../etc/passwd\n")
    report = asked("ingest", store, broken)
    assert report["items"]["added"] == 1
    places = {e["place"] for group in asked("errors", store) for e in group["examples"]}
    assert any(place.endswith("more.csv:2") for place in places)
    assert any(place.endswith("more.csv:3") for place in places)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["status", "nowhere"], "dualview init"),
        (["init", "x", "--preset", "ofline"], "did you mean 'offline'"),
        (["materialize", "s3://bucket/store"], "not a local folder"),
    ],
)
def test_a_wrong_call_ends_with_one_and_says_what_to_do(args: list[str], said: str) -> None:
    answer = cli(*args, code=1)
    assert said in answer
    assert "Traceback" not in answer


def test_an_empty_store_is_not_called_current(tmp_path: Path) -> None:
    cli("init", tmp_path / "store")
    assert "no items yet" in cli("materialize", tmp_path / "store")


def test_wrong_usage_is_an_error_and_not_staleness() -> None:
    cli("similar", code=1)


def test_an_unknown_run_feature_or_item_names_the_nearest(store: Path) -> None:
    assert "did you mean 'image'" in cli("similar", store, "whatever", "--feature", "imaeg", code=1)
    assert "no run" in cli("evaluate", store, "sasrec-id-999", code=1)


def test_a_training_that_is_refused_takes_no_name(store: Path) -> None:
    before = sorted((store / "runs").glob("*"))
    assert "no interactions are left" in cli("train", store, "--set", "k_core=[999, 999]", code=1)
    assert "is not there" in cli("train", store, "--device", "cuda:99", code=1)
    assert sorted((store / "runs").glob("*")) == before


def test_a_place_that_cannot_be_written_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for verb in ("init", "demo"):
        said = cli(verb, tmp_path / "file" / "below", code=1)
        assert "error: " in said
        assert "what to do: " in said
        assert "Traceback" not in said


def test_our_warnings_are_notes_said_once_and_those_of_libraries_stay(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        warnings.showwarning = _Notes()
        for _ in range(2):
            warnings.warn("one token", OneToken, stacklevel=1)
        warnings.warn("a library's", DeprecationWarning, stacklevel=1)
    said = capsys.readouterr().err
    assert said.count("note: one token") == 1
    assert [str(each.message) for each in shown] == ["a library's"]
    assert "OneToken" not in said


def test_help_is_broken_where_the_terminal_ends_and_not_where_the_source_does() -> None:
    shown = CliRunner().invoke(app, ["fit", "--help"], env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"}).output
    assert "fitted here. New items never trigger a refit." in shown
