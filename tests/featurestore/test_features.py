from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore import features, items, schema
from featurestore.errors import BadInput
from featurestore.features import Counts
from featurestore.recipe import Recipe
from featurestore.schema import State, Status, ValueKind
from featurestore.store import Store
from featurestore.tables import Tables

UPPER = Recipe(kind="describe", inputs=("column:title", "column:tags"), encoder="upper", value=ValueKind.TEXT)
VECTOR = Recipe(kind="embed_text", inputs=(f"feature:upper@{UPPER.id}",), encoder="tiny", dim=2)
PICTURE = Recipe(kind="embed_image", inputs=("image",), encoder="tiny", dim=2)
RECIPES = {"upper": UPPER, "vector": VECTOR, "picture": PICTURE}
ITEMS = schema.items_schema([pa.field("tags", pa.list_(pa.string())), pa.field("year", pa.int64())])


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    made = Tables(tmp_path / "tables")
    made.create(schema.ITEMS, ITEMS)
    return made


def put_items(tables: Tables, *rows: dict[str, Any]) -> None:
    whole = [dict.fromkeys(ITEMS.names) | {schema.DELETED: False} | row for row in rows]
    tables.upsert(schema.ITEMS, pa.Table.from_pylist(whole, schema=ITEMS), schema.ITEM_ID)


def item(name: str, title: str | None = "Title", **more: Any) -> dict[str, Any]:
    return {schema.ITEM_ID: name, schema.TITLE: title, **more}


def put_cells(
    tables: Tables,
    feature: str,
    names: list[str],
    status: Status = Status.OK,
    *,
    transient: bool = False,
    value: Any = None,
) -> None:
    """Commit a result for these items, computed from what the plan says today."""
    if not names:
        return
    recipe = RECIPES[feature]
    planned = {row["item_id"]: row for row in features.plan(tables, RECIPES, feature).to_pylist()}
    if value is None:
        value = "TEXT" if recipe.value is ValueKind.TEXT else [1.0, 2.0]
    rows = {
        "item_id": names,
        "value": [value if status is Status.OK else None for _ in names],
        "input_hash": [planned[name]["input_hash"] for name in names],
        "status": [str(status)] * len(names),
        "error_code": ["broken" if status is Status.ERROR else None] * len(names),
        "error_message": [None] * len(names),
        "transient": [transient] * len(names),
        "attempts": pa.array([planned[name]["attempts"] for name in names], pa.int32()),
    }
    types = {
        "value": schema.value_type(recipe.value, recipe.dim),
        "error_code": pa.string(),
        "error_message": pa.string(),
    }
    arrays = {k: v if isinstance(v, pa.Array) else pa.array(v, types.get(k)) for k, v in rows.items()}
    features.commit(tables, feature, recipe, pa.table(arrays))


def states(tables: Tables, feature: str) -> dict[str, str]:
    planned = features.plan(tables, RECIPES, feature).to_pylist()
    return {row["item_id"]: row["state"] for row in planned}


def row_of(tables: Tables, feature: str, name: str) -> dict[str, Any]:
    return next(r for r in features.plan(tables, RECIPES, feature).to_pylist() if r["item_id"] == name)


def todo(tables: Tables, feature: str, *, failed: bool = False) -> list[str]:
    return features.work(features.plan(tables, RECIPES, feature), failed=failed)["item_id"].to_pylist()


# ---- against a model


@dataclass
class Cell:
    seen: Any  # the input it was computed from
    status: Status
    transient: bool
    attempts: int
    value: str | None


