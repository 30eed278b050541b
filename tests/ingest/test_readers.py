import csv
import gzip
import io
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import BadInput
from ingest.mapping import SourceMapping
from ingest.raw import Raw, rows_as_json
from ingest.readers import read_source

PLAIN = SourceMapping()


def read(path: Path, content: str | bytes, mapping: SourceMapping = PLAIN) -> Raw:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_source(path, mapping, "items")


def set_aside(raw: Raw) -> list[tuple[int, str, str]]:
    return [(row["line"], row["code"], row["row"]) for row in raw.rejects.table().to_pylist()]


# ---- csv


def test_every_cell_of_a_csv_is_text_as_written(tmp_path: Path) -> None:
    raw = read(tmp_path / "a.csv", 'item_id,price\n007,1.50\n1e5,"$1,200"\n')
    assert raw.table.to_pylist() == [
        {"item_id": "007", "price": "1.50"},
        {"item_id": "1e5", "price": "$1,200"},
    ]
    assert raw.lines.tolist() == [2, 3]


def test_an_empty_cell_is_null_quoted_or_not(tmp_path: Path) -> None:
    raw = read(tmp_path / "a.csv", 'item_id,title\n1,\n2,""\n3,x\n')
    assert raw.table["title"].to_pylist() == [None, None, "x"]


def test_rows_with_too_few_or_too_many_cells_are_set_aside_alone(tmp_path: Path) -> None:
    raw = read(tmp_path / "a.csv", "item_id,title\n1,a\n2\n3,b,c\n4,d\n")
    assert raw.table["item_id"].to_pylist() == ["1", "4"]
    assert raw.lines.tolist() == [2, 5]
    assert [entry[:2] for entry in set_aside(raw)] == [(3, "column_count"), (4, "column_count")]
    assert json.loads(set_aside(raw)[1][2]) == {"text": "3,b,c"}
    assert raw.unreadable == 2


def test_line_numbers_are_those_of_the_file_even_after_line_breaks_in_cells(tmp_path: Path) -> None:
    text = 'item_id,title\n1,"a\nb\r\nc"\n\n2,"x\ny",z\n3,"d\r"\n4,e\n5\n'
    raw = read(tmp_path / "a.csv", text)
    assert dict(zip(raw.table["item_id"].to_pylist(), raw.lines.tolist(), strict=True)) == {
        "1": 2,
        "3": 8,
        "4": 10,
    }
    assert [entry[0] for entry in set_aside(raw)] == [6, 11]


def test_a_bom_crlf_blank_lines_and_a_padded_header_are_read_over(tmp_path: Path) -> None:
    raw = read(tmp_path / "a.csv", b"\xef\xbb\xbf\r\nitem_id, title \r\n1,a\r\n\r\n2,b\r\n")
    assert raw.table.column_names == ["item_id", "title"]
    assert raw.lines.tolist() == [3, 5]


def test_a_quote_that_is_never_closed_costs_only_its_own_line(tmp_path: Path) -> None:
    raw = read(tmp_path / "a.csv", 'item_id,title\n1,a\n2,"oops\n3,c\n4,d\n')
    assert raw.table["item_id"].to_pylist() == ["1", "3", "4"]
    assert raw.lines.tolist() == [2, 4, 5]
    assert [entry[:2] for entry in set_aside(raw)] == [(3, "unclosed_quote")]
    assert json.loads(set_aside(raw)[0][2]) == {"text": '2,"oops'}


def test_two_quotes_that_are_never_closed_do_not_pair_up_at_the_end(tmp_path: Path) -> None:
    raw = read(tmp_path / "a.csv", 'item_id,title,note\n1,"oops,x\n2,b,y\n3,c,z\n')
    assert raw.table["item_id"].to_pylist() == ["2", "3"]
    assert [entry[:2] for entry in set_aside(raw)] == [(2, "unclosed_quote")]


def test_a_quote_that_is_closed_in_the_wrong_place_costs_only_its_own_line(tmp_path: Path) -> None:
    lines = [
        "item_id,title,price",
        '4,"a ""wide"" one\nof two lines",1',
        '5,"Monitor 15"",9.99',
        '6,"Keyboard",3.50',
    ]
    lines += ["7,mouse,2", '8,"x\ry",3', '9,"Screen 24"" flat"",1.5', '10,"pad\nof two",4']
    raw = read(tmp_path / "a.csv", "\n".join(lines) + "\n")
    assert raw.table["item_id"].to_pylist() == ["4", "6", "7", "8", "10"]
    assert raw.lines.tolist() == [2, 5, 6, 7, 10]
    assert raw.table["title"].to_pylist() == [
        'a "wide" one\nof two lines',
        "Keyboard",
        "mouse",
        "x\ry",
        "pad\nof two",
    ]
    assert [entry[:2] for entry in set_aside(raw)] == [(4, "unclosed_quote"), (9, "unclosed_quote")]
    assert json.loads(set_aside(raw)[0][2]) == {"text": '5,"Monitor 15"",9.99'}


