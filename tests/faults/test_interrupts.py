"""Ctrl-C and SIGTERM end every long verb with the shell's exit code and a true sentence, and never a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore.lock import WriterLock
from featurestore.store import Store
from tests.conftest import TWO_FEATURES
from tests.faults import processes, shop
from tests.faults.scenario import facts

TRAIN = ["--set", "width=8", "--set", "layers=1", "--set", "k_core=[1, 1]", "--epochs", "3", "--length", "8"]


def dualview(*said: object) -> tuple[int, str, str]:
    """The command line in this process: exit code, stdout, stderr."""
    from dualview import console
    from dualview.cli import main

    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["dualview", *map(str, said)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        console.out.file, console.err.file = out, err
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0), out.getvalue(), err.getvalue()
    raise AssertionError("the command line ends by exiting")


def interrupted(moment: str, *said: object) -> tuple[int, str]:
    """The exit code and what was said last by a verb that got a signal at a moment."""
    code, out, err = processes.Child(dualview, *said, failpoint=moment).result()
    assert "Traceback" not in err + out
    if "--json" in said:
        return code, json.loads(out)["error"]["remedy"]
    assert not out
    return code, err.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def goods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shop.open_shop(tmp_path_factory.mktemp("goods") / "shop")


@pytest.fixture(scope="module")
def published(goods: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a release and a run."""
    root = tmp_path_factory.mktemp("published") / "store"
    Store.create(root, TWO_FEATURES)
    for said in (
        ("ingest", root, goods / "items.csv", "--interactions", goods / "events.csv"),
        ("materialize", root),
        ("publish", root),
        ("train", root, *TRAIN),
    ):
        code, _, err = processes.run(dualview, *said)
        assert code == 0, err
    return root


@pytest.fixture
def store(published: Path, tmp_path: Path) -> Path:
    shutil.copytree(published, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return Store.create(tmp_path / "store", TWO_FEATURES).root


def test_an_ingest_that_wrote_nothing_says_so(empty: Path, goods: Path) -> None:
    code, said = interrupted("before table images:SIGINT", "ingest", empty, goods / "items.csv")
    assert (code, said) == (130, "interrupted: nothing was written; run the same command again to ingest")


def test_an_ingest_says_what_it_wrote_and_the_journal_that_it_was_stopped(empty: Path, goods: Path) -> None:
    code, said = interrupted("before table interactions:SIGTERM", "ingest", empty, goods / "items.csv",
                             "--interactions", goods / "events.csv")  # fmt: skip
    assert code == 143
    assert said == (
        "interrupted: written so far, and kept: pictures, items; run the same command again to complete it"
    )
    last = Store.open(empty).history()[-1]
    assert (last["verb"], last["was"]) == ("interrupted", "ingest")
    assert WriterLock(empty).holder() is None


def test_a_materialize_says_how_many_cells_are_kept(store: Path, goods: Path) -> None:
    shutil.rmtree(store / "tables")
    shutil.rmtree(store / "releases")
    (store / "features.lock.json").unlink()
    assert processes.run(dualview, "ingest", store, goods / "items.csv")[0] == 0
    code, said = interrupted("before table image__*:SIGINT", "materialize", store)
    assert code == 130
    assert said == (
        "interrupted: cells committed, and kept: 30 of text; run the same command again to compute the rest"
    )


def test_a_publish_says_what_is_the_latest(store: Path, goods: Path) -> None:
    lines = (goods / "events.csv").read_text().splitlines()[:150]
    (store.parent / "fewer.csv").write_text("\n".join(lines))
    assert processes.run(
        dualview, "ingest", store, "--interactions", store.parent / "fewer.csv", "--replace-interactions"
    )[0] == 0  # fmt: skip
    code, said = interrupted("before rename to manifest.json:SIGTERM", "publish", store, "--json")
    assert code == 143
    assert (
        said == "no release was made, release 0001 is still the latest; run the same command again to publish"
    )


def test_a_training_says_which_run_to_go_on_with_and_ends_as_if_never_stopped(
    store: Path, published: Path
) -> None:
    code, said = interrupted("after rename to metrics.json:SIGINT", "train", store, *TRAIN)
    assert code == 130
    assert said.startswith("interrupted: sasrec-id-002: 1 epoch is saved; go on with: dualview train")
    again = said.partition("dualview ")[2].split()
    assert processes.run(dualview, *again)[0] == 0
    first = published / "runs" / "sasrec-id-001" / "checkpoint"
    for name in ("best.safetensors", "last.safetensors"):
        resumed = store / "runs" / "sasrec-id-002" / "checkpoint" / name
        assert _tensors(resumed) == _tensors(first / name)


def _tensors(path: Path) -> dict[str, bytes]:
    from recommender.checkpoint import load

    return {name: tensor.numpy().tobytes() for name, tensor in load(path)[0].items()}


def test_an_evaluation_says_that_nothing_was_kept(store: Path) -> None:
    code, said = interrupted("before rename to test_users.parquet:SIGINT", "evaluate", store, "latest")
    assert (code, said) == (130, "interrupted: no figures were kept; run the same command again to evaluate")
    assert not list((store / "runs").rglob("*.part"))


def test_a_writer_that_waits_for_another_can_be_interrupted(store: Path) -> None:
    before = facts(Store.open(store))
    with WriterLock(store).hold("ingest"):
        code, said = interrupted("wait for the lock:SIGINT", "materialize", store, "--wait", "600")
    assert (code, said) == (
        130,
        "interrupted: materialize was waiting for another writer: nothing was begun",
    )
    assert facts(Store.open(store)) == before


def test_a_process_of_its_own_ends_as_the_shell_expects(empty: Path, goods: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dualview", "ingest", str(empty), str(goods / "items.csv")],
        capture_output=True,
        text=True,
        env=os.environ | {"DUALVIEW_FAILPOINT": "after table images:SIGTERM"},
        check=False,
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert "interrupted: nothing was written" in done.stderr
    assert "Traceback" not in done.stderr
