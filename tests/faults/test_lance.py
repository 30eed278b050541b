"""What we rely on in Lance: a table reads whole, whatever a kill in the middle of a commit left in its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore import schema
from featurestore.tables import Tables

LOG = schema.INTERACTIONS_SCHEMA


def events(*names: str) -> pa.Table:
    return pa.table({"event_id": list(names), "user_id": ["u"] * len(names)})


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    made = Tables(tmp_path)
    made.create("log", LOG)
    made.upsert("log", events("a", "b"), "event_id")
    return made


def keys(tables: Tables) -> list[str]:
    return sorted(Tables(tables.folder).read("log")["event_id"].to_pylist())


def test_a_hint_at_the_newest_version_that_is_older_than_the_table_does_not_hide_a_commit(
    tables: Tables,
) -> None:
    hint = tables.path("log") / "_versions" / "latest_version_hint.json"
    before = hint.read_bytes()
    tables.upsert("log", events("b", "c"), "event_id")
    for left in (before, b"", b"{"):
        hint.write_bytes(left)
        assert keys(tables) == ["a", "b", "c"]
    hint.unlink()
    assert keys(tables) == ["a", "b", "c"]
    assert Tables(tables.folder).upsert("log", events("d"), "event_id") == tables.version("log")
    assert keys(tables) == ["a", "b", "c", "d"]


def test_a_commit_that_was_not_linked_is_not_seen_and_stands_in_nobodys_way(tables: Tables) -> None:
    earlier = {path.name for path in (tables.path("log") / "_versions").iterdir()}
    tables.upsert("log", events("c"), "event_id")
    linked = [
        path for path in (tables.path("log") / "_versions").glob("*.manifest") if path.name not in earlier
    ]
    assert len(linked) == 1
    linked[0].rename(linked[0].with_name(linked[0].name + "#1"))  # as it is called until it is linked
    (tables.path("log") / "data" / ".tmpAbC123").write_bytes(b"half a file")
    assert keys(tables) == ["a", "b"]
    tables.upsert("log", events("c", "d"), "event_id")
    assert keys(tables) == ["a", "b", "c", "d"]


def test_a_tag_that_was_half_set_can_be_set_again(tables: Tables) -> None:
    version = tables.version("log")
    tables.tag("log", "release-0001", version)
    tag = tables.path("log") / "_refs" / "tags" / "release-0001.json"
    shutil.move(tag, tag.with_name(tag.name + ".tmp.0123456789abcdef"))
    assert "release-0001" not in tables.dataset("log").tags.list()
    tables.tag("log", "release-0001", version)
    assert tables.dataset("log").tags.list()["release-0001"]["version"] == version


def test_a_table_whose_creation_was_cut_short_is_none_and_can_be_created(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    (tables.path("log") / "_transactions").mkdir(parents=True)
    (tables.path("log") / "_versions").mkdir()
    (tables.path("log") / "_versions" / "18446744073709551614.manifest#1").write_bytes(b"half")
    assert tables.names() == []
    tables.create("log", LOG)
    tables.upsert("log", events("a"), "event_id")
    assert keys(tables) == ["a"]