def test_a_last_cell_with_line_breaks_at_the_end_of_the_file_is_kept(tmp_path: Path) -> None:
    raw = read(tmp_path / "a.csv", 'item_id,title\n1,"a\nb\n"')
    assert raw.table.to_pylist() == [{"item_id": "1", "title": "a\nb\n"}]


def test_a_file_in_another_encoding_is_refused_with_its_first_bad_line(tmp_path: Path) -> None:
    content = "item_id,title\n1,ok\n2,café\n".encode("latin-1")
    with pytest.raises(BadInput, match=r"line 3 has byte 0xe9 \(byte 25 ") as caught:
        read(tmp_path / "a.csv", content)
    assert "encoding" in str(caught.value.remedy)
    raw = read(tmp_path / "a.csv", content, SourceMapping(encoding="latin-1"))
    assert raw.table["title"].to_pylist() == ["ok", "café"]


def test_utf16_is_recognised_and_read_where_it_is_named(tmp_path: Path) -> None:
    content = "item_id,title\n1,żółw\n2,b,c\n".encode("utf-16")
    with pytest.raises(BadInput, match="utf-16"):
        read(tmp_path / "a.csv", content)
    raw = read(tmp_path / "a.csv", content, SourceMapping(encoding="utf-16"))
    assert raw.table["title"].to_pylist() == ["żółw"]
    assert [entry[0] for entry in set_aside(raw)] == [3]


def test_an_unknown_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="klingon"):
        read(tmp_path / "a.csv", "item_id\n1\n", SourceMapping(encoding="klingon"))


def test_tabs_and_named_delimiters_divide(tmp_path: Path) -> None:
    assert read(tmp_path / "a.tsv", "item_id\ttitle\n1\ta,b\n").table["title"].to_pylist() == ["a,b"]
    raw = read(tmp_path / "a.csv", "item_id;title\n1;a\n", SourceMapping(delimiter=";"))
    assert raw.table["title"].to_pylist() == ["a"]


def test_gzip_is_unpacked_and_half_an_archive_refused(tmp_path: Path) -> None:
    packed = gzip.compress(b"item_id,title\n" + b"1,a\n" * 1000)
    assert read(tmp_path / "a.csv.gz", packed).table.num_rows == 1000
    with pytest.raises(BadInput, match="gzip"):
        read(tmp_path / "a.csv.gz", packed[:-20])
    with pytest.raises(BadInput, match="gzip"):
        read(tmp_path / "a.csv.gz", b"item_id\n1\n")


@pytest.mark.parametrize(
    ("content", "message"), [("", "empty"), ("\n\n", "empty"), ("item_id,title\n", "no rows")]
)
def test_a_csv_without_rows_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read(tmp_path / "a.csv", content)


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(st.text("abc", min_size=1), CELLS, CELLS), min_size=1, max_size=12),
    crlf=st.booleans(),
)
def test_whatever_pythons_writer_wrote_is_read_back_cell_by_cell_and_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], crlf: bool
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n" if crlf else "\n")
    writer.writerow(["item_id", "p", "q"])
    starts = []
    for row in rows:
        starts.append(out.getvalue().count("\n") + 1)
        writer.writerow(row)
    raw = read(tmp_path_factory.mktemp("c") / "a.csv", out.getvalue())
    assert len(raw.rejects) == 0
    assert raw.lines.tolist() == starts
    found = list(zip(*(raw.table[name].to_pylist() for name in ("item_id", "p", "q")), strict=True))
    assert found == [tuple(cell or None for cell in row) for row in rows]


# ---- jsonl


def test_json_lines_keep_their_types(tmp_path: Path) -> None:
    raw = read(
        tmp_path / "a.jsonl",
        '{"item_id": "007", "n": 1, "x": 1.5, "b": true, "tags": ["p", 2], "day": "2024-01-01"}\n'
        '\n{"item_id": 7, "x": 2}\r\n',
    )
    assert raw.table.to_pylist() == [
        {"item_id": "007", "n": 1, "x": 1.5, "b": True, "tags": ["p", "2"], "day": "2024-01-01"},
        {"item_id": "7", "n": None, "x": 2.0, "b": None, "tags": None, "day": None},
    ]
    assert raw.lines.tolist() == [1, 3]


BROKEN = [
    '{"item_id": 1',
    "[1, 2]",
    '"text"',
    "nonsense",
    '{"item_id": "\\ud800"}',
    "[" * 100_000,
    '{"a": ' + "9" * 5000 + "}",
]


