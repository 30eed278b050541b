"""A study of kind "msr": what its file may say, its cells done and left and gone on with, and its report."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from dualview import Store, cli, msr_pipeline
from featurestore.errors import BadInput, Conflict, NotFound
from recommender.msr.study import report
from recommender.msr.study.grid import MsrStudy
from recommender.msr.study.work import _line
from recommender.study import Study, results
from recommender.study.state import Sources, State, judge
from recommender.study.work import work
from tests.recommender import asking, tastes

STUDY = """
kind = "msr"
name = "tiny"
seeds = [0, 1]
baselines = ["chance", "popularity"]
reference = "full"

[data.shop]
release = "store"
items = "items.csv"
interactions = "events.csv"
features = "features.toml"
texts = { told = "told.parquet" }

[pairs]
negatives = 3
catalogue = "all"
valid_users = 8

[options]
model = "MODEL"
answers = ["y", "n"]
length = 700
batch = 16
epochs = 1
rank = 2

[preference.steps]
backend = "template"
summary = "told"
last = 6

[preference.at-once]
backend = "template"
direct = true
last = 6

[arm.zero-shot]
zero_shot = true
preference = "steps"

[arm.full]
preference = "steps"
summary = "told"
rates = [0.0001, 0.01]

[arm.no-recurrence]
preference = "at-once"
summary = "told"

[arm.text-only]
history = 6

[arm.sasrec]
backbone = "sasrec"
width = 8
epochs = 2
"""
FEATURES = """
[features.told]
kind = "imported"
inputs = ["text"]
encoder = "imported"
model = "somebody"
"""


def write(folder: Path, text: str = STUDY, **changes: str) -> Path:
    """study.toml with lines replaced."""
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "study.toml"
    path.write_text(text.replace("MODEL", str(asking.folder("llm"))))
    return path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files beside a study.toml."""
    folder = tmp_path_factory.mktemp("study")
    csv.write_csv(tastes.items(), folder / "items.csv")
    csv.write_csv(tastes.events((8, 7, 6, 6, 5, 4, 7, 5)), folder / "events.csv")
    (folder / "features.toml").write_text(FEATURES)
    ids = tastes.items()["item_id"]
    pq.write_table(pa.table({"item_id": ids, "text": [f"told of {i}" for i in ids]}), folder / "told.parquet")
    write(folder)
    return folder


@pytest.fixture(scope="module")
def study(shop: Path) -> MsrStudy:
    """Read, with its store and its preferences made."""
    read = msr_pipeline.read(shop / "study.toml")
    msr_pipeline.make_store(read, say=lambda line: None)
    read.prepare("cpu")
    return read


# ---- the file


def test_the_grid_is_floors_then_zero_shot_then_arms_seed_by_seed(shop: Path) -> None:
    read = msr_pipeline.read(shop / "study.toml")
    arms = ["msr--full", "msr--no-recurrence", "msr--text-only", "sasrec--sasrec"]
    expected = ["chance", "popularity", "msr--zero-shot", *(f"{arm}--{s}" for s in (0, 1) for arm in arms)]
    assert [cell.name for cell in read.cells()] == [f"shop--{name}" for name in expected]
    assert [cell.name for cell in read.select(tower=["full"], seed=[1])] == ["shop--msr--full--1"]
    assert len({cell.config_hash for cell in read.cells() if cell.seed != 1}) == 7


