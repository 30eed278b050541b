from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featurestore import tables as module
from featurestore.errors import BadInput, Conflict, NotFound
from featurestore.schema import KEY_METADATA, key_field
from featurestore.tables import Tables, key_of

VECTOR = pa.list_(pa.float32(), 3)
SCHEMA = pa.schema(
    [
        key_field("id"),
        pa.field("n", pa.int64()),
        pa.field("x", pa.float32()),
        pa.field("flag", pa.bool_()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("v", VECTOR),
        pa.field("vs", pa.list_(VECTOR)),
    ]
)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    made = Tables(tmp_path / "tables")
    made.create("t", SCHEMA)
    return made


def rows(**columns: Any) -> pa.Table:
    """A table of these columns; a list becomes the column's own type, an Arrow array stays what it is."""
    arrays = {
        name: v if isinstance(v, pa.Array) else pa.array(v, SCHEMA.field(name).type)
        for name, v in columns.items()
    }
    return pa.table(arrays)


def whole(name: str) -> pa.Table:
    """One row with every column, NULL but for the key."""
    return rows(id=[name], **{column: [None] for column in SCHEMA.names if column != "id"})


def stored(tables: Tables, *columns: str, version: int | None = None) -> dict[str, Any]:
    found = tables.read("t", columns=["id", *columns], version=version).to_pylist()
    assert len({row["id"] for row in found}) == len(found), "every key once"
    return {
        row["id"]: tuple(row[c] for c in columns) if len(columns) > 1 else row[columns[0]] for row in found
    }


# ---- writing by key


def test_an_upsert_inserts_new_keys_and_replaces_known_ones(tables: Tables) -> None:
    before = tables.version("t")
    first = tables.upsert("t", rows(id=["a", "b"], n=[1, 2]), "id")
    second = tables.upsert("t", rows(id=["b", "ü"], n=[20, 3]), "id")
    assert before < first < second
    assert stored(tables, "n") == {"a": 1, "b": 20, "ü": 3}


def test_an_upsert_of_some_columns_leaves_the_others_as_they_are(tables: Tables) -> None:
    tables.upsert("t", rows(id=["a"], n=[1], tags=[["x"]], v=[[1, 2, 3]]), "id")
    tables.upsert("t", rows(id=["a", "b"], n=[2, 3]), "id")
    assert stored(tables, "n", "tags", "v") == {"a": (2, ["x"], [1.0, 2.0, 3.0]), "b": (3, None, None)}


def test_an_upsert_without_rows_makes_no_version(tables: Tables) -> None:
    assert tables.upsert("t", rows(id=[], n=[]), "id") == tables.version("t") == tables.version("t")
    assert tables.version("t") == 1


def test_appended_and_replaced_rows_are_checked_too(tables: Tables) -> None:
    tables.append("t", whole("a"), "id")
    assert tables.append("t", whole("a").slice(0, 0), "id") == tables.version("t")
    for write in (tables.append, tables.replace):
        with pytest.raises(BadInput, match="needs column"):
            write("t", rows(id=["a"]), "id")
        with pytest.raises(BadInput, match="no column z"):
            write("t", whole("b").append_column("z", pa.array([1])), "id")


# ---- what is refused


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"id": pa.array(["a", None])}, ["1 rows have no id"]),
        ({"id": ["a", "b", "b"]}, ["id 'b'", "twice"]),
        ({"n": [1]}, ["id"]),
        ({"id": ["a", "b"], "n": pa.array([1.0, 1.5])}, ["row 'b'", "field 'n'", "int64"]),
        ({"id": ["a", "b"], "n": pa.array([1, 2**63], pa.uint64())}, ["row 'b'", "field 'n'"]),
        ({"id": ["a", "b"], "n": pa.array([1.0, float("nan")])}, ["row 'b'", "field 'n'"]),
        ({"id": ["a"], "n": pa.array(["12"])}, ["field 'n'", "string"]),
        ({"id": ["a"], "n": pa.array([True])}, ["field 'n'", "bool"]),
        ({"id": ["a"], "flag": pa.array([5])}, ["field 'flag'"]),
        ({"id": ["a"], "tags": pa.array([[1]])}, ["field 'tags'"]),
        ({"id": ["a", "b"], "x": pa.array([1.0, 1e300])}, ["row 'b'", "field 'x'", "too large"]),
        ({"id": ["a", "b"], "v": pa.array([[1, 2, 3], [1.0, 2.0]])}, ["row 'b'", "field 'v'", "2 values"]),
        ({"id": ["a"], "v": pa.array([[1.0] * 4], pa.list_(pa.float32(), 4))}, ["row 'a'", "field 'v'"]),
        ({"id": ["a", "b", "c"], "v": [[1, 2, 3], None, [0, 0, 0]]}, ["row 'c'", "field 'v'", "all zeros"]),
        ({"id": ["a", "b"], "v": [None, [1, float("nan"), 0]]}, ["row 'b'", "field 'v'", "NaN"]),
        ({"id": ["a"], "v": [[1, float("inf"), 0]]}, ["row 'a'", "field 'v'", "infinite"]),
        ({"id": ["a"], "v": pa.array([[1.0, 1e300, 0]])}, ["row 'a'", "field 'v'"]),
        (
            {"id": ["a", "b"], "vs": [[[1, 1, 1], [2, 2, 2]], [[3, 3, 3], [0, 0, 0]]]},
            ["row 'b'", "all zeros"],
        ),
        ({"id": ["a", "b"], "vs": [[], [None]]}, ["row 'b'", "field 'vs'", "NULL"]),
        ({"id": ["a"], "unknown": pa.array([1])}, ["no column unknown"]),
    ],
)
def test_what_a_table_would_take_silently_is_refused_with_its_place(
    tables: Tables, columns: dict[str, Any], said: list[str]
) -> None:
    tables.upsert("t", rows(id=["kept"], n=[7]), "id")
    version = tables.version("t")
    with pytest.raises(BadInput) as refused:
        tables.upsert("t", rows(**columns), "id")
    assert "table 't'" in refused.value.message
    for part in said:
        assert part in refused.value.message
    assert tables.version("t") == version, "a refused write makes no version"
    assert stored(tables, "n") == {"kept": 7}


