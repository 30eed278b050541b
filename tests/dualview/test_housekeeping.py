"""Releases and housekeeping where there are runs: what gc leaves them, what forget takes from them, and the verbs."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dualview import cli
from dualview.demo.catalogue import CatalogueSettings
from dualview.demo.taste import TasteSettings
from dualview.demo.truth import make_shop
from dualview.evaluation import evaluate
from dualview.housekeeping import gc, release_rows
from dualview.store import Store
from dualview.training import fit
from featurestore.errors import Conflict, NotFound
from featurestore.gc import FRESH_SECONDS
from recommender.retrieve import Retriever
from recommender.runs import open_run
from tests.untouched import untouched


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0001, from which a run learnt, evaluated and served; 0002 and 0003 with a title edited each."""
    folder = tmp_path_factory.mktemp("housekeeping")
    make_shop(folder / "shop", CatalogueSettings(items=40, seed=3, px=64), TasteSettings(users=40))
    store = Store.create(folder / "store")
    store.ingest(folder / "shop" / "items.csv", folder / "shop" / "events.csv")
    store.materialize()
    store.publish()
    fit(store, items="id+text", epochs=1, length=10, width=8)
    evaluate(store, baseline=False)
    for number in range(2):
        store.ingest(pa.table({"item_id": ["P01"], "title": [f"A cup for round {number}"]}))
        store.materialize()
        store.publish()
    return store.root


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Store:
    return Store.open(shutil.copytree(made, tmp_path / "store"))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run `dualview ARGS --json` in this process: exit code and document."""

    def run(*args: object) -> tuple[int, Any]:
        monkeypatch.setattr(sys, "argv", ["dualview", *map(str, args), "--json"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), json.loads(capsys.readouterr().out)

    return run


def recommended(store: Store, **asked: Any) -> list[str]:
    ids: list[str] = Retriever.open(store).recommend(**asked)["item_id"].to_pylist()
    return ids


def someone(store: Store) -> tuple[str, str]:
    """A user of the log and an item that the user had."""
    row = store.sql(
        "SELECT user_id, item_id FROM interactions ORDER BY user_id, item_id LIMIT 1"
    ).to_pylist()[0]
    return row["user_id"], row["item_id"]


# ---- gc


def test_a_release_that_a_run_learnt_from_stays(store: Store) -> None:
    report = gc(store, keep=1, grace=0)
    assert [r.name for r in store.releases()] == ["0003", "0001"]
    assert report.kept == {"0001": "run sasrec-id-text-001"}
    assert recommended(store, history=["P02"], k=3)
    assert evaluate(store, baseline=False).result.metrics


def test_every_release_stays_while_a_training_is_being_started(store: Store) -> None:
    folder = store.root / "runs" / "sasrec-id-001"
    folder.mkdir()
    assert gc(store, keep=1, grace=0).releases == []
    assert folder.exists()
    yesterday = time.time() - FRESH_SECONDS - 60
    os.utime(folder, (yesterday, yesterday))
    report = gc(store, keep=1, grace=0)
    assert report.releases == ["0002"]
    assert "half-made runs" in {each.kind for each in report.freed}
    assert not folder.exists()


def test_vectors_served_on_releases_that_are_there_stay_and_others_go(store: Store) -> None:
    recommended(store, history=["P02"])
    served = store.root / "runs" / "sasrec-id-text-001" / "served"
    kept = [path.name for path in served.iterdir()]
    assert len(kept) == 1
    shutil.copytree(served / kept[0], served / "of-other-weights")
    gc(store, grace=0)
    assert [path.name for path in served.iterdir()] == kept


def test_a_dry_run_says_what_a_real_one_frees_of_runs_too(store: Store) -> None:
    recommended(store, history=["P02"])
    old = store.root / "runs" / "sasrec-id-text-001" / "served" / "old"
    old.mkdir()
    (old / "ids.json").write_text("[]")
    with untouched(store.root):
        said = gc(store, keep=1, dry_run=True, grace=0)
    assert gc(store, keep=1, grace=0).freed == said.freed


# ---- forget


def test_a_run_forgets_ids_and_keeps_its_rows(store: Store) -> None:
    user, item = someone(store)
    before = open_run(store.root, "latest")
    ids, weights = before.item_ids, before.load_model().item_vectors()
    rows = pq.read_table(before.folder / "test_users.parquet")
    report = store.forget(users=[user], items=[item])
    run = open_run(store.root, "latest")
    place = int(np.flatnonzero(ids == item)[0])
    expected = ids.tolist()
    expected[place] = f"forgotten:{place}"
    assert run.item_ids.tolist() == expected
    assert report.learnt == [run.name]
    assert report.fitted == ["text"]
    left = pq.read_table(run.folder / "test_users.parquet")
    assert left.to_pylist() == [r for r in rows.to_pylist() if r["user_id"] != user and r["item_id"] != item]
    others = np.arange(len(ids)) != place
    assert np.array_equal(run.load_model().item_vectors()[others], weights[others])


def test_what_is_forgotten_is_never_recommended_and_others_get_answers(store: Store) -> None:
    user, item = someone(store)
    assert item in recommended(store, history=["P02"], k=50, exclude_seen=False)
    store.forget(users=[user], items=[item])
    found = recommended(store, history=["P02"], k=50, exclude_seen=False)
    assert item not in found
    assert len(found) == 39
    with pytest.raises(NotFound):
        recommended(store, user=user)
    other = store.sql("SELECT min(user_id) AS u FROM interactions")["u"].to_pylist()[0]
    assert recommended(store, user=other)
    with pytest.raises(Conflict, match="other events"):
        evaluate(store, baseline=False)


def test_no_file_of_the_store_names_the_forgotten(store: Store) -> None:
    user, item = someone(store)
    recommended(store, history=["P02"])
    store.forget(users=[user], items=[item])
    texts = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    weights = [path for path in texts if path.suffix == ".safetensors"]
    assert [
        str(p)
        for p, text in texts.items()
        if p not in weights and (user.encode() in text or item.encode() in text)
    ] == []


# ---- the verbs


def test_releases_say_what_disk_they_take_and_who_learnt_from_them(
    store: Store, call: Callable[..., Any]
) -> None:
    code, rows = call("releases", store.root)
    assert (code, [row["release"] for row in rows]) == (0, ["0003", "0002", "0001"])
    assert [row["latest"] for row in rows] == [True, False, False]
    assert rows[2]["runs"] == ["sasrec-id-text-001"]
    kept = sum(
        path.stat().st_size
        for path in (store.root / "derived").rglob("*")
        if path.name != "facts.json" and path.is_file()
    )
    owned = sum(row["owned"] for row in rows)
    assert owned + max(row["shared"] for row in rows) <= kept
    assert all(row["shared"] > 0 for row in rows)
    gc(store, keep=1)
    assert len(release_rows(store)) == 2


def test_verbs_announce_exactly_what_they_do(store: Store, call: Callable[..., Any]) -> None:
    user, _ = someone(store)
    for args in (
        ("gc", store.root, "--keep", 1),
        ("rollback", store.root, "0001"),
        ("forget", store.root, "--user", user),
    ):
        with untouched(store.root):
            code, said = call(*args, "--dry-run")
        assert code == 0
        done = call(*args, *(["--yes"] if args[0] == "forget" else []))
        assert done[0] == 0
        answer = done[1] | {"dry_run": True} | ({"published": None} if args[0] == "rollback" else {})
        assert answer == said or args[0] == "gc"


def test_forget_asks_to_be_meant_and_says_what_it_did_not_find(
    store: Store, call: Callable[..., Any]
) -> None:
    user, _ = someone(store)
    code, said = call("forget", store.root, "--user", user)
    assert code == 1
    assert "cannot be undone" in str(said)
    assert user in store.sql("SELECT user_id FROM interactions")["user_id"].to_pylist()
    code, said = call("forget", store.root, "--user", user, "--user", "nobody", "--yes")
    assert (code, said["unknown"]) == (2, ["nobody"])


def test_diff_and_rollback_answer_as_their_python_calls(store: Store, call: Callable[..., Any]) -> None:
    code, said = call("diff", store.root, "0001", "0003")
    assert (code, said["items"]["columns"]) == (0, {"title": 1})
    assert said == json.loads(json.dumps(store.diff("0001", "0003").to_dict()))
    assert call("rollback", store.root, "0001")[1]["published"] == "0004"
    assert call("diff", store.root, "0001")[1]["same"]
    assert call("rollback", store.root, "0009")[0] == 1
