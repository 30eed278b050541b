"""A release that was exported as it is: trained on where neither LanceDB nor DuckDB is, to the same bits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dualview.evaluation import evaluate
from dualview.training import fit as train
from featurestore import release as releases
from featurestore.carried import Carried
from featurestore.errors import BadInput, Conflict, NotFound
from featurestore.export import export
from featurestore.files import sha256_file
from featurestore.store import Store
from recommender import checkpoint, runs
from recommender.audit import UNKNOWN, audit
from recommender.config import Config
from recommender.fit import fit
from recommender.runs import Run
from tests.recommender import shelves

OPTIONS = {"items": "id+text", "width": 8, "length": 6, "epochs": 2, "layers": 1, "seed": 3}
ABSENT = """
import sys

absent = set({absent})

class Without:
    # a finder that does not find these packages: to whoever imports or probes for them, they are not installed
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
# all that dualview depends on but numpy, pyarrow, torch, safetensors, pydantic and scipy
HEAVY = {
    *("lancedb", "lance", "duckdb", "faiss", "typer", "rich", "pandas", "polars", "sklearn", "sqlglot"),
    *("bm25s", "PIL", "transformers", "sentence_transformers", "open_clip", "timm", "torchvision"),
    *("jinja2", "regex", "matplotlib", "jsonschema"),
}  # fmt: skip
TRAINING = """
import json
import torch
from dualview.training import fit
from dualview.evaluation import evaluate
from featurestore import release
from featurestore.carried import Carried
from recommender import runs
from recommender.audit import audit
from recommender.config import Config
from recommender.fit import fit as direct

torch.set_num_threads({threads})  # sums are made in another order by another number
folder, options = {folder!r}, json.loads({options!r})
opened = Carried.open(folder)
run = fit(opened, device="cpu", **options)
report = evaluate(opened, run.name, device="cpu")
plain = direct(release.open(folder), Config.of(**options), runs.allot(folder, "plain"), device="cpu")
verdicts = audit(folder, run.name).to_dict()["verdicts"]
loaded = sorted({heavy} & {{name.partition(".")[0] for name in sys.modules}})
absent -= {{"typer", "rich"}}  # the command line needs these two
from dualview.cli import main

sys.argv = ["dualview", "train", folder, "--epochs", "1", "--items", "id+text", "--set", "width=8", "--json"]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print(json.dumps([run.name, plain.name, report.to_dict()["overall"], verdicts, loaded]))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = shelves.build(tmp_path_factory.mktemp("exported") / "store")
    store.publish(allow_stale=True)
    store.publish(tag="second", allow_stale=True)
    return store


def elsewhere(code: str) -> str:
    """What a process prints in which the heavy packages cannot be imported."""
    whole = ABSENT.format(absent=sorted(HEAVY)) + code
    done = subprocess.run(
        [sys.executable, "-c", whole],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def weights(run: Run) -> dict[str, Any]:
    return checkpoint.load(run.folder / "checkpoint" / checkpoint.BEST)[0]


def test_it_is_the_manifest_and_what_that_names_and_nothing_else(store: Store, tmp_path: Path) -> None:
    release = store.release("0001")
    planned = export(release, tmp_path / "out", to="release", dry_run=True)
    assert not (tmp_path / "out").exists()
    report = export(release, tmp_path / "out", to="release")
    assert [file.name for file in planned.files] == [file.name for file in report.files]
    named = {f"derived/{entry['derived']}/{entry['file']}" for _, entry in release.files()}
    there = {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert there == named | {"releases/0001/manifest.json", "provenance.json"}
    for path, entry in release.files():
        copy = tmp_path / "out" / "derived" / entry["derived"] / entry["file"]
        assert sha256_file(copy) == entry["sha256"]
        assert copy.stat().st_ino != path.stat().st_ino
    opened = releases.open(tmp_path / "out")
    assert opened.manifest == release.manifest
    assert not opened.verify()


def test_a_training_elsewhere_ends_with_the_same_bits(store: Store, tmp_path: Path) -> None:
    export(store.release(), tmp_path / "out", to="release")
    code = TRAINING.format(
        folder=str(tmp_path / "out"),
        options=json.dumps(OPTIONS),
        heavy=HEAVY,
        threads=torch.get_num_threads(),
    )
    name, plain, metrics, verdicts, loaded = json.loads(elsewhere(code).splitlines()[-1])
    assert loaded == []
    assert verdicts["violated"] == 0
    there, direct = (Run(tmp_path / "out" / "runs" / each) for each in (name, plain))
    assert (tmp_path / "out" / "runs" / "sasrec-id-text-002" / "metrics.json").exists()  # the command line's
    here = train(store, device="cpu", **OPTIONS)
    kept = weights(here)
    assert kept.keys() == weights(there).keys() == weights(direct).keys()
    assert all(tensor.equal(weights(there)[key]) for key, tensor in kept.items())
    assert all(tensor.equal(weights(direct)[key]) for key, tensor in kept.items())
    assert there.metrics()["valid"] == here.metrics()["valid"]
    assert evaluate(store, here.name, device="cpu").to_dict()["overall"] == metrics


def test_a_run_that_comes_home_is_as_one_that_was_trained_here(store: Store, tmp_path: Path) -> None:
    export(store.release(), tmp_path / "out", to="release")
    run = fit(
        Carried.open(tmp_path / "out").release(),
        Config.of(**OPTIONS),
        runs.allot(tmp_path / "out", "away"),
        device="cpu",
    )
    shutil.copytree(run.folder, store.root / "runs" / run.name)
    found = audit(store.root, run.name)
    assert not found.violated
    assert not [check for check in found.checks if check.verdict == UNKNOWN]


def test_runs_that_were_trained_there_are_not_overwritten(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(store.release(), out, to="release")
    with pytest.raises(Conflict, match="holds an export already"):
        export(store.release(), out, to="release")
    export(store.release(), out, to="release", overwrite=True)
    fit(releases.open(out), Config.of(**OPTIONS | {"epochs": 1}), runs.allot(out, "run"), device="cpu")
    with pytest.raises(Conflict, match="holds runs that were trained there"):
        export(store.release(), out, to="release", overwrite=True)


def test_a_damaged_file_is_not_carried_on(store: Store, tmp_path: Path) -> None:
    export(store.release(), tmp_path / "out", to="release")
    carried = Carried.open(tmp_path / "out").release()
    path = carried.paths("text")["values"]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(Conflict, match="hash is another one"):
        export(carried, tmp_path / "again", to="release")
    path.unlink()
    with pytest.raises(NotFound, match="is gone"):
        export(carried, tmp_path / "again", to="release")
    assert not (tmp_path / "again").exists()


def test_what_cannot_be_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="carried whole"):
        export(store.release(), tmp_path / "out", to="release", features=["text"])
    with pytest.raises(NotFound, match="--to release"):
        Carried.open(tmp_path)