@pytest.mark.parametrize("line", BROKEN)
def test_a_line_that_is_no_object_is_set_aside_alone(tmp_path: Path, line: str) -> None:
    raw = read(tmp_path / "a.jsonl", '{"item_id": "a"}\n' + line + '\n{"item_id": "b"}\n')
    assert raw.table["item_id"].to_pylist() == ["a", "b"]
    assert [entry[:2] for entry in set_aside(raw)] == [(2, "bad_json")]


def test_a_json_array_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="array") as caught:
        read(tmp_path / "a.jsonl", '[{"item_id": 1}]\n')
    assert "one object a line" in str(caught.value)


def test_mixed_json_scalars_become_text_and_strays_among_lists_are_set_aside(tmp_path: Path) -> None:
    lines = [json.dumps({"item_id": n, "mixed": n if n % 2 else f"t{n}", "tags": ["x"]}) for n in range(19)]
    raw = read(tmp_path / "a.jsonl", "\n".join([*lines, '{"item_id": 19, "mixed": true, "tags": "x"}']))
    assert raw.table["mixed"].to_pylist()[-3:] == ["17", "t18", "true"]
    assert raw.table["tags"].to_pylist()[-2:] == [["x"], None]
    assert [entry[:2] for entry in set_aside(raw)] == [(20, "bad_value")]
    assert raw.untyped == {"mixed"}


def test_integers_beyond_64_bits_stay_exact(tmp_path: Path) -> None:
    raw = read(tmp_path / "a.jsonl", '{"item_id": 123456789012345678901234567890}\n')
    assert raw.table["item_id"].to_pylist() == ["123456789012345678901234567890"]


# ---- the others


def test_parquet_is_read_with_its_types_and_rubbish_refused(tmp_path: Path) -> None:
    table = pa.table({"item_id": [1, 2], "tags": [["a"], None]})
    pq.write_table(table, tmp_path / "a.parquet")
    raw = read_source(tmp_path / "a.parquet", PLAIN, "items")
    assert raw.table.equals(table)
    assert raw.lines.tolist() == [1, 2]
    with pytest.raises(BadInput, match="parquet"):
        read(tmp_path / "b.parquet", b"PAR1 and nothing else")


def test_arrow_and_pandas_come_without_a_file() -> None:
    assert read_source(pa.table({"item_id": ["a"]}), PLAIN, "items").table.to_pylist() == [{"item_id": "a"}]
    frame = pd.DataFrame({"item_id": [1, 2], "price": [1.5, None], "mixed": [1, "x"]}, index=[7, 8])
    raw = read_source(frame, PLAIN, "items")
    assert raw.table.to_pylist() == [
        {"item_id": 1, "price": 1.5, "mixed": "1"},
        {"item_id": 2, "price": None, "mixed": "x"},
    ]
    with pytest.raises(BadInput, match="dict"):
        read_source({"item_id": ["a"]}, PLAIN, "items")
    with pytest.raises(BadInput, match="no rows"):
        read_source(frame.iloc[:0], PLAIN, "items")


def test_a_folder_of_pictures_is_a_catalogue(tmp_path: Path) -> None:
    for name in ("red_mug-02.jpg", "sub/blue.PNG", "sub/.hidden.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    raw = read_source(tmp_path, PLAIN, "items")
    assert raw.table.to_pylist() == [
        {"item_id": "red_mug-02", "title": "red mug 02", "image": "red_mug-02.jpg"},
        {"item_id": "blue", "title": "blue", "image": "sub/blue.PNG"},
    ]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no pictures"):
        read_source(tmp_path, PLAIN, "items")
    with pytest.raises(BadInput, match="is a folder"):
        read_source(tmp_path, PLAIN, "interactions")


def test_a_file_name_that_is_no_text_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(b"x")
    with open(bytes(tmp_path) + b"/b\xff.png", "wb") as file:
        file.write(b"x")
    raw = read_source(tmp_path, PLAIN, "items")
    assert raw.table["item_id"].to_pylist() == ["good"]
    assert [entry[1] for entry in set_aside(raw)] == ["odd_path"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.org/items.csv", "URL"),
        ("s3://bucket/items.csv", "URL"),
        ("nowhere.csv", "no file"),
        ("/dev/null", "neither a file"),
    ],
)
def test_sources_that_are_no_local_file_are_refused(source: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_source(source, PLAIN, "items")


def test_an_unknown_kind_of_file_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a\.xlsx") as caught:
        read(tmp_path / "a.xlsx", b"x")
    assert ".parquet" in str(caught.value.remedy)


def test_rows_are_spelled_as_json_whatever_they_hold() -> None:
    table = pa.table(
        {
            'q"k': ['a"b\\c\n\t\r', None, "\x01 ctrl"],
            "n": [1, None, -5],
            "x": [1.5, None, 2.0],
            "b": [True, None, False],
            "l": [["p", 'q"'], None, []],
            "é": ["ü", "/", "'"],
        }
    )
    assert [json.loads(text) for text in rows_as_json(table).to_pylist()] == table.to_pylist()