def test_numbers_that_keep_their_value_are_accepted_in_another_width(tables: Tables) -> None:
    tables.upsert(
        "t",
        rows(
            id=pa.array(["a", "b"]).dictionary_encode(),
            n=pa.array([1.0, None]),
            x=pa.array([0.1, float("inf")]),
            v=pa.array([[1.5, 2.0, 3.0], None]),
            vs=[[[1, 2, 3], [4, 5, 6]], []],
        ),
        "id",
    )
    found = stored(tables, "n", "x", "v", "vs")
    assert found["a"] == (1, pytest.approx(0.1), [1.5, 2.0, 3.0], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert found["b"] == (None, float("inf"), None, [])


def test_sliced_and_chunked_rows_are_checked_at_their_own_place(tables: Tables) -> None:
    good = rows(id=["a", "b", "c"], v=[[1, 1, 1], [2, 2, 2], [3, 3, 3]])
    bad = rows(id=["d", "e"], v=[[4, 4, 4], [0, 0, 0]])
    chunked = pa.concat_tables([good.slice(1), bad])
    with pytest.raises(BadInput, match="row 'e'"):
        tables.upsert("t", chunked, "id")
    tables.upsert("t", chunked.slice(0, 3), "id")
    assert stored(tables, "v") == {"b": [2.0] * 3, "c": [3.0] * 3, "d": [4.0] * 3}


# ---- versions, tags, columns


def test_a_pinned_version_reads_what_there_was(tables: Tables) -> None:
    then = tables.upsert("t", rows(id=["a"], n=[1]), "id")
    tables.upsert("t", rows(id=["a", "b"], n=[2, 2]), "id")
    tables.delete("t", "id = 'a'")
    tables.add_columns("t", [pa.field("late", pa.string())])
    assert stored(tables, "n", version=then) == {"a": 1}
    assert tables.count("t", then) == 1
    assert "late" not in tables.dataset("t", then).schema.names
    assert stored(tables, "n", "late") == {"b": (2, None)}


def primary_key(tables: Tables) -> str:
    field = tables.schema("t").field("id")
    key, value = next(iter(KEY_METADATA.items()))
    assert field.metadata is not None
    assert field.metadata[key.encode()] == value.encode()
    assert not field.nullable
    return key_of(tables.schema("t"))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.upsert("t", rows(id=["a"], n=[1]), "id"),
        lambda t: t.replace("t", whole("a"), "id"),
        lambda t: t.add_columns("t", [pa.field("late", pa.list_(pa.string()))]),
        lambda t: t.delete("t", "true"),
        lambda t: t.compact("t", force=True),
    ],
    ids=["upsert", "replace", "add columns", "delete", "compact"],
)
def test_the_key_stays_marked_as_the_primary_key(tables: Tables, change: Callable[[Tables], Any]) -> None:
    assert primary_key(tables) == "id"
    change(tables)
    assert primary_key(tables) == "id"


def test_replacing_all_rows_keeps_older_versions_and_tags(tables: Tables) -> None:
    then = tables.upsert("t", rows(id=["a", "b"], n=[1, 2]), "id")
    tables.tag("t", "release-0001", then)
    tables.replace("t", whole("z"), "id")
    assert set(stored(tables, "n")) == {"z"}
    assert stored(tables, "n", version=then) == {"a": 1, "b": 2}
    assert "release-0001" in tables.dataset("t").tags.list()