@dataclass
class Model:
    """The same store as plain dicts: what the query has to agree with."""

    items: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    cells: dict[str, dict[str, Cell]] = field(default_factory=lambda: {"upper": {}, "vector": {}})

    def input(self, feature: str, name: str) -> Any:
        if feature == "upper":
            return self.items[name]
        above = self.cells["upper"].get(name)
        return above.value if above and self.state("upper", name) is State.CURRENT else None

    def state(self, feature: str, name: str) -> State:
        if feature == "vector" and self.state("upper", name) is not State.CURRENT and not self.given_up(name):
            return State.BLOCKED
        cell = self.cells[feature].get(name)
        if cell is None:
            return State.MISSING
        if cell.seen != self.input(feature, name):
            return State.STALE
        return State.FAILED if cell.status is Status.ERROR else State.CURRENT

    def given_up(self, name: str) -> bool:
        if self.state("upper", name) is not State.FAILED:
            return False
        cell = self.cells["upper"][name]
        return not cell.transient or cell.attempts >= features.MAX_ATTEMPTS

    def work(self, feature: str, failed: bool) -> list[str]:
        found = []
        for name in sorted(self.items.keys() - self.dead):
            state, cell = self.state(feature, name), self.cells[feature].get(name)
            again = cell is not None and (
                failed or (cell.transient and cell.attempts < features.MAX_ATTEMPTS)
            )
            if state in (State.MISSING, State.STALE) or (state is State.FAILED and again):
                found.append(name)
        return found

    def commit(self, feature: str, name: str, status: Status, transient: bool, value: str | None) -> None:
        seen, old = self.input(feature, name), self.cells[feature].get(name)
        before = old.attempts if old and old.seen == seen else 0
        self.cells[feature][name] = Cell(seen, status, transient, before + 1, value)


