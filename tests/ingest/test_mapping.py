from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from featurestore.errors import BadInput
from ingest.mapping import Mapping, SourceMapping, apply_names, read_mapping
from ingest.raw import Raw


def written(folder: Path, text: str) -> Path:
    path = folder / "mapping.toml"
    path.write_text(text, encoding="utf-8")
    return path


def source(*names: str) -> Raw:
    return Raw("items.csv", pa.table([pa.array(["x"])] * len(names), names=list(names)), np.array([2]))


def test_a_mapping_file_is_read_whole(tmp_path: Path) -> None:
    found = read_mapping(
        written(
            tmp_path,
            """
            encoding = "latin-1"
            images_root = "pictures"
            drop = ["note"]
            rename = { asin = "item_id" }
            [columns.genres]
            type = "list"
            separator = "|"
            [interactions]
            rename = { uid = "user_id" }
            [interactions.columns.timestamp]
            unit = "ms"
            """,
        )
    )
    assert found.images_root == tmp_path / "pictures", "relative to the mapping file"
    assert found.spec("genres").separator == "|"
    assert found.spec("unheard").type is None
    assert found.interactions.spec("timestamp").unit == "ms"
    assert found.interactions.encoding == "utf-8"


def test_without_a_file_nothing_is_said() -> None:
    assert read_mapping(None) == Mapping()


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ('encodin = "utf-8"', "encodin", "encoding"),
        ('[columns.genres]\nseperator = "|"', "columns.genres.seperator", "separator"),
        ("[interactions]\nrenam = {}", "interactions.renam", "rename"),
        ('[interactions.columns.timestamp]\nunits = "s"', "interactions.columns.timestamp.units", "unit"),
    ],
)
def test_an_unknown_key_is_refused_by_its_path_with_the_nearest_one(
    tmp_path: Path, text: str, key: str, hint: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BadInput, match=f"unknown key '{key}'") as caught:
        read_mapping(path)
    assert str(path) in str(caught.value)
    assert f"did you mean '{hint}'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[columns.a]\ntype = "decimal"', "columns.a.type"),
        ('[columns.a]\nseparator = "|"', "separator belongs to"),
        ('[columns.a]\ntype = "string"\ndecimal = ","', "decimal belongs to"),
        ('[columns.a]\ntype = "list"\nseparator = ""', "columns.a.separator"),
        ('[columns.a]\nunit = "s"\ntype = "integer"', "unit is for a timestamp"),
        ('delimiter = "||"', "one ASCII character"),
        ("drop = [", "TOML"),
    ],
)
def test_a_value_that_means_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_mapping(written(tmp_path, text))


def test_a_mapping_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no mapping file"):
        read_mapping(tmp_path / "none.toml")


def test_columns_are_dropped_and_renamed() -> None:
    table = apply_names(
        source("asin", "note", "title"), SourceMapping(rename={"asin": "item_id"}, drop=["note"])
    )
    assert table.column_names == ["item_id", "title"]


@pytest.mark.parametrize(
    "mapping",
    [
        SourceMapping(rename={"asni": "item_id"}),
        SourceMapping(drop=["asni"]),
        SourceMapping.model_validate({"columns": {"asni": {"type": "string"}}}),
    ],
)
def test_a_column_the_source_has_not_is_refused(mapping: SourceMapping) -> None:
    with pytest.raises(BadInput, match="'asni'") as caught:
        apply_names(source("asin", "title"), mapping)
    assert "did you mean 'asin'" in str(caught.value)


@pytest.mark.parametrize("name", ["", "_hidden", "a.b", 'a"b', "a`b", "a\tb", "x" * 129])
def test_names_that_no_table_can_have_are_refused_with_their_place(name: str) -> None:
    with pytest.raises(BadInput, match=r"column 2 of items\.csv"):
        apply_names(source("item_id", name), SourceMapping())
    assert apply_names(source("item_id", name), SourceMapping(drop=[name])).column_names == ["item_id"]


def test_two_columns_of_one_name_are_refused_whatever_their_case() -> None:
    with pytest.raises(BadInput, match="more than one column 'title'"):
        apply_names(source("item_id", "title", "Title"), SourceMapping())
    with pytest.raises(BadInput, match="more than one column 'title'"):
        apply_names(source("item_id", "title", "name"), SourceMapping(rename={"name": "title"}))