def test_a_tag_can_be_moved_and_taken_away(tables: Tables) -> None:
    one = tables.upsert("t", rows(id=["a"], n=[1]), "id")
    two = tables.upsert("t", rows(id=["a"], n=[2]), "id")
    tables.tag("t", "mark", one)
    tables.tag("t", "mark", two)
    assert tables.dataset("t").tags.list()["mark"]["version"] == two
    tables.untag("t", "mark")
    tables.untag("t", "mark")
    assert tables.dataset("t").tags.list() == {}


# ---- compaction


def test_many_small_commits_stay_readable_and_are_merged_at_the_gate(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL_FILES", 8)
    merged = []
    for n in range(12):
        tables.upsert("t", rows(id=[f"{n}"], n=[n]), "id")
        if n == 3:
            tables.tag("t", "release-0001", tables.version("t"))
        merged.append(tables.compact("t"))
    assert merged.index(True) == 8, "eight small files are fine, nine are not"
    assert merged.count(True) == 1
    assert len(tables.dataset("t").get_fragments()) <= 4
    assert stored(tables, "n") == {f"{n}": n for n in range(12)}
    tagged = tables.dataset("t").tags.list()["release-0001"]["version"]
    assert stored(tables, "n", version=tagged) == {f"{n}": n for n in range(4)}


def test_a_table_of_which_most_rows_are_gone_is_written_anew(tables: Tables) -> None:
    tables.upsert("t", rows(id=[f"{n}" for n in range(10)], n=list(range(10))), "id")
    tables.delete("t", "n >= 5")
    assert not tables.compact("t"), "half of them are still there"
    tables.delete("t", "n >= 4")
    assert tables.compact("t")
    assert stored(tables, "n") == {f"{n}": n for n in range(4)}


def test_a_large_table_gets_an_index_on_its_key_and_upserts_stay_right(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INDEX_ROWS", 50)
    tables.upsert("t", rows(id=[f"{n}" for n in range(100)], n=[0] * 100), "id")
    assert not tables.dataset("t").list_indices()
    tables.upsert("t", rows(id=["5", "new"], n=[1, 1]), "id")
    assert tables.dataset("t").list_indices()
    tables.upsert(
        "t", rows(id=["new", "newer"], n=[2, 2]), "id"
    )  # "new" is in the table, not yet in the index
    tables.compact("t", force=True)
    tables.upsert("t", rows(id=["5", "newer"], n=[3, 3]), "id")
    found = stored(tables, "n")
    assert len(found) == 102
    assert (found["5"], found["new"], found["newer"], found["6"]) == (3, 2, 3, 0)


# ---- what is there and what is not


def test_a_table_that_is_not_there_is_said_so(tables: Tables) -> None:
    assert tables.names() == ["t"]
    assert not tables.exists("other")
    for call in (tables.version, tables.count, tables.schema, tables.read, tables.compact):
        with pytest.raises(NotFound, match="'other'"):
            call("other")
    with pytest.raises(Conflict, match="exists already"):
        tables.create("t", SCHEMA)


def test_a_table_whose_making_was_interrupted_is_not_there_and_can_be_made(tables: Tables) -> None:
    (tables.path("husk") / "_versions").mkdir(parents=True)
    assert not tables.exists("husk")
    assert tables.names() == ["t"]
    tables.create("husk", SCHEMA)
    assert tables.count("husk") == 0


WRITE = """
import sys, pyarrow as pa
from featurestore.tables import Tables
tables = Tables(sys.argv[1])
n = 0
while True:
    n += 1
    tables.upsert("t", pa.table({"id": [str(i) for i in range(2000)], "n": pa.array([n] * 2000)}), "id")
    print(n, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_whole_commits_only(tables: Tables) -> None:
    for kill_after in (1, 2):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE, str(tables.folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(kill_after):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)  # in the midst of the next commit
        process.wait()
        process.stdout.close()
        values = stored(tables, "n")
        assert len(values) == 2000
        assert len(set(values.values())) == 1, "no commit is half there"
        tables.upsert("t", rows(id=["0"], n=[-1]), "id")
        assert stored(tables, "n")["0"] == -1


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_a_full_disk_refuses_the_batch_and_keeps_every_row_there_was(tmp_path: Path) -> None:
    from featurestore.errors import DiskError

    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], capture_output=True
    ).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        tables = Tables(small / "tables")
        tables.create("t", SCHEMA)
        tables.upsert("t", rows(id=["a"], n=[1]), "id")
        big = rows(id=["a", "b"], tags=[[f"{n:07}" * 100 for n in range(9000)], ["x"]])
        with pytest.raises(DiskError, match="the disk is full: this batch of table 't'") as refused:
            tables.upsert("t", big, "id")
        assert "what was stored before is kept" in (refused.value.remedy or "")
        assert stored(tables, "n", "tags") == {"a": (1, None)}
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