NAMES = st.sampled_from(["a", "b", "ä"])
TITLES = st.sampled_from([None, "", "ab", "a", "🎈 \n'", "n"])
TAGS = st.sampled_from([None, (), ("b", "c"), ("b, c",), ("bc",)])
OUTCOMES = st.sampled_from(
    [(Status.OK, False), (Status.NO_INPUT, False), (Status.ERROR, False), (Status.ERROR, True)]
)
STEPS = st.one_of(
    st.tuples(st.just("item"), NAMES, TITLES, TAGS),
    st.tuples(st.just("tombstone"), NAMES),
    st.tuples(
        st.just("commit"),
        st.sampled_from(["upper", "vector"]),
        st.sets(NAMES, min_size=1),
        OUTCOMES,
        st.sampled_from(["X", "Y"]),
    ),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(steps=st.lists(STEPS, min_size=4, max_size=10))
def test_states_and_work_are_those_of_a_plain_model_after_any_history(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tables, model = Tables(folder), Model()
        tables.create(schema.ITEMS, ITEMS)
        for step in steps:
            match step:
                case ("item", name, title, tags):
                    put_items(tables, item(name, title, tags=None if tags is None else list(tags)))
                    model.items[name] = (title, tags)
                    model.dead.discard(name)
                case ("tombstone", name) if name in model.items:
                    title, tags = model.items[name]
                    gone = item(name, title, tags=None if tags is None else list(tags))
                    put_items(tables, gone | {schema.DELETED: True})
                    model.dead.add(name)
                case ("commit", feature, names, (status, transient), value):
                    there = names & (model.items.keys() - model.dead)
                    ready = sorted(n for n in there if model.state(feature, n) is not State.BLOCKED)
                    given_value = value if feature == "upper" else [1.0, 2.0]
                    put_cells(tables, feature, ready, status, transient=transient, value=given_value)
                    for name in ready:
                        model.commit(feature, name, status, transient, value if status is Status.OK else None)
        for feature in ("upper", "vector"):
            expected = {name: model.state(feature, name) for name in model.items.keys() - model.dead}
            assert states(tables, feature) == expected
            for failed in (False, True):
                assert todo(tables, feature, failed=failed) == model.work(feature, failed)
            tally = features.counts(tables, RECIPES, feature)
            assert tally.total == len(expected)
            assert tally.missing == sum(s is State.MISSING for s in expected.values())
            assert tally.failed == sum(s is State.FAILED for s in expected.values())


# ---- one rule at a time


def test_a_new_item_is_missing_and_what_reads_it_is_blocked(tables: Tables) -> None:
    put_items(tables, item("a"))
    assert states(tables, "upper") == {"a": "missing"}
    assert states(tables, "vector") == {"a": "blocked"}
    assert todo(tables, "vector") == []


def test_only_the_edited_item_becomes_stale(tables: Tables) -> None:
    put_items(tables, item("a"), item("b"))
    put_cells(tables, "upper", ["a", "b"])
    put_cells(tables, "vector", ["a", "b"])
    put_items(tables, item("b", "Other title"))
    assert states(tables, "upper") == {"a": "current", "b": "stale"}
    assert states(tables, "vector") == {"a": "current", "b": "blocked"}


def test_a_column_that_a_recipe_does_not_read_makes_nothing_stale(tables: Tables) -> None:
    put_items(tables, item("a", year=1999))
    put_cells(tables, "upper", ["a"])
    put_items(tables, item("a", year=2000, _image_sha256="new"))
    assert states(tables, "upper") == {"a": "current"}


def test_a_recomputed_text_that_came_out_equal_leaves_its_vector_current(tables: Tables) -> None:
    put_items(tables, item("a", "old"))
    put_cells(tables, "upper", ["a"], value="SAME")
    put_cells(tables, "vector", ["a"])
    put_items(tables, item("a", "new"))
    put_cells(tables, "upper", ["a"], value="SAME")
    assert states(tables, "vector") == {"a": "current"}
    put_items(tables, item("a", "newer"))
    put_cells(tables, "upper", ["a"], value="OTHER")
    assert states(tables, "vector") == {"a": "stale"}


def test_a_replaced_picture_makes_its_vector_stale_and_a_missing_one_is_no_input(tables: Tables) -> None:
    put_items(tables, item("a", _image_sha256="1" * 64), item("b"))
    assert row_of(tables, "picture", "a")["has_input"]
    assert not row_of(tables, "picture", "b")["has_input"]
    put_cells(tables, "picture", ["a"])
    put_cells(tables, "picture", ["b"], Status.NO_INPUT)
    assert states(tables, "picture") == {"a": "current", "b": "current"}
    assert features.counts(tables, RECIPES, "picture") == Counts(current=1, no_input=1)
    put_items(tables, item("a", _image_sha256="2" * 64), item("b", _image_sha256="1" * 64))
    assert states(tables, "picture") == {"a": "stale", "b": "stale"}


def test_an_upstream_without_input_does_not_block_but_counts_as_no_input(tables: Tables) -> None:
    put_items(tables, item("a", None))
    put_cells(tables, "upper", ["a"], Status.NO_INPUT)
    row = row_of(tables, "vector", "a")
    assert (row["state"], row["has_input"]) == ("missing", False)


def test_an_upstream_error_blocks_while_it_is_tried_again_and_is_no_input_afterwards(tables: Tables) -> None:
    put_items(tables, item("a"))
    for _ in range(features.MAX_ATTEMPTS):
        put_cells(tables, "upper", ["a"], Status.ERROR, transient=True)
    assert states(tables, "vector") == {"a": "missing"}
    put_items(tables, item("a", "edited"))
    put_cells(tables, "upper", ["a"], Status.ERROR, transient=True)
    assert states(tables, "vector") == {"a": "blocked"}


def test_what_reads_a_value_that_failed_for_good_has_no_input_until_it_succeeds(tables: Tables) -> None:
    put_items(tables, item("a"))
    put_cells(tables, "upper", ["a"], Status.ERROR)
    row = row_of(tables, "vector", "a")
    assert (row["state"], row["has_input"]) == ("missing", False)
    put_cells(tables, "vector", ["a"], Status.NO_INPUT)
    assert states(tables, "vector") == {"a": "current"}
    assert todo(tables, "upper", failed=True) == ["a"]
    put_cells(tables, "upper", ["a"])
    assert states(tables, "vector") == {"a": "stale"}
    assert row_of(tables, "vector", "a")["has_input"]


def test_a_transient_error_is_tried_three_times_and_a_new_input_starts_anew(tables: Tables) -> None:
    put_items(tables, item("a"))
    for attempt in (1, 2, 3):
        assert todo(tables, "upper") == ["a"]
        put_cells(tables, "upper", ["a"], Status.ERROR, transient=True)
        assert row_of(tables, "upper", "a")["attempts"] == attempt
    assert todo(tables, "upper") == []
    assert todo(tables, "upper", failed=True) == ["a"]
    put_items(tables, item("a", "edited"))
    assert todo(tables, "upper") == ["a"]
    assert row_of(tables, "upper", "a")["attempts"] == 0


def test_a_permanent_error_waits_for_failed_or_a_changed_input(tables: Tables) -> None:
    put_items(tables, item("a"))
    put_cells(tables, "upper", ["a"], Status.ERROR)
    assert todo(tables, "upper") == []
    assert todo(tables, "upper", failed=True) == ["a"]
    put_items(tables, item("a", "edited"))
    assert todo(tables, "upper") == ["a"]


def test_an_item_taken_out_is_in_no_plan_and_current_again_when_it_returns(tables: Tables) -> None:
    put_items(tables, item("a"), item("b"))
    put_cells(tables, "upper", ["a", "b"])
    put_items(tables, item("b") | {schema.DELETED: True})
    assert states(tables, "upper") == {"a": "current"}
    put_items(tables, item("b"))
    assert states(tables, "upper") == {"a": "current", "b": "current"}


def test_a_plan_is_sorted_by_id_and_typed_also_when_it_is_empty(tables: Tables, tmp_path: Path) -> None:
    assert features.plan(Tables(tmp_path / "none"), RECIPES, "upper").schema == features.PLAN_SCHEMA
    assert features.plan(tables, RECIPES, "upper").schema == features.PLAN_SCHEMA
    put_items(tables, item("é"), item("b"), item("10"), item("9"))
    planned = features.plan(tables, RECIPES, "upper")
    assert planned.schema == features.PLAN_SCHEMA
    assert planned["item_id"].to_pylist() == ["10", "9", "b", "é"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"title": "ab", "tags": ["c"]}, {"title": "a", "tags": ["bc"]}),
        ({"title": "a", "tags": ["b", "c"]}, {"title": "a", "tags": ["b, c"]}),
        ({"title": "a", "tags": [None]}, {"title": "a", "tags": ["NULL"]}),
        ({"title": "a", "tags": ["x"]}, {"title": "a", "tags": ["x", None]}),
        ({"title": "a", "tags": []}, {"title": "a", "tags": None}),
        ({"title": None}, {"title": ""}),
        ({"title": None}, {"title": "n"}),
        ({"title": None}, {"title": "NULL"}),
        ({"title": "é"}, {"title": "e\u0301"}),
        ({"title": "a"}, {"title": "a "}),
        ({"title": "1:a"}, {"title": "a"}),
    ],
)
def test_two_different_inputs_have_different_hashes(
    tables: Tables, one: dict[str, Any], other: dict[str, Any]
) -> None:
    put_items(tables, item("a", **one), item("b", **other), item("same as a", **one))
    hashes = {name: row_of(tables, "upper", name)["input_hash"] for name in ("a", "b", "same as a")}
    assert hashes["a"] != hashes["b"]
    assert hashes["a"] == hashes["same as a"]
    assert len(hashes["a"]) == features.HASH_LENGTH


