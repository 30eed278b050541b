from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from featurestore import release as releases
from featurestore.errors import BadInput, Conflict, NotFound
from featurestore.recipe import Recipe
from featurestore.store import Store
from ingest.fuse.stored import Tokens, Vectors
from recommender.audit import HOLDS, Check
from recommender.data import split_of
from recommender.evaluate import evaluate
from recommender.model import scorer
from recommender.runs import Run
from recommender.study import Cell, Study, records, results, runner
from recommender.study.audited import Audited, audited
from recommender.study.claims import claim, taken
from recommender.study.plan import plan
from recommender.study.records import ranks
from recommender.study.shuffle import shuffled
from recommender.study.state import Sources, State, judge
from recommender.study.work import work
from tests.recommender.test_retrieve import DIM, FEATURES, compute, put

ROOT = Path(__file__).parents[2]
GRID = """
name = "small"
seeds = [0, 1]
backbones = ["sasrec", "gru4rec"]
baselines = ["popularity"]
reference = "id"

[data.shop]
release = "store"

[options]
width = 8
length = 6
epochs = 3
layers = 1

[tower.id]
items = "id"

[tower.text]
items = "id+text"
scaling = "none"
"""
ONE = GRID.replace("[0, 1]", "[0]").replace('"sasrec", "gru4rec"', '"sasrec"').replace('"popularity"', "")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three releases, with nothing else of a store: the second has other text vectors than the first and
    the same events, the third one event more.
    """
    made = Store.create(tmp_path_factory.mktemp("study") / "store", FEATURES)
    random = np.random.default_rng(0)
    events = [
        (f"u{u:02d}", f"i{int(random.integers(30)):03d}", t) for u in range(40) for t in range(2 + u % 6)
    ]
    recipe = Recipe(kind="embed_text", inputs=("column:title",), encoder="given", dim=DIM)
    put(made, range(30), events)
    compute(made, recipe, seed=0)
    made.publish()
    compute(made, recipe.model_copy(update={"code_version": 2}), seed=1)
    made.publish()
    put(made, range(30), [*events, ("u01", "i004", 99)])
    made.publish()
    copied = tmp_path_factory.mktemp("copied") / "store"
    for part in ("releases", "derived"):
        shutil.copytree(made.root / part, copied / part)
    return copied


@pytest.fixture
def study(tmp_path: Path, store: Path) -> Callable[..., Study]:
    """Writes a study beside a link to the folder of releases, and reads it."""
    (tmp_path / "store").symlink_to(store)

    def written(text: str = ONE, release: str = "store@0001") -> Study:
        path = tmp_path / "study.toml"
        path.write_text(text.replace('release = "store"', f'release = "{release}"'))
        return Study.read(path)

    return written


def cell(study: Study, name: str) -> Cell:
    return next(one for one in study.cells() if one.name == name)


def state(study: Study, name: str) -> State:
    return judge(cell(study, name), Sources(study))[0]


def without_a_stores_packages(folder: Path) -> dict[str, str]:
    """An environment in which neither LanceDB nor DuckDB can be imported."""
    shadows = folder / "shadows"
    shadows.mkdir(exist_ok=True)
    for name in ("lancedb", "lance", "duckdb"):
        (shadows / f"{name}.py").write_text("raise ImportError('not here')\n")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(shadows), str(ROOT)]), "OMP_NUM_THREADS": "1"}


def command(study: Study, *args: str, verb: str = "run") -> list[str]:
    return [sys.executable, "-m", "dualview", "study", verb, str(study.path), *args]


# ---- reading


def test_the_grid_is_in_the_order_of_the_file_with_seed_0_of_everything_first(
    study: Callable[..., Study],
) -> None:
    read = study(GRID)
    assert [one.name for one in read.cells()][:6] == [
        "shop--popularity",
        "shop--sasrec--id--0",
        "shop--sasrec--text--0",
        "shop--gru4rec--id--0",
        "shop--gru4rec--text--0",
        "shop--sasrec--id--1",
    ]
    assert len(read.cells()) == 9
    assert (read.towers, read.reference, list(read.data)) == (("id", "text"), "id", ["shop"])


def test_what_is_more_particular_wins(study: Callable[..., Study]) -> None:
    tables = [
        ("options", "width = 10\nlength = 11\nlr = 0.1\nbatch = 1\nepochs = 1\nclip = 1.0\n"),
        ("data.shop.options", "length = 21\nlr = 0.2\nbatch = 2\nepochs = 2\nclip = 2.0\n"),
        ("backbone.sasrec", "lr = 0.3\nbatch = 3\nepochs = 3\nclip = 3.0\n"),
        ("data.shop.backbone.sasrec", "batch = 4\nepochs = 4\nclip = 4.0\n"),
        ("tower.id", 'items = "id"\nepochs = 5\nclip = 5.0\nwarmup = 5\naverage = 0.5\n'),
        ("tower.id.backbone.sasrec", "clip = 6.0\nwarmup = 6\naverage = 0.6\n"),
        ("data.shop.tower.id", "warmup = 7\naverage = 0.7\n"),
        ("data.shop.tower.id.backbone.sasrec", "average = 0.8\n"),
    ]
    head = 'name = "x"\nbackbones = ["sasrec", "gru4rec"]\n[data.shop]\nrelease = "store"\n'
    read = study(head + "".join(f"[{name}]\n{text}" for name, text in reversed(tables)))
    config = cell(read, "shop--sasrec--id--0").config
    assert (config.width, config.length, config.lr, config.batch) == (10, 21, 0.3, 4)
    assert (config.epochs, config.clip, config.backbone, config.seed) == (5, 6.0, "sasrec", 0)
    assert (config.warmup, config.average) == (7, 0.8)
    other = cell(read, "shop--gru4rec--id--0").config
    assert (other.lr, other.clip, other.warmup, other.average) == (0.2, 5.0, 7, 0.7)


def test_only_and_skip_choose_cells(study: Callable[..., Study]) -> None:
    rules = '[[only]]\nbackbone = "sasrec"\n[[only]]\nseed = 1\n[[skip]]\ntower = ["text"]\nseed = 0\n'
    names = [one.name for one in study(GRID + rules).cells()]
    assert names == [
        "shop--popularity",
        "shop--sasrec--id--0",
        "shop--sasrec--id--1",
        "shop--sasrec--text--1",
        "shop--gru4rec--id--1",
        "shop--gru4rec--text--1",
    ]
    with pytest.raises(BadInput, match="leave no cell"):
        study(GRID + '[[skip]]\ndata = "shop"\n')


def test_filters_name_axes_and_refuse_what_is_on_none(study: Callable[..., Study]) -> None:
    read = study(GRID)
    assert [one.name for one in read.select(tower=["text"], seed=[1])] == [
        "shop--sasrec--text--1",
        "shop--gru4rec--text--1",
    ]
    assert [one.name for one in read.select(backbone=["popularity"])] == ["shop--popularity"]
    with pytest.raises(BadInput, match="no tower 'txt'") as refused:
        read.select(tower=["txt"])
    assert refused.value.remedy == "did you mean 'text'?"


@pytest.mark.parametrize(
    ("old", "new", "said", "remedy"),
    [
        (
            "width = 8",
            "widht = 8",
            r"study.toml, line 12, \[options\]: unknown training option 'widht'",
            "'width'",
        ),
        ("seeds =", "sedes =", r"study.toml, line 3: unknown setting 'sedes'", "'seeds'"),
        ('["sasrec", "gru4rec"]', '["sasrek"]', r"line 4: unknown name 'sasrek' in backbones", "'sasrec'"),
        ('"popularity"', '"popularty"', r"line 5: unknown name 'popularty' in baselines", "'popularity'"),
        ('reference = "id"', 'reference = "ids"', r"line 6: unknown tower 'ids'", "'id'"),
        ("width = 8", "width = 0", r"line 12, \[options\]: width: Input should be", "--options"),
        ('items = "id"', 'items = "id"\nseed = 3', r"line 19, \[tower.id\]: seed is an axis", "seeds"),
        (
            'items = "id"',
            'items = "id"\nk_core = [2, 2]',
            r"\[tower.id\]: k_core must be the same",
            "data.NAME",
        ),
        (
            '"id+text"',
            '"id+text"\nshuffle = ["txt"]',
            r"line 22, \[tower.text\]: shuffle names 'txt'",
            "'text'",
        ),
        (
            '"id+text"',
            '"id+text"\n[data.shop.tower.tex]',
            r"\[data.shop.tower\]: unknown tower 'tex'",
            "'text'",
        ),
        ("[tower.id]", "[tower.a--b]", r"'a--b' is no name", "single -"),
        (
            "[tower.id]",
            "[tower.id.backbone.sasrecs]\nlr = 0.1\n[tower.id]",
            "unknown backbone 'sasrecs'",
            "'sasrec'",
        ),
        (
            "[tower.id]",
            "[tower.id.backbone.sasrec]\nlrr = 0.1\n[tower.id]",
            "unknown training option 'lrr'",
            "'lr'",
        ),
        ("width = 8", "heads = 4", r"cell shop, gru4rec, id: heads is an option of", "--options"),
        ('release = "store"', "relase = 1", r"line 9, \[data.shop\]: unknown setting 'relase'", "'release'"),
        ("[0, 1]", "[0, 0]", "seeds must be different", None),
    ],
)
def test_what_is_wrong_in_a_study_is_named_with_line_and_table(
    tmp_path: Path, old: str, new: str, said: str, remedy: str | None
) -> None:
    path = tmp_path / "study.toml"
    path.write_text(GRID.replace(old, new, 1))
    with pytest.raises(BadInput, match=said) as refused:
        Study.read(path)
    assert remedy is None or remedy in str(refused.value.remedy)


def test_a_study_that_is_not_there_or_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no study"):
        Study.read(tmp_path / "study.toml")
    (tmp_path / "study.toml").write_text("name = ")
    with pytest.raises(BadInput, match="no TOML"):
        Study.read(tmp_path / "study.toml")


# ---- shuffling


def test_shuffled_vectors_are_the_same_ones_at_other_items() -> None:
    random = np.random.default_rng(0)
    values, present = random.normal(size=(50, 3)).astype(np.float32), np.arange(50) % 5 > 0
    given = {"image": Vectors(values, present), "text": Vectors(values, present)}
    found = shuffled(given, ["image"])
    assert found["text"] is given["text"]
    assert (found["image"].present == present).all()
    assert (found["image"].values[present] != values[present]).any(axis=1).sum() > 30
    assert sorted(map(tuple, found["image"].values[present])) == sorted(map(tuple, values[present]))
    again = shuffled(given, ["image", "text"])
    assert (again["image"].values == found["image"].values).all()
    assert (again["text"].values != found["image"].values).any()


def test_shuffled_tokens_stay_together() -> None:
    counts = np.array([2, 0, 3, 1, 0, 4, 2])
    offsets = np.concatenate([[0], np.cumsum(counts)])
    values = np.repeat(np.arange(7), counts)[:, None] + np.arange(12)[:, None] / 100
    given = Tokens(values.astype(np.float32), offsets)
    found = shuffled({"words": given}, ["words"])["words"]

    def bags(tokens: Tokens) -> list[tuple[float, ...]]:
        parts = zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)
        return [tuple(tokens.values[start:end, 0].tolist()) for start, end in parts]

    assert sorted(bags(found)) == sorted(bags(given))
    assert bags(found) != bags(given)
    assert [not bag for bag in bags(found)] == [not bag for bag in bags(given)]


# ---- one cell


def test_a_trained_cell_leaves_a_run_and_a_record_and_its_test_is_closed(
    study: Callable[..., Study], tmp_path: Path
) -> None:
    read = study()
    one = cell(read, "shop--sasrec--text--0")
    assert work(read, one, tmp_path / "out", device="cpu") is State.TRAINED
    run = Run(tmp_path / "out" / "runs" / one.name)
    assert (run.config, run.release, len(run.history())) == (one.config, "0001", 3)
    assert "test" not in run.metrics()
    record = one.record()
    assert record is not None
    assert record["test"] is None
    assert record["config"] == one.config.model_dump(mode="json")
    assert record["config_hash"] == one.config_hash
    assert record["valid"]["metrics"]["NDCG@10"] == pytest.approx(run.metrics()["valid"]["ndcg@10"], abs=1e-9)
    assert {"items:head", "items:tail", "items:cold"} < set(record["valid"]["groups"])
    assert record["cost"]["parameters"] > 0
    assert record["best_epoch"] >= 1  # whose seconds may round to none on a fast machine
    assert record["cost"]["clock"] == "processor"
    rounded = 0.01 * 2 * record["epochs"]  # the wall's seconds are kept to hundredths
    assert 0 <= record["cost"]["seconds_to_best"] <= record["cost"]["seconds"] + rounded
    source = releases.open(read.data["shop"].root, "0001")
    split = split_of(source, one.config)
    assert record["split_hash"] == split.hash
    assert record["split"]["numbers"] == split.numbers()
    kept = ranks(one.ranks_file)
    assert kept.schema.names == ["rank_valid", "rank_test", "history", "target_count"]
    assert set(kept.schema.types) == {pa.int32()}
    assert len(kept) == split.log.n_users
    assert kept["rank_test"].null_count == len(kept)
    users = split.users("test")
    assert len(users) < split.log.n_users  # some have too few events
    assert (np.flatnonzero(kept["rank_valid"].to_numpy()) == split.users("valid")).all()
    first, target = split.history(users, "test")
    assert (kept["history"].to_numpy()[users] == target - first).all()
    assert (kept["target_count"].to_numpy()[users] == split.counts[split.targets("test")]).all()
    assert [found["cell"] for found in results(read)] == [one.name]
    assert results(read)[0]["ranks"] == str(one.ranks_file)
    assert results(read, tested=True) == []


def test_a_test_is_opened_once_and_from_the_kept_weights(
    study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, out = study(), tmp_path / "out"
    one = cell(read, "shop--sasrec--id--0")
    work(read, one, out, device="cpu")
    before, valid = one.record(), ranks(one.ranks_file)["rank_valid"]
    weights = out / "runs" / one.name / "checkpoint" / "best.safetensors"
    kept = weights.read_bytes()
    with pytest.raises(BadInput, match="its weights are not in"):
        work(read, one, tmp_path / "other", test=True, device="cpu")
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(Conflict, match="are not those"):
        work(read, one, out, test=True, device="cpu")
    weights.write_bytes(kept)
    monkeypatch.setattr("recommender.fit.fit", lambda *_, **__: pytest.fail("trained again"))
    assert work(read, one, out, test=True, device="cpu") is State.TESTED
    record = one.record()
    assert before is not None
    assert record is not None
    split = split_of(releases.open(read.data["shop"].root, "0001"), one.config)
    model = Run(out / "runs" / one.name).load_model()
    expected = evaluate(scorer(model, split, "test"), split, "test")
    assert record["test"]["metrics"]["NDCG@10"] == expected.metrics["NDCG@10"]
    assert {name: record[name] for name in before if name != "test"} == {
        name: before[name] for name in before if name != "test"
    }
    by_user = ranks(one.ranks_file)
    assert by_user["rank_valid"] == valid
    assert (by_user["rank_test"].to_numpy()[expected.users] == expected.ranks).all()
    monkeypatch.setattr("recommender.evaluate.evaluate", lambda *_, **__: pytest.fail("opened again"))
    assert work(read, one, out, test=True, device="cpu") is None
    assert [found["cell"] for found in results(read, tested=True)] == [one.name]


def test_baselines_are_one_cell_a_data_set(study: Callable[..., Study], tmp_path: Path) -> None:
    read = study(GRID.replace('"popularity"', '"popularity", "item_knn", "chance"'))
    floors = [one for one in read.cells() if one.baseline]
    assert [one.name for one in floors] == ["shop--popularity", "shop--item_knn", "shop--chance"]
    for one in floors:
        assert work(read, one, tmp_path / "out", test=True) is State.TESTED
    found = {record["baseline"]: record for record in results(read)}
    assert all(record["backbone"] is record["tower"] is record["seed"] is None for record in found.values())
    assert len({record["test"]["metrics"]["MRR@20"] for record in found.values()}) == 3
    # options of training are nothing to a baseline; what is held out is
    read = study(GRID.replace("width = 8", "width = 16"))
    assert state(read, "shop--popularity") is State.TESTED
    read = study(GRID.replace("width = 8", 'repeat = "allow"'))
    assert state(read, "shop--popularity") is State.OUTDATED


def test_neighbours_by_content_are_a_floor_of_the_features_they_name(
    study: Callable[..., Study], tmp_path: Path
) -> None:
    text = GRID.replace('"popularity"', '"content_knn:text"')
    read = study(text)
    one = cell(read, "shop--content_knn-text")
    assert work(read, one, tmp_path / "out") is State.TRAINED
    record = one.record()
    assert record is not None
    assert (record["baseline"], list(record["features"])) == ("content_knn:text", ["text"])
    assert state(study(text.replace('"store"', '"store@0002"')), one.name) is State.OUTDATED  # other vectors
    for name, says in (("content_knn", "is of a feature"), ("content_knn:", "name different features")):
        with pytest.raises(BadInput, match=says):
            study(GRID.replace('"popularity"', f'"{name}"'))


def test_shuffling_changes_what_is_learnt_and_the_cell(study: Callable[..., Study], tmp_path: Path) -> None:
    plain = study()
    one = cell(plain, "shop--sasrec--text--0")
    work(plain, one, tmp_path / "out", device="cpu")
    mixed = study(ONE + 'shuffle = ["text"]\n')
    other = cell(mixed, "shop--sasrec--text--0")
    assert other.config_hash != one.config_hash
    assert "shuffle was [], is ['text']" in str(judge(other, Sources(mixed))[1])
    before = one.record()
    work(mixed, other, tmp_path / "out", again=True, device="cpu")
    after = other.record()
    assert before is not None
    assert after is not None
    assert after["checkpoint_sha256"] != before["checkpoint_sha256"]
    assert after["shuffle"] == ["text"]


@pytest.mark.parametrize("shuffle", ["", 'shuffle = ["text"]'])
def test_cells_are_audited_on_their_release_with_the_vectors_that_they_read(
    study: Callable[..., Study], tmp_path: Path, shuffle: str
) -> None:
    read, out = study(f"{ONE}{shuffle}\n"), tmp_path / "out"
    for one in read.cells():
        work(read, one, out, test=one.name.endswith("text--0"), device="cpu")
    found = {one.cell: one for one in audited(read, read.cells(), out)}
    assert list(found) == ["shop--sasrec--id--0", "shop--sasrec--text--0"]
    for each in found.values():
        assert each.audit is not None
        assert [(c.name, c.because) for c in each.audit.checks if c.verdict != HOLDS] == []
    opened = {name: audit_of(one)["test"].because for name, one in found.items()}
    assert opened == {
        "shop--sasrec--id--0": "it was never opened for this cell",
        "shop--sasrec--text--0": "opened once, by the weights that are kept: training had ended",
    }
    ask = command(read, "--out", str(out), verb="audit")
    told = subprocess.run([*ask, "--json"], capture_output=True, check=True)
    cells = json.loads(told.stdout)["cells"]
    assert [one["verdicts"]["violated"] for one in cells] == [0, 0]
    elsewhere = [one.says for one in audited(read, read.cells(), tmp_path / "elsewhere")]
    assert elsewhere == [f"its run is not in {tmp_path / 'elsewhere'}"] * 2
    # weights that learnt on after the test was opened
    kept = out / "runs" / "shop--sasrec--text--0" / "checkpoint"
    (kept / "best.safetensors").write_bytes((kept / "best.safetensors").read_bytes()[:-1] + b"\0")
    after = subprocess.run(ask, capture_output=True, text=True)
    assert after.returncode == 1
    assert "test is violated: the weights are not those" in " ".join(after.stderr.split())


def audit_of(found: Audited) -> dict[str, Check]:
    assert found.audit is not None
    return {check.name: check for check in found.audit.checks}


def test_a_cells_run_keeps_its_figures_and_ranks_as_evaluate_does(
    study: Callable[..., Study], tmp_path: Path
) -> None:
    read = study()
    one = cell(read, "shop--sasrec--id--0")
    work(read, one, tmp_path / "out", test=True, device="cpu")
    run, record = Run(tmp_path / "out" / "runs" / one.name), one.record()
    assert record is not None
    assert run.metrics()["test"]["metrics"] == record["test"]["metrics"]
    assert run.metrics()["test"]["split_hash"] == record["split_hash"]
    for which in ("valid", "test"):
        users = pq.read_table(run.folder / f"{which}_users.parquet")
        given = ranks(one.ranks_file)[f"rank_{which}"].to_numpy()
        assert users["rank"].to_pylist() == given[given > 0].tolist()
        assert users.schema.names == ["user_id", "item_id", "rank", "candidates"]


def test_a_record_names_every_version_of_the_code_that_trained_it(
    study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = study()
    one = cell(read, "shop--sasrec--id--0")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recommender.study.records.commit", lambda: "aaaa")
    with monkeypatch.context() as patched:
        patched.setattr("recommender.fit.fit", killed)
        with pytest.raises(KeyboardInterrupt):
            work(read, one, tmp_path / "out", device="cpu")
    for commit in ("bbbb", "bbbb"):
        monkeypatch.setattr("recommender.study.records.commit", lambda commit=commit: commit)
        work(read, one, tmp_path / "out", device="cpu")
    record = one.record()
    assert record is not None
    assert record["code"] == "aaaa bbbb"


def test_a_cell_of_other_options_is_outdated_and_done_anew_only_when_asked(
    study: Callable[..., Study], tmp_path: Path
) -> None:
    read, out = study(), tmp_path / "out"
    one = cell(read, "shop--sasrec--id--0")
    work(read, one, out, test=True, device="cpu")
    first = one.record()
    read = study(ONE.replace("width = 8", "width = 4"))
    one = cell(read, "shop--sasrec--id--0")
    assert judge(one, Sources(read)) == (State.OUTDATED, "width was 8, is 4")
    assert not one.done
    assert results(read) == []
    with pytest.raises(Conflict, match="width was 8, is 4"):
        work(read, one, out, test=True, device="cpu")
    assert one.record() == first
    assert work(read, one, out, again=True, device="cpu") is State.TRAINED
    record = one.record()
    assert first is not None
    assert record is not None
    assert record["config"]["width"] == 4
    assert record["test"] is None
    assert record["earlier"] == [
        {"config_hash": first["config_hash"], "split_hash": first["split_hash"], "tested": True}
    ]
    assert Run(out / "runs" / one.name).config.width == 4


def test_an_option_that_came_later_outdates_nothing(study: Callable[..., Study], tmp_path: Path) -> None:
    read = study()
    one = cell(read, "shop--sasrec--id--0")
    work(read, one, tmp_path / "out", device="cpu")
    record = one.record()
    assert record is not None
    del record["config"]["clip"]  # as if it had not been there; its default is none
    one.file.write_text(json.dumps(record))
    assert judge(one, Sources(read)) == (State.TRAINED, None)
    record["config"]["gone"] = 3
    one.file.write_text(json.dumps(record))
    assert judge(one, Sources(read)) == (State.OUTDATED, "gone is no option any more")


def test_a_newer_release_outdates_only_what_read_what_changed(
    study: Callable[..., Study], tmp_path: Path
) -> None:
    read = study()
    for one in read.cells():
        work(read, one, tmp_path / "out", device="cpu")
    names = ["shop--sasrec--id--0", "shop--sasrec--text--0"]
    assert [one.name for one in read.cells()] == names
    second = study(ONE, "store@2")
    assert [state(second, name) for name in names] == [State.TRAINED, State.OUTDATED]
    assert "feature text has other vectors" in str(judge(cell(second, names[1]), Sources(second))[1])
    latest = study(ONE, "store")
    assert [judge(cell(latest, names[0]), Sources(latest))] == [
        (State.OUTDATED, "the release has other events")
    ]
    # records travel without stores
    (tmp_path / "store").unlink()
    assert [state(latest, name) for name in names] == [State.TRAINED, State.TRAINED]


def test_a_record_that_is_none_of_ours_is_refused(study: Callable[..., Study]) -> None:
    one = cell(study(), "shop--sasrec--id--0")
    one.folder.mkdir()
    for text, said in (("{", "is no record"), ("[1]", "is no record"), ('{"format": 99}', "newer version")):
        one.file.write_text(text)
        with pytest.raises(BadInput, match=said):
            one.record()


def test_two_studies_do_not_share_a_folder(study: Callable[..., Study], tmp_path: Path) -> None:
    name = "shop--sasrec--id--0"
    read = study()
    work(read, cell(read, name), tmp_path / "out", device="cpu")
    other = study(ONE.replace('"small"', '"other"'))
    with pytest.raises(Conflict, match="is a cell of study 'small', not of 'other'"):
        results(other)
    with pytest.raises(Conflict, match="is a cell of study 'small'"):
        work(other, cell(other, name), tmp_path / "out", again=True, device="cpu")
    apart = Study.read(other.path, cells=tmp_path / "apart")
    with pytest.raises(Conflict, match="is of study 'small'"):
        work(apart, cell(apart, name), tmp_path / "out", device="cpu")
    assert [record["cell"] for record in results(study())] == [name]


# ---- many cells


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As a cell's own process has; sums in another order have other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_killed_cell_goes_on_from_its_checkpoint(study: Callable[..., Study], tmp_path: Path) -> None:
    read = study()
    one = cell(read, "shop--sasrec--text--0")
    args = [sys.executable, "-m", "recommender.study.cell", str(read.path), one.name]
    env = without_a_stores_packages(tmp_path) | {"DUALVIEW_FAILPOINT": "before rename to metrics.json"}
    died = subprocess.run([*args, "--out", str(tmp_path / "out")], env=env, capture_output=True, check=False)
    assert died.returncode == 137
    assert one.record() is None
    lines: list[str] = []
    assert work(read, one, tmp_path / "out", device="cpu", told=lines.append) is State.TRAINED
    assert [line.split(":")[0] for line in lines] == ["epoch 2", "epoch 3"]
    parts = one.record()
    whole = Study.read(read.path, cells=tmp_path / "whole")
    other = cell(whole, one.name)
    work(whole, other, tmp_path / "whole", device="cpu")
    assert parts is not None
    assert (other.record() or {})["checkpoint_sha256"] == parts["checkpoint_sha256"]
    assert ranks(other.ranks_file) == ranks(one.ranks_file)


def test_what_was_begun_with_other_options_is_begun_anew(study: Callable[..., Study], tmp_path: Path) -> None:
    read, out = study(), tmp_path / "out"
    one = cell(read, "shop--sasrec--id--0")

    def dying(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(read, one, out, device="cpu", told=dying)
    read = study(ONE.replace("width = 8", "width = 4"))
    one = cell(read, "shop--sasrec--id--0")
    lines: list[str] = []
    assert work(read, one, out, device="cpu", told=lines.append) is State.TRAINED
    assert [line.split(":")[0] for line in lines[1:]] == ["epoch 1", "epoch 2", "epoch 3"]
    assert Run(out / "runs" / one.name).config.width == 4


def test_two_runners_side_by_side_do_each_cell_once_without_a_stores_packages(
    study: Callable[..., Study], tmp_path: Path
) -> None:
    text = ONE.replace("[]", '["popularity", "chance"]')
    read = study(text + '[[skip]]\nbackbone = "sasrec"\n')
    env, out = without_a_stores_packages(tmp_path), tmp_path / "out"
    args = command(read, "--out", str(out), "--test", "--json")
    pair = [subprocess.Popen(args, env=env, stdout=subprocess.PIPE, cwd=tmp_path) for _ in range(2)]
    told = [json.loads(process.communicate()[0]) for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    finished = [one["cell"] for found in told for one in found["cells"] if one["what"] == runner.FINISHED]
    assert sorted(finished) == ["shop--chance", "shop--popularity"]
    logs = [(out / "runs" / name / "log.txt").read_text() for name in finished]
    assert all(log.count(": begun by") == log.count(": tested") == 1 for log in logs)
    assert [state(read, name) for name in finished] == [State.TESTED] * 2


def test_a_cell_that_fails_is_reported_and_the_others_are_done(
    study: Callable[..., Study], tmp_path: Path
) -> None:
    read = study(ONE.replace("[]", '["popularity"]').replace('"id+text"', '"id+txt"'))
    chosen = [cell(read, "shop--sasrec--text--0"), cell(read, "shop--popularity")]
    outcomes = {found.cell: found for found in runner.run(read, chosen, tmp_path / "out", jobs=2)}
    failed = outcomes["shop--sasrec--text--0"]
    assert (failed.what, "no feature 'txt'" in str(failed.says)) == (runner.FAILED, True)
    assert "did you mean 'text'" in Path(str(failed.log)).read_text()
    assert outcomes["shop--popularity"].what == runner.FINISHED


def test_time_that_is_up_stops_what_is_under_way_and_begins_nothing(
    study: Callable[..., Study], tmp_path: Path
) -> None:
    read = study(ONE.replace("epochs = 3", "epochs = 1000000\npatience = 1000000"))
    outcomes = runner.run(read, read.cells(), tmp_path / "out", until=1.0)
    assert [found.what for found in outcomes] == [runner.STOPPED, runner.LEFT]
    assert not taken(tmp_path / "out", "shop--sasrec--id--0")


def test_a_cell_ends_with_a_runner_that_is_killed(study: Callable[..., Study], tmp_path: Path) -> None:
    read = study(ONE.replace("epochs = 3", "epochs = 1000000\npatience = 1000000"))
    out, name = tmp_path / "out", "shop--sasrec--id--0"
    process = subprocess.Popen(command(read, "--out", str(out)), stderr=subprocess.DEVNULL, cwd=ROOT)

    def waited(for_it: Callable[[], bool]) -> bool:
        until = time.monotonic() + 60
        while not for_it() and time.monotonic() < until:
            time.sleep(0.02)
        return for_it()

    history = out / "runs" / name / "history.jsonl"
    assert waited(lambda: history.exists() or process.poll() is not None)
    assert taken(out, name)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert waited(lambda: not taken(out, name))


def test_a_cell_that_another_process_holds_is_left_to_it(study: Callable[..., Study], tmp_path: Path) -> None:
    read = study()
    names = [one.name for one in read.cells()]
    with claim(tmp_path, names[0]) as mine, claim(tmp_path, names[1]):
        assert mine
        with claim(tmp_path, names[0]) as other:
            assert not other
        assert work(read, cell(read, names[0]), tmp_path) is None
        outcomes = runner.run(read, read.cells(), tmp_path)
    assert [found.what for found in outcomes] == [runner.ELSEWHERE] * 2
    assert results(read) == []


def test_data_sets_with_fewer_events_come_first(study: Callable[..., Study], tmp_path: Path) -> None:
    more = '[data.small]\nrelease = "store@0001"\n'
    read = study(ONE.replace("[options]", f"{more}[options]"), "store@0003")
    left, _ = runner.todo(read.cells(), Sources(read), test=False, again=False)
    assert [one.data for one in left] == ["small", "small", "shop", "shop"]


def test_a_plan_estimates_from_cells_that_are_done(study: Callable[..., Study], tmp_path: Path) -> None:
    read = study(GRID)
    one = cell(read, "shop--sasrec--id--0")
    assert all(found.expected is None for found in plan(read.cells(), Sources(read)))
    work(read, one, tmp_path / "out", device="cpu")
    found = {planned.cell.name: planned for planned in plan(read.cells(), Sources(read))}
    record: dict[str, Any] = one.record() or {}
    took = record["cost"]["seconds"] + record["cost"]["evaluation_seconds"]
    assert found[one.name].seconds == pytest.approx(took)
    for name in ("shop--sasrec--id--1", "shop--sasrec--text--0", "shop--gru4rec--id--0"):
        assert found[name].expected == pytest.approx(took, abs=0.06)
    assert found["shop--popularity"].expected is None  # nothing like it was done
    assert found["shop--sasrec--text--0"].options == {
        "items": "id+text",
        "width": 8,
        "length": 6,
        "epochs": 3,
        "layers": 1,
        "scaling": "none",
    }


def test_a_plan_says_what_cannot_be_done(study: Callable[..., Study], tmp_path: Path) -> None:
    here = study(ONE.replace('"id+text"', '"id+txt"'))
    fine, broken = plan(here.cells(), Sources(here))
    assert fine.problem is None
    assert not fine.fails
    assert broken.fails
    assert "no feature 'txt'; did you mean 'text'?" in str(broken.problem)
    told = subprocess.run(command(here, verb="plan"), capture_output=True, text=True)
    assert told.returncode == 1
    assert "1 cell would fail: shop: " in told.stderr
    away = study(ONE, "elsewhere")
    assert all(
        "data shop: nothing was published" in str(o.problem) for o in plan(away.cells(), Sources(away))
    )
    with pytest.raises(NotFound, match="data shop"):
        runner.run(away, away.cells(), tmp_path / "out")


def test_a_commit_is_dirty_by_code_and_not_by_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*asked: str) -> str:
        named = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(
            ("git", *named, *asked), cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    (tmp_path / "code").mkdir()
    code, record = tmp_path / "code" / "some.py", tmp_path / "cells.json"
    monkeypatch.setattr(records, "__file__", str(code))
    assert records.commit() is None
    git("init", "-q")
    for path in (code, record):
        path.write_text("1")
    assert records.commit() is None
    git("add", ".")
    git("commit", "-qm", "all")
    whole = git("rev-parse", "HEAD")
    record.write_text("2")
    (tmp_path / "untracked.py").write_text("3")
    assert records.commit() == whole
    code.write_text("2")
    assert records.commit() == f"{whole}-dirty"
