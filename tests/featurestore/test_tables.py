from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import schema
from featurestore.errors import BadInput, Conflict, NotFound
from featurestore.schema import ValueKind
from featurestore.tables import SMALL_FILES, Tables, conform

MIXED = pa.schema(
    [
        schema.key_field("id"),
        pa.field("whole", pa.int64()),
        pa.field("short", pa.float32()),
        pa.field("text", pa.string()),
        pa.field("flag", pa.bool_()),
        pa.field("tags", pa.list_(pa.string())),
    ]
)
VECTOR = schema.feature_schema(ValueKind.VECTOR, 2)
VECTORS = schema.feature_schema(ValueKind.VECTORS, 2)
DOUBLES = pa.list_(pa.float64())
PAIR = pa.list_(pa.float32(), 2)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    made = Tables(tmp_path / "tables")
    made.create("mixed", MIXED)
    made.create("vector", VECTOR)
    return made


def mixed(*rows: dict[str, Any]) -> pa.Table:
    empty = dict.fromkeys(MIXED.names)
    return pa.Table.from_pylist([empty | row for row in rows], MIXED)


def refusal(whole: pa.Schema, field: str, values: Any) -> str:
    """What is said of a write of these values, whose keys are r0, r1, ..."""
    key = whole.field(0).name
    table = pa.table({key: [f"r{n}" for n in range(len(values))], field: values})
    with pytest.raises(BadInput) as refused:
        conform(table, pa.schema([whole.field(key), whole.field(field)]), key, "shelf")
    return str(refused.value)


def test_what_is_written_is_read_back(tables: Tables) -> None:
    row = {"id": "ü", "whole": 2**60, "short": 0.5, "text": "日本", "flag": True, "tags": ["a", "b, c"]}
    tables.upsert("mixed", mixed(row), "id")
    assert tables.read("mixed").to_pylist() == [row]
    assert tables.names() == ["mixed", "vector"]


def test_the_key_stays_marked_as_the_primary_key(tables: Tables) -> None:
    tables.upsert("mixed", mixed({"id": "a"}), "id")
    tables.replace("mixed", mixed({"id": "b"}), "id")
    assert tables.schema("mixed").field("id").metadata == {b"lance-schema:unenforced-primary-key": b"true"}


@settings(max_examples=15)
@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9), max_size=4), max_size=5))
def test_a_table_after_any_upserts_is_the_dict_after_the_same_updates(
    tmp_path_factory: pytest.TempPathFactory, writes: list[dict[str, int]]
) -> None:
    tables, model = Tables(tmp_path_factory.mktemp("tables")), {}
    tables.create("mixed", MIXED)
    for write in writes:
        tables.upsert("mixed", mixed(*({"id": k, "whole": v} for k, v in write.items())), "id")
        model |= write
    stored = tables.read("mixed", columns=["id", "whole"]).to_pylist()
    assert {row["id"]: row["whole"] for row in stored} == model
    assert len(stored) == len(model)


def test_a_part_of_the_columns_leaves_the_others_as_they_are(tables: Tables) -> None:
    tables.upsert("mixed", mixed({"id": "a", "whole": 1, "text": "x"}), "id")
    tables.upsert("mixed", pa.table({"id": ["a", "b"], "whole": [2, 3]}), "id")
    rows = {row["id"]: row for row in tables.read("mixed").to_pylist()}
    assert (rows["a"]["whole"], rows["a"]["text"]) == (2, "x")
    assert (rows["b"]["whole"], rows["b"]["text"]) == (3, None)


def test_writing_nothing_makes_no_version(tables: Tables) -> None:
    before = tables.version("mixed")
    assert tables.upsert("mixed", mixed(), "id") == before
    assert tables.append("mixed", mixed(), "id") == before


def test_an_older_version_is_read_as_it_was(tables: Tables) -> None:
    then = tables.upsert("mixed", mixed({"id": "a", "whole": 1}), "id")
    tables.upsert("mixed", mixed({"id": "a", "whole": 2}, {"id": "b"}), "id")
    tables.delete("mixed", "id = 'b'")
    assert tables.read("mixed", ["id", "whole"], version=then).to_pylist() == [{"id": "a", "whole": 1}]
    assert tables.count("mixed") == 1


