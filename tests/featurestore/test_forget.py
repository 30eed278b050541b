"""After a forget no file and no answer names the forgotten; everything else is as it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from featurestore import failpoints, images, interactions, journal, pending, quarantine, schema, search
from featurestore.errors import BadInput, NotFound
from featurestore.forget import PART, ForgetReport, forget
from featurestore.store import Store
from tests.featurestore import shop

USER, ITEM = "userZQXJKV", "itemVWKYQX"  # letters that no other byte sequence of a test store spells
SHA, SHARED = "f00d" * 16, f"{1:064d}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0001 holds user and item, 0002 an edited title too, 0003 the item's cells only; today's tables both again."""
    made = shop.build(tmp_path_factory.mktemp("forget") / "store", computed=())
    row = {
        "item_id": [ITEM],
        "title": [f"Thing called {ITEM}"],
        "image": [f"{ITEM}.jpg"],
        "_image_sha256": [SHA],
    }
    shop.upsert(made, pa.table(row))
    pictures = [(SHA, f"{ITEM}.jpg"), (SHARED, "1.jpg")]
    with made.lock("test"):
        images.upsert_images(made.tables, [_picture(sha, path) for sha, path in pictures])
        interactions.upsert_interactions(made.tables, _events())
        reason = f"'{ITEM}' is no number"
        rejects = [
            {"line": 3, "field": "price", "code": "bad", "reason": reason, "row": f'{{"id": "{ITEM}"}}'}
        ]
        rejects += [
            {"line": 4, "field": "x", "code": "bad", "reason": "", "row": f'{{"u": "{USER}", "n": 1}}'}
        ]
        rejects += [{"line": 5, "field": "x", "code": "bad", "reason": "other", "row": '{"u": "else"}'}]
        quarantine.put(made.tables, pa.Table.from_pylist(rejects), "items.csv")
        journal.record(made.root, "test", sources=[f"/data/{ITEM}.csv", "other.csv"], why=f"for {USER}")
    _compute(made)
    made.publish(allow_stale=True)
    shop.upsert(made, pa.table({"item_id": [ITEM], "title": ["Edited"]}))
    _compute(made)
    made.publish(allow_stale=True)
    with made.lock("test"):
        interactions.upsert_interactions(made.tables, shop.log(), replace=True)
        made.tables.delete("items", f"item_id = '{ITEM}'")
    made.publish(allow_stale=True)
    shop.upsert(made, pa.table(row))
    with made.lock("test"):
        interactions.upsert_interactions(made.tables, _events())
    _compute(made)
    return made.root


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Store:
    return Store.open(shutil.copytree(made, tmp_path / "store"))


def _compute(store: Store) -> None:
    for feature in ("vector", "told.short", "tokens"):
        shop.materialize(store, feature)


def _picture(sha256: str, path: str) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(
        field.name for field in schema.IMAGES_SCHEMA if field.name != "_updated_at"
    )
    return row | {
        "sha256": sha256,
        "root": "/pictures",
        "path": path,
        "thumbnail": f"thumb of {path}".encode(),
    }


def _events() -> pa.Table:
    """Of the user on others, of others on the item, of the user on the item."""
    users, on = [USER, USER, "u1", "u2", USER], ["i001", "i002", ITEM, ITEM, ITEM]
    rows = shop.log().slice(0, 5)
    rows = rows.set_column(0, "user_id", pa.array(users)).set_column(1, "item_id", pa.array(on))
    return rows.set_column(3, "timestamp", pa.array(range(500, 505), pa.int64()))


def named_in(store: Store, word: str) -> list[str]:
    """Files of the store whose bytes, or whose path, hold a word; and tables that hold it in any version."""
    found = [
        str(p)
        for p in store.root.rglob("*")
        if word in p.name or (p.is_file() and word.encode() in p.read_bytes())
    ]
    for name in store.tables.names():
        for version in store.tables.dataset(name).versions():
            rows = store.tables.read(name, version=int(version["version"]))
            found += [f"{name} {version['version']}"] if word in str(rows.to_pydict()) else []
    return found


def others(store: Store, release: str | None) -> dict[str, list[dict[str, object]]]:
    """What is stored of everybody else."""
    cell = "item_id, value, input_hash, value_hash, status"
    return {
        "items": store.sql(
            f"SELECT * FROM items WHERE item_id <> '{ITEM}' ORDER BY item_id", release
        ).to_pylist(),
        "events": store.sql(
            f"SELECT * FROM interactions WHERE item_id <> '{ITEM}' AND user_id <> '{USER}' ORDER BY event_id",
            release,
        ).to_pylist(),
        **{
            view: store.sql(
                f"SELECT {cell} FROM {view} WHERE item_id <> '{ITEM}' ORDER BY item_id", release
            ).to_pylist()
            for view in ("feature_vector", "feature_tokens", "feature_told_short")
        },
    }