def test_text_cannot_move_from_one_column_to_the_next_unseen(tables: Tables) -> None:
    recipe = Recipe(kind="embed_text", inputs=("column:title", "column:image"), encoder="tiny", dim=2)
    put_items(tables, item("a", "ab", image="c"), item("b", "a", image="bc"), item("c", "ab1:c", image=""))
    assert len(set(features.plan(tables, {"f": recipe}, "f")["input_hash"].to_pylist())) == 3


def test_a_number_and_its_text_have_one_hash_since_a_column_keeps_its_type(tables: Tables) -> None:
    def read(column: str) -> Recipe:
        return Recipe(kind="embed_text", inputs=(f"column:{column}",), encoder="tiny", dim=2)

    put_items(tables, item("a", "1", year=1))
    as_text = features.plan(tables, {"f": read("title")}, "f")["input_hash"]
    as_number = features.plan(tables, {"f": read("year")}, "f")["input_hash"]
    assert as_text == as_number


@pytest.mark.parametrize(
    ("values", "has_input"),
    [
        ({"title": None, "tags": None}, False),
        ({"title": "", "tags": []}, False),
        ({"title": "  ", "tags": None}, False),
        ({"title": "\n\t", "tags": None}, False),
        ({"title": "\u00a0\u2003", "tags": None}, False),
        ({"title": None, "tags": [""]}, False),
        ({"title": None, "tags": [None, " "]}, False),
        ({"title": None, "tags": [None, "x"]}, True),
        ({"title": "日", "tags": None}, True),
        ({"title": None, "tags": ["x"]}, True),
        ({"title": "x", "tags": None}, True),
        ({"title": "[]", "tags": None}, True),
    ],
)
def test_an_item_has_input_if_any_part_says_something(
    tables: Tables, values: dict[str, Any], has_input: bool
) -> None:
    put_items(tables, item("a", **values))
    assert row_of(tables, "upper", "a")["has_input"] is has_input