def test_cells_without_a_vector_may_be_written_again(tables: Tables) -> None:
    rows = pa.table({"item_id": ["a", "b"], "value": pa.array([[1.0, 2.0], None], PAIR)})
    for _ in range(2):
        tables.upsert("vector", rows, "item_id")
    stored = {row["item_id"]: row["value"] for row in tables.read("vector").to_pylist()}
    assert stored == {"a": [1.0, 2.0], "b": None}


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("whole", [1.0, 1.5]),
        ("whole", [1.0, float("nan")]),
        ("short", [1.0, 1e300]),
    ],
)
def test_a_number_that_would_change_is_refused_with_its_row(field: str, values: list[float]) -> None:
    said = refusal(MIXED, field, values)
    assert "table 'shelf', row 'r1'" in said
    assert f"'{field}'" in said


@pytest.mark.parametrize(
    ("field", "values"),
    [("whole", ["5"]), ("text", [5]), ("whole", [True]), ("flag", [1]), ("tags", [[1]]), ("tags", ["a"])],
)
def test_a_value_of_another_kind_is_refused(field: str, values: list[Any]) -> None:
    assert "is kept" in refusal(MIXED, field, values)


def test_an_infinite_number_that_was_given_is_no_overflow() -> None:
    given_ = pa.table({"id": ["a"], "short": [float("inf")]})
    kept = conform(given_, pa.schema([MIXED.field("id"), MIXED.field("short")]), "id", "shelf")
    assert kept["short"].to_pylist() == [float("inf")]


@pytest.mark.parametrize(
    ("values", "row", "reason"),
    [
        ([[1, 2], None, [0, 0]], "r2", "all zeros"),
        ([[1, 2], [1, float("nan")]], "r1", "NaN"),
        ([[1, 2], [1, None]], "r1", "NaN"),
        ([[1, 2], [1, 1e300]], "r1", "infinite"),
        ([[1, 2], [1, 2, 3]], "r1", "3 values, the feature has 2"),
        ([[1, 2], []], "r1", "0 values"),
    ],
)
def test_a_vector_that_cannot_be_compared_is_refused_with_its_row(
    values: list[Any], row: str, reason: str
) -> None:
    said = refusal(VECTOR, "value", pa.array(values, DOUBLES))
    assert f"row '{row}'" in said
    assert reason in said


@pytest.mark.parametrize(
    ("values", "row", "reason"),
    [([[[1, 2]], [[1, 2], [0, 0]]], "r1", "all zeros"), ([[], None, [[1, 2], None]], "r2", "NULL")],
)
def test_each_of_several_vectors_is_checked(values: list[Any], row: str, reason: str) -> None:
    said = refusal(VECTORS, "value", pa.array(values, pa.list_(PAIR)))
    assert f"row '{row}'" in said
    assert reason in said


def test_a_slice_is_checked_and_kept_as_what_it_shows() -> None:
    values = pa.array([[0, 0], [1, 2], [3, 4]], PAIR).slice(1)
    table = pa.table({"item_id": ["a", "b"], "value": values})
    kept = conform(table, pa.schema([VECTOR.field("item_id"), VECTOR.field("value")]), "item_id", "shelf")
    assert kept["value"].to_pylist() == [[1, 2], [3, 4]]


def test_a_refused_write_leaves_the_table_as_it_was(tables: Tables) -> None:
    version = tables.upsert(
        "vector", pa.table({"item_id": ["a"], "value": pa.array([[1, 2]], PAIR)}), "item_id"
    )
    bad = pa.table({"item_id": ["a", "b"], "value": pa.array([[3, 4], [0, 0]], PAIR)})
    with pytest.raises(BadInput):
        tables.upsert("vector", bad, "item_id")
    assert tables.version("vector") == version
    assert tables.read("vector", ["value"]).to_pylist() == [{"value": [1, 2]}]