STATES = ("0001", "0002", "0003", None)


def test_a_forgotten_user_and_item_are_in_no_file_and_in_no_table(store: Store) -> None:
    before = {name: others(store, name) for name in STATES}
    counts = {r.name: (r.n_items, r.n_events) for r in store.releases()}
    assert len(named_in(store, ITEM)) > 10
    assert len(named_in(store, USER)) > 4
    report = forget(store, users=[USER], items=[ITEM])
    assert named_in(store, ITEM) == []
    assert named_in(store, USER) == []
    assert named_in(store, SHA) == []
    assert {name: others(store, name) for name in STATES} == before
    assert (report.users, report.items, report.releases, report.unknown) == (
        1,
        1,
        ["0001", "0002", "0003"],
        [],
    )
    assert report.rows["interactions"] == 5
    assert {r.name: (r.n_items, r.n_events) for r in store.releases()} == {
        "0001": (counts["0001"][0] - 1, counts["0001"][1] - 5),
        "0002": (counts["0002"][0] - 1, counts["0002"][1] - 5),
        "0003": counts["0003"],
    }
    assert all(release.verify() == [] for release in store.releases())
    assert not (store.root / PART).exists()
    assert pending.read(store.root) is None


def test_no_answer_names_them(store: Store) -> None:
    forget(store, users=[USER], items=[ITEM])
    for release in store.releases():
        assert ITEM not in release.ids.tolist()
        assert ITEM not in release.catalogue["item_id"].to_pylist()
        assert USER not in release.events()["user_id"].to_pylist()
        with pytest.raises(NotFound):
            search.similar(release, item=ITEM)
        answer = search.similar(release, item="i001", feature="vector", k=100)
        assert len(answer) == release.n_items - 1
        expected = shop.unit(release.matrix("vector").values)
        scores = np.sort(expected @ expected[release.row_of("i001")])[::-1][1:]
        assert np.allclose(answer["score"].to_numpy(), scores, atol=1e-6)
    assert ITEM not in store.matrix("vector")[0].tolist()


def test_releases_say_how_many_were_forgotten_and_nothing_of_whom(store: Store) -> None:
    forget(store, users=[USER])
    forget(store, items=[ITEM])
    told = {release.name: release.manifest.get("forgotten") for release in store.releases()}
    assert told == {
        "0001": {"users": 1, "items": 1},
        "0002": {"users": 1, "items": 1},
        "0003": {"users": 1, "items": 1},
    }
    last = store.history()[-1]
    assert (last["verb"], last["users"], last["items"]) == ("forget", 0, 1)


def test_a_picture_that_another_item_uses_stays(store: Store) -> None:
    forget(store, items=["i001", ITEM])
    assert store.tables.read("images")["sha256"].to_pylist() == []
    assert store.tables.count("items") == shop.N_ITEMS - 1


def test_a_picture_shared_with_an_item_that_stays_is_kept(store: Store) -> None:
    shop.upsert(store, pa.table({"item_id": [ITEM], "image": ["1.jpg"], "_image_sha256": [SHARED]}))
    forget(store, items=[ITEM])
    assert store.tables.read("images")["sha256"].to_pylist() == [SHARED]


def test_rows_set_aside_and_lines_of_the_journal_of_others_stay(store: Store) -> None:
    lines = len(store.history())
    forget(store, users=[USER], items=[ITEM])
    assert [row["reason"] for row in store.tables.read("quarantine").to_pylist()] == ["other"]
    told = [entry for entry in store.history() if entry["verb"] == "test"]
    assert told[0]["sources"] == ["/data/[forgotten].csv", "other.csv"]
    assert len(store.history()) == lines + 2  # of the forget itself, and of what it freed


def test_the_store_goes_on_as_before(store: Store) -> None:
    forget(store, users=[USER], items=[ITEM])
    assert shop.materialize(store, "vector") == 0
    release = store.publish(allow_stale=True)
    assert release.name == "0004"
    assert release.verify() == []
    shop.upsert(store, pa.table({"item_id": [ITEM], "title": ["Back from the source"]}))
    assert shop.materialize(store, "vector") == 1