def test_a_column_that_the_items_do_not_have_is_refused_by_name(tables: Tables) -> None:
    recipe = Recipe(kind="embed_text", inputs=("column:colour",), encoder="tiny", dim=2)
    with pytest.raises(BadInput, match="'colour'"):
        features.plan(tables, {"f": recipe}, "f")


def test_a_column_may_have_any_name(tables: Tables) -> None:
    odd = 'we"ird; DROP TABLE items'
    tables.add_columns(schema.ITEMS, [pa.field(odd, pa.string())])
    recipe = Recipe(kind="embed_text", inputs=(f"column:{odd}",), encoder="tiny", dim=2)
    put_items(tables, item("a"))
    assert features.plan(tables, {"f": recipe}, "f").num_rows == 1


def test_a_feature_made_from_another_recipe_of_what_it_reads_is_refused(tables: Tables) -> None:
    put_items(tables, item("a"))
    other = UPPER.model_copy(update={"encoder": "lower"})
    with pytest.raises(BadInput, match="another recipe of 'upper'"):
        features.plan(tables, RECIPES | {"upper": other}, "vector")


def test_an_ok_cell_without_a_value_is_our_own_bug(tables: Tables) -> None:
    put_items(tables, item("a"))
    rows = pa.table(
        {
            "item_id": ["a"], "value": pa.array([None], pa.string()), "input_hash": ["0"], "status": ["ok"],
            "error_code": pa.array([None], pa.string()), "error_message": pa.array([None], pa.string()),
            "transient": [False], "attempts": pa.array([0], pa.int32()),
        }
    )  # fmt: skip
    with pytest.raises(ValueError, match="has a value"):
        features.commit(tables, "upper", UPPER, rows)


# ---- reading


def test_a_matrix_is_sorted_by_id_and_each_row_is_its_items_vector(tables: Tables) -> None:
    names = [f"{n}" for n in (9, 10, 2, 33, 1)]
    put_items(tables, *(item(name, _image_sha256=name) for name in names))
    for name in names:  # one commit each, so that the table is out of order
        put_cells(tables, "picture", [name], value=[float(name), 0.5])
    put_cells(tables, "picture", ["10"], value=[-10.0, 0.5])
    ids, values = features.read_matrix(tables.dataset(PICTURE.table("picture")), 2)
    assert ids.tolist() == sorted(names)
    assert values.dtype == np.float32
    assert dict(zip(ids.tolist(), values[:, 0].tolist(), strict=True)) == {
        "9": 9.0, "10": -10.0, "2": 2.0, "33": 33.0, "1": 1.0
    }  # fmt: skip