@pytest.mark.parametrize(
    ("line", "instead", "says", "remedy"),
    [
        ('kind = "msr"', 'kind = "mrs"', "unknown kind 'mrs'", "msr"),
        ("negatives = 3", "negative = 3", r"line 16, \[pairs\]: unknown option 'negative'", "negatives"),
        ("rank = 2", "rnk = 2", "unknown option 'rnk'", "rank"),
        ("rank = 2", "rank = 0", "rank", ""),
        ('summary = "told"\nlast = 6', 'summry = "told"\nlast = 6', "summry", "summary"),
        ('preference = "at-once"', 'preference = "atonce"', "unknown preference 'atonce'", "at-once"),
        ('reference = "full"', 'reference = "ful"', "unknown arm 'ful'", "full"),
        ('backbone = "sasrec"', 'backbone = "sasrek"', "unknown backbone", "sasrec"),
        ('["chance", "popularity"]', '["chance", "item_knn"]', "unknown name 'item_knn'", ""),
        ('release = "store"', 'relase = "store"', "unknown setting 'relase'", "release"),
        ("zero_shot = true", 'zero_shot = "yes"', "zero_shot is true or false", ""),
        ("zero_shot = true", "zero_shot = true\nlr = 1e-4", "lr is of training", "leave it out"),
        ("rates = [0.0001, 0.01]", "rates = [0]", "rates are learning rates", ""),
        ("width = 8", 'split = "global-time"', "the same for all arms", "leave it out"),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_the_nearest_name(
    tmp_path: Path, line: str, instead: str, says: str, remedy: str
) -> None:
    with pytest.raises(BadInput) as refused:
        Study.read(write(tmp_path, **{line: instead}))
    assert re.search(says, refused.value.message)
    assert "study.toml" in refused.value.message
    assert remedy in (refused.value.remedy or "")


def test_a_study_of_towers_is_none_of_this_kind(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(
        'name = "a"\nbackbones = ["sasrec"]\n[data.d]\nrelease = "store"\n[tower.id]\nitems = "id"\n'
    )
    with pytest.raises(BadInput, match='no study of kind "msr"'):
        msr_pipeline.read(path)


# ---- the cells


def test_cells_are_done_once_and_their_test_is_opened_later(study: MsrStudy, tmp_path: Path) -> None:
    here = Study.read(study.path, cells=tmp_path / "cells")
    assert isinstance(here, MsrStudy)
    asked = here.select(tower=["full", "sasrec"], seed=[0])
    asked += here.select(tower=["zero-shot"]) + here.select(backbone=["chance"])
    cells = {cell.name: cell for cell in asked}
    said: list[str] = []
    for cell in cells.values():
        assert work(here, cell, tmp_path / "out", device="cpu", told=said.append) == State.TRAINED
        assert work(here, cell, tmp_path / "out", device="cpu") is None
    found = {record["tower"] or record["baseline"]: record for record in results(here)}
    assert all(record["test"] is None for record in found.values())
    assert len({record["pairs_hash"] for record in found.values()}) == 1
    full = found["full"]
    assert set(full["rates"]) == {"0.0001", "0.01"}
    assert full["rates"][str(full["rate"])] == max(full["rates"].values()) == full["valid"]["metrics"]["AUC"]
    assert any(line.startswith("rate 0.01, epoch 1") for line in said)
    assert full["preferences"]["preferences_unknown"] == 0
    assert full["cost"]["parameters"] > 0
    rows, part = report.table(here, results(here))
    assert part == "valid"
    for cell in cells.values():
        assert work(here, cell, tmp_path / "out", test=True, device="cpu") == State.TESTED
    again = {record["tower"] or record["baseline"]: record for record in results(here, tested=True)}
    assert again["full"]["valid"] == full["valid"]
    assert again["full"]["test"]["users"] == 8
    written = report.write(here, results(here), tmp_path / "report")
    text = written[0].read_text()
    assert "| full | fine-tuned | 1 of 2 |" in text
    assert "Before fine-tuning (zero-shot) AUC is" in text
    rows, part = report.table(here, results(here))
    assert part == "test"
    assert [row.name for row in rows] == ["chance", "zero-shot", "full", "sasrec"]
    assert all(row.against is not None for row in rows if row.name != "full")
    # what a cell was made of changed
    changed = Study.read(
        write(tmp_path, **{"rank = 2": "rank = 3", '"store"': f'"{study.path.parent / "store"}"'})
    )
    cell = changed.select(tower=["full"], seed=[0])[0]
    state, why = judge(cell, Sources(changed))
    assert (state, why) == (State.OUTDATED, "option.rank was 2, is 3")
    with pytest.raises(Conflict, match="outdated"):
        work(changed, cell, tmp_path / "out", device="cpu")


def test_a_cell_is_outdated_by_what_it_shows_and_by_nothing_else_of_a_release(
    study: MsrStudy, tmp_path: Path
) -> None:
    shutil.copytree(study.path.parent, tmp_path / "shop")
    here = Study.read(tmp_path / "shop" / "study.toml", cells=tmp_path / "cells")
    cell = here.select(tower=["zero-shot"])[0]
    work(here, cell, tmp_path / "out", device="cpu")
    record = cell.record()
    assert record is not None
    assert record["shown"]["picture"] is False  # the model does not see
    store = Store.open(tmp_path / "shop" / "store")

    def changed(table: pa.Table) -> tuple[State, str | None]:
        store.ingest(table)
        store.publish(allow_stale=True)
        return judge(cell, Sources(here))

    weights = pa.array(range(12))
    assert changed(tastes.items().append_column("weight", weights)) == (State.TRAINED, None)
    state, why = changed(tastes.items(i03="another").append_column("weight", weights))
    assert state == State.OUTDATED
    assert "candidates are shown otherwise" in str(why)


def test_a_record_that_is_older_than_an_option_has_its_default(study: MsrStudy) -> None:
    cell = study.select(tower=["text-only"], seed=[0])[0]
    older = {name: value for name, value in cell.options.items() if name != "option.checkpointing"}
    assert cell.changed({"config": older, "shuffle": []}) == []
    (told,) = cell.changed({"config": older | {"option.history": 3}, "shuffle": []})
    assert told == "option.history was 3, is 6"


def test_a_line_is_told_of_an_epoch_without_validation() -> None:
    row = {"epoch": 1, "loss": 0.5}
    assert _line(1e-3, row) == "rate 0.001, epoch 1: loss 0.5000"
    assert _line(1e-3, row | {"valid_auc": 0.75, "best": True}).endswith("validation AUC 0.7500, best")


def test_a_cell_that_was_killed_goes_on_and_ends_as_an_unbroken_one(
    study: MsrStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Study.read(study.path, cells=tmp_path / "cells")
    cell = here.select(tower=["text-only"], seed=[1])[0]

    class Killed(BaseException): ...

    def die(*args: Any, **kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("recommender.msr.study.work.figures", die)
        with pytest.raises(Killed):
            work(here, cell, tmp_path / "out", test=True, device="cpu")
    assert cell.record() is None
    said: list[str] = []
    assert work(here, cell, tmp_path / "out", test=True, device="cpu", told=said.append) == State.TESTED
    assert said == []  # nothing was trained again
    other = Study.read(study.path, cells=tmp_path / "others")
    work(
        other, other.select(tower=["text-only"], seed=[1])[0], tmp_path / "elsewhere", test=True, device="cpu"
    )
    mine, theirs = cell.record(), other.select(tower=["text-only"], seed=[1])[0].record()
    assert mine is not None
    assert theirs is not None
    assert mine["test"]["metrics"] == theirs["test"]["metrics"]
    assert mine["checkpoint_sha256"] == theirs["checkpoint_sha256"]


def test_preferences_are_made_for_every_positive_and_once(study: MsrStudy) -> None:
    assert all(found["computed"] == 0 for found in study.prepare("cpu"))


def test_cells_of_other_pairs_make_no_table(study: MsrStudy) -> None:
    record: dict[str, Any] = {"pairs_hash": "a"}
    with pytest.raises(Conflict, match="different pairs"):
        report.table(study, [record, {"pairs_hash": "b"}])


# ---- one command


def test_one_command_goes_from_raw_files_to_the_table(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("items.csv", "events.csv", "features.toml", "told.parquet"):
        (tmp_path / name).write_bytes((shop / name).read_bytes())
    text = re.sub(r"\[arm\.(full|no-recurrence|sasrec|zero-shot)\][^\[]*(\[0.0001, 0.01\]\n\n)?", "", STUDY)
    fewer = {"seeds = [0, 1]": "seeds = [0]", 'reference = "full"': "", '["chance", "popularity"]': "[]"}
    path = write(tmp_path, text, **fewer)

    def call(*more: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["dualview", "msr", "run", str(path), *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().out

    code, out = call("--dry-run", "--json")
    assert (code, json.loads(out)["makes_store"], len(json.loads(out)["cells"])) == (0, True, 1)
    assert not (tmp_path / "store").exists()
    code, out = call("--device", "cpu", "--json")
    found = json.loads(out)
    assert code == 0
    assert [row["scorer"] for row in found["table"]] == ["text-only"]
    assert found["part"] == "test"
    assert (tmp_path / "out" / "REPORT.md").read_text().startswith("# tiny\n")
    code, out = call("--device", "cpu")
    assert code == 0
    assert "text-only" in out
    (tmp_path / "events.csv").unlink()  # figures stand on the store from now on
    assert call("--device", "cpu", "--json")[0] == 0


def test_without_raw_files_a_store_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path, **{'items = "items.csv"\ninteractions = "events.csv"\n': ""})
    with pytest.raises(NotFound, match="does not say what to make it of"):
        msr_pipeline.make_store(msr_pipeline.read(path), say=lambda line: None)