def test_a_dry_run_counts_the_same_and_writes_nothing(store: Store) -> None:
    before = {p: p.stat().st_mtime_ns for p in store.root.rglob("*")}
    said = forget(store, users=[USER], items=[ITEM], dry_run=True)
    assert {p: p.stat().st_mtime_ns for p in store.root.rglob("*")} == before
    did = forget(store, users=[USER], items=[ITEM])
    assert said == ForgetReport(**did.to_dict() | {"dry_run": True})


def test_ids_that_nothing_has_are_said_and_change_nothing(store: Store) -> None:
    before = {name: others(store, name) for name in STATES}
    report = forget(store, items=["nobody's"], users=["'; DROP"])
    assert report.unknown == ["'; DROP", "nobody's"]
    assert report.releases == []
    assert {name: others(store, name) for name in STATES} == before
    with pytest.raises(BadInput, match="no user and no item"):
        forget(store)


def test_a_large_table_loses_its_index_of_keys_with_them(store: Store) -> None:
    with store.lock("test"):
        store.tables.dataset("items").create_scalar_index("item_id", "BTREE")
    store.publish(allow_stale=True)
    forget(store, items=[ITEM])
    assert named_in(store, ITEM) == []


MOMENTS = (
    "before rename to journal.jsonl",
    "after rename to items.lance",
    "after clean items",
)


def _killed(store: Store, moment: str) -> None:
    script = (
        "from featurestore import forget, store; "
        f"forget.forget(store.Store.open({str(store.root)!r}), users=[{USER!r}], items=[{ITEM!r}])"
    )
    environment = os.environ | {failpoints.VARIABLE: moment, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert killed.returncode == failpoints.KILLED


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_forget_that_was_killed_is_completed_by_running_it_again(store: Store, moment: str) -> None:
    before = {name: others(store, name) for name in STATES}
    _killed(store, moment)
    begun = pending.FILE if (store.root / pending.FILE).exists() else None
    if begun:
        assert ITEM not in (store.root / begun).read_text()
    assert all(release.verify() == [] for release in store.releases())
    forget(store, users=[USER], items=[ITEM])
    assert named_in(store, ITEM) == []
    assert named_in(store, USER) == []
    assert {name: others(store, name) for name in STATES} == before
    assert pending.read(store.root) is None


def test_the_next_verb_that_writes_finishes_a_forget_without_knowing_of_whom(store: Store) -> None:
    _killed(store, "after rename to pending.json")
    assert (store.root / PART).exists()
    store.publish(allow_stale=True)
    assert named_in(store, ITEM) == []


def test_answers_that_wait_for_their_table_go_with_an_item_and_stay_with_a_user(store: Store) -> None:
    spool = store.root / "spool" / "told__0123456789ab.jsonl"
    spool.parent.mkdir()
    lines = [
        json.dumps({"input_hash": "ab", "answer": {"text": f"A thing called {ITEM}"}}),
        '{"input_hash": "cd"}',
    ]
    spool.write_text("\n".join(lines) + "\n")
    assert forget(store, users=[USER]).answers == 0
    assert spool.exists()
    assert forget(store, items=[ITEM], dry_run=True).answers == 2
    assert spool.exists()
    assert forget(store, items=[ITEM]).answers == 2
    assert named_in(store, ITEM) == []


def test_a_short_id_takes_no_more_than_itself(store: Store) -> None:
    rows = [
        {"u": "7", "title": "Other"},  # 0: the user's
        {"u": 7, "title": "Other"},  # 1: too
        {"u": "8", "title": "7 dwarfs"},
        {"u": "17", "title": "Other"},
    ]
    reasons = ["", "", "of 7 kinds", "said '7' twice"]  # 3: quotes it
    rejects = [
        {"line": n, "field": "x", "code": "bad", "reason": reason, "row": json.dumps(row)}
        for n, (row, reason) in enumerate(zip(rows, reasons, strict=True))
    ]
    rejects += [{"line": 4, "field": None, "code": "bad", "reason": "", "row": '{"text": "7::12::"}'}]
    with store.lock("test"):
        quarantine.put(store.tables, pa.Table.from_pylist(rejects), "ratings.csv")
        told = {"unknown_examples": ["7", "17"], "feature": "7", "notes": ["7 of 9", "item '7' is odd"]}
        journal.record(store.root, "test", **told)
    forget(store, users=["7"])
    left = store.tables.read("quarantine", ["line"], "source = 'ratings.csv'")
    assert left["line"].to_pylist() == [2]
    (entry,) = [each for each in store.history() if "unknown_examples" in each]
    assert entry["unknown_examples"] == ["[forgotten]", "17"]
    assert (entry["feature"], entry["notes"]) == ("7", ["7 of 9", "item '[forgotten]' is odd"])