def test_a_matrix_leaves_out_cells_without_a_vector_and_items_not_kept(tables: Tables) -> None:
    put_items(tables, *(item(name) for name in "abcd"))
    put_cells(tables, "picture", ["a", "d"])
    put_cells(tables, "picture", ["b"], Status.NO_INPUT)
    put_cells(tables, "picture", ["c"], Status.ERROR)
    dataset = tables.dataset(PICTURE.table("picture"))
    assert features.read_matrix(dataset, 2)[0].tolist() == ["a", "d"]
    ids, values = features.read_matrix(dataset, 2, keep=np.array(["b", "d"]))
    assert ids.tolist() == ["d"]
    assert values.shape == (1, 2)


def test_a_matrix_without_a_vector_is_empty_and_keeps_its_width(tables: Tables) -> None:
    put_items(tables, item("a"))
    put_cells(tables, "picture", ["a"], Status.NO_INPUT)
    ids, values = features.read_matrix(tables.dataset(PICTURE.table("picture")), 2)
    assert ids.shape == (0,)
    assert values.shape == (0, 2)


def test_a_matrix_larger_than_one_batch_is_whole(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "READ_ROWS", 7)
    names = [f"{n:03}" for n in range(40)]
    put_items(tables, *(item(name) for name in names))
    put_cells(tables, "picture", names)
    ids, values = features.read_matrix(tables.dataset(PICTURE.table("picture")), 2)
    assert ids.tolist() == names
    assert (values == [1.0, 2.0]).all()


# ---- what a cell's input hash is


GOLDEN_ROWS: list[tuple[pa.DataType, Any, str]] = [
    (pa.int64(), 7, "7"),
    (pa.int64(), -(2**62), "-4611686018427387904"),
    (pa.float64(), 1.0, "1.0"),
    (pa.float64(), -0.0, "-0.0"),
    (pa.float64(), 0.1, "0.1"),
    (pa.float64(), 1e20, "1e+20"),
    (pa.float64(), 1e-7, "1e-07"),
    (pa.float64(), 123456789.125, "123456789.125"),
    (pa.bool_(), True, "true"),
    (pa.string(), "Größe 😀", "Größe 😀"),
    (pa.list_(pa.string()), ["a", "b, c", ""], "[a, 'b, c', '']"),
    (pa.list_(pa.int64()), [1, None], "[1, NULL]"),
    (pa.list_(pa.float64()), [1.0, 0.1], "[1.0, 0.1]"),
]


@pytest.mark.parametrize(("kind", "value", "spelled"), GOLDEN_ROWS, ids=[row[2] for row in GOLDEN_ROWS])
def test_an_input_is_hashed_in_a_spelling_that_never_changes(
    tmp_path: Path, kind: pa.DataType, value: Any, spelled: str
) -> None:
    """DuckDB spells the values. Where a version of it spells otherwise, this fails and no store's cells go stale."""
    store = Store.create(
        tmp_path / "store", '[features.f]\nkind = "imported"\ninputs = ["x"]\nencoder = "e"\n'
    )
    rows = {"item_id": ["a", "b"], "x": pa.array([value, None], kind)}
    items.upsert_items(store.tables, pa.table(rows))
    store.lock_recipe("f", Recipe(kind="imported", inputs=("column:x",), encoder="e", dim=2))
    found = store.plan("f")["input_hash"].to_pylist()
    hashed = f"{len(spelled.encode())}:{spelled}"
    assert found == [hashlib.sha256(text.encode()).hexdigest()[:32] for text in (hashed, "n")]
