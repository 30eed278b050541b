from pathlib import Path

import pyarrow as pa
import pytest

from featurestore import quarantine
from featurestore.schema import QUARANTINE
from featurestore.tables import Tables


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path / "tables")


def rows(*entries: tuple[int, str | None, str]) -> pa.Table:
    """Entries of (line, field, code)."""
    schema = pa.schema(
        [("line", pa.int64()), *((name, pa.string()) for name in ("field", "code", "reason", "row"))]
    )
    listed = [{"line": n, "field": f, "code": c, "reason": f"why {n}", "row": "{}"} for n, f, c in entries]
    return pa.Table.from_pylist(listed, schema=schema)


def test_nothing_set_aside_makes_no_table(tables: Tables) -> None:
    assert quarantine.put(tables, rows(), "items.csv") == 0
    assert not tables.exists(QUARANTINE)
    assert quarantine.summary(tables) == []


def test_a_source_read_again_replaces_its_own_entries_only(tables: Tables) -> None:
    quarantine.put(tables, rows((2, "price", "bad_value"), (3, None, "column_count")), "items.csv")
    quarantine.put(tables, rows((9, "item_id", "unknown_item")), "events.csv")
    quarantine.put(tables, rows((4, "price", "bad_value")), "items.csv")
    found = quarantine.read(tables).select(["source", "line", "code"]).to_pylist()
    assert found == [
        {"source": "events.csv", "line": 9, "code": "unknown_item"},
        {"source": "items.csv", "line": 4, "code": "bad_value"},
    ]
    quarantine.put(tables, rows(), "items.csv")
    assert quarantine.read(tables, "items.csv").num_rows == 0
    assert quarantine.read(tables, "events.csv").num_rows == 1


def test_the_same_entries_again_write_no_version(tables: Tables) -> None:
    quarantine.put(tables, rows((2, "price", "bad_value"), (3, None, "column_count")), "items.csv")
    version = tables.version(QUARANTINE)
    quarantine.put(tables, rows((3, None, "column_count"), (2, "price", "bad_value")), "items.csv")
    assert tables.version(QUARANTINE) == version


def test_one_field_of_one_line_is_filed_once(tables: Tables) -> None:
    assert (
        quarantine.put(tables, rows((2, "price", "first"), (2, "price", "second"), (2, "title", "x")), "s")
        == 2
    )
    assert quarantine.read(tables)["code"].to_pylist() == ["first", "x"]


def test_the_summary_groups_by_code_and_places_its_examples(tables: Tables) -> None:
    quarantine.put(
        tables,
        rows(*((n, "image", "image_missing") for n in range(2, 7)), (8, "price", "bad_value")),
        "it's.csv",
    )
    groups = quarantine.summary(tables, examples=2)
    assert [(g.where, g.code, g.count) for g in groups] == [
        ("ingest", "image_missing", 5),
        ("ingest", "bad_value", 1),
    ]
    assert [(e.place, e.field, e.reason) for e in groups[0].examples] == [
        ("it's.csv:2", "image", "why 2"),
        ("it's.csv:3", "image", "why 3"),
    ]