@pytest.mark.parametrize("write", ["upsert", "append", "replace"])
def test_a_doubled_or_missing_key_is_refused(tables: Tables, write: str) -> None:
    with pytest.raises(BadInput, match="'a' stands in one write twice"):
        getattr(tables, write)("mixed", mixed({"id": "a"}, {"id": "b"}, {"id": "a"}), "id")
    loose = mixed({"id": "a"}).set_column(0, "id", pa.array([None], pa.string()))
    with pytest.raises(BadInput, match="1 rows have no id"):
        getattr(tables, write)("mixed", loose, "id")
    with pytest.raises(BadInput, match="needs column"):
        getattr(tables, write)("mixed", pa.table({"whole": [1]}), "id")


def test_a_column_that_the_table_does_not_have_is_refused(tables: Tables) -> None:
    with pytest.raises(BadInput, match="no column colour"):
        tables.upsert("mixed", pa.table({"id": ["a"], "colour": ["red"]}), "id")


def test_an_added_column_is_null_in_every_row_and_can_be_written(tables: Tables) -> None:
    tables.upsert("mixed", mixed({"id": "a"}), "id")
    tables.add_columns("mixed", [pa.field("colour", pa.string())])
    assert tables.read("mixed", ["colour"]).to_pylist() == [{"colour": None}]
    tables.upsert("mixed", pa.table({"id": ["a"], "colour": ["red"]}), "id")
    assert tables.read("mixed", ["colour"]).to_pylist() == [{"colour": "red"}]


def test_many_small_files_are_merged_once_and_a_tagged_version_stays(tables: Tables) -> None:
    for n in range(SMALL_FILES):
        tables.append("mixed", mixed({"id": f"k{n:03}"}), "id")
    assert not tables.compact("mixed")
    tables.append("mixed", mixed({"id": "last"}), "id")
    pinned = tables.version("mixed")
    tables.tag("mixed", "release-0001", pinned)
    assert tables.compact("mixed")
    assert not tables.compact("mixed")
    assert len(tables.dataset("mixed").get_fragments()) == 1
    assert len(tables.dataset("mixed", pinned).get_fragments()) == SMALL_FILES + 1
    assert tables.count("mixed") == tables.count("mixed", pinned) == SMALL_FILES + 1


def test_a_table_of_which_most_rows_are_gone_is_written_anew(tables: Tables) -> None:
    tables.append("mixed", mixed(*({"id": f"k{n}"} for n in range(10))), "id")
    tables.delete("mixed", "id <> 'k0'")
    assert tables.compact("mixed")
    assert tables.dataset("mixed").stats.dataset_stats()["num_deleted_rows"] == 0
    assert tables.read("mixed", ["id"]).to_pylist() == [{"id": "k0"}]


def test_from_many_rows_on_the_key_is_indexed(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.tables.INDEX_ROWS", 3)
    tables.upsert("mixed", mixed({"id": "a"}, {"id": "b"}, {"id": "c"}), "id")
    assert not tables.dataset("mixed").describe_indices()
    tables.upsert("mixed", mixed({"id": "c", "whole": 1}, {"id": "d"}), "id")
    assert [index.field_names for index in tables.dataset("mixed").describe_indices()] == [["id"]]
    tables.upsert("mixed", mixed({"id": "d", "whole": 2}, {"id": "e"}), "id")
    assert sorted(tables.read("mixed", ["id"])["id"].to_pylist()) == ["a", "b", "c", "d", "e"]


def test_a_tag_moves_and_goes(tables: Tables) -> None:
    tables.tag("mixed", "kept", 1)
    later = tables.upsert("mixed", mixed({"id": "a"}), "id")
    tables.tag("mixed", "kept", later)
    assert tables.dataset("mixed").tags.list()["kept"]["version"] == later
    for _ in range(2):
        tables.untag("mixed", "kept")
    assert "kept" not in tables.dataset("mixed").tags.list()


def test_a_table_that_is_not_there_is_not_found_and_one_that_is_cannot_be_made(tables: Tables) -> None:
    with pytest.raises(NotFound, match="'shelf'"):
        tables.read("shelf")
    with pytest.raises(Conflict, match="'mixed' exists"):
        tables.create("mixed", MIXED)
