"""A release as RecBole's atomic files: NAME.inter, NAME.item, NAME.FEATURE_emb for each feature of vectors, NAME.yaml.

Tab-separated text whose header gives each field a type (token, token_seq, float, float_seq); parts of a sequence have
a blank between them. NAME is the name of the folder, as RecBole expects it (data_path=PARENT, dataset=NAME). The file
of a feature is an additional one with its own id field, which NAME.yaml makes an alias of item_id and preloads; see
RecBole's guide "Load pre-trained embedding".

RecBole reads with pandas, for which a quote opens a quoted cell and NA is no value: quotes in texts become ', ids with
a quote are quoted, and an id that pandas would take for no value is refused. Events of items that left the catalogue
are left out. RecBole holds times as float32, exact to two minutes only; rows stand in each user's order, which its
stable sort keeps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.errors import BadInput
from featurestore.export.base import ROWS, Planned, Source
from featurestore.schema import EVENT, IMAGE, ITEM_ID, POSITION, TIMESTAMP, TITLE, USER_ID, VALUE, ValueKind

LABEL_WORDS = 3  # a text column of at most so many words on average is one of labels: a token, not a sequence
DIGITS = 12  # characters that a float32 takes, about
# what pandas reads as no value
NO_VALUE = pa.array(
    [
        *("NA", "<NA>", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "NULL", "null", "None"),
        *("NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    ]
)


def plan(source: Source, name: str) -> Iterator[Planned]:
    """name: of the data set, and so of the files."""
    release = source.release
    events = release.events()
    items = release.catalogue
    _check_ids(items[ITEM_ID], "item")
    _check_ids(pc.unique(events[USER_ID]), "user")
    inter, item = _inter_fields(events), _item_fields(items)
    vectors = [f for f in source.features if source.kind(f) is ValueKind.VECTOR]
    _check_fields("column", [column for column, _, _ in item])
    _check_fields("feature", vectors)
    ids = items[ITEM_ID].combine_chunks()
    yield Planned(f"{name}.inter", events.nbytes, partial(_write, events, inter, ids))
    yield Planned(f"{name}.item", items.nbytes, partial(_write, items, item, None))
    for feature in vectors:
        size = release.matrix(feature).values.size * DIGITS
        file = f"{name}.{_field(feature)}_emb"
        yield Planned(file, size, partial(_write_vectors, source, feature))
    config = _config(inter, item, [_field(feature) for feature in vectors])
    yield Planned(f"{name}.yaml", len(config), partial(_write_text, config))


Fields = list[tuple[str, str, str]]  # (column, field, type)


def _inter_fields(events: pa.Table) -> Fields:
    said = {name: len(events) - events[name].null_count for name in (TIMESTAMP, POSITION, VALUE)}
    fields = [(USER_ID, USER_ID, "token"), (ITEM_ID, ITEM_ID, "token")]
    fields += [(name, name, "float") for name in (TIMESTAMP, POSITION) if said[name]]
    if said[VALUE]:
        fields.append((VALUE, "rating", "float"))
    if len(pc.unique(events[EVENT])) > 1:
        fields.append((EVENT, EVENT, "token"))
    return fields


def _item_fields(items: pa.Table) -> Fields:
    fields = [(ITEM_ID, ITEM_ID, "token")]
    for field in items.schema:
        if field.name in (ITEM_ID, IMAGE) or field.name.startswith("_"):
            continue
        column = items[field.name]
        if pa.types.is_list(field.type):
            kind = "token_seq"
        elif pa.types.is_string(field.type):
            kind = "token" if field.name != TITLE and _labels(column) else "token_seq"
        else:
            kind = "float"
        fields.append((field.name, _field(field.name), kind))
    return fields


def _labels(column: pa.ChunkedArray) -> bool:
    words = pc.mean(pc.count_substring_regex(column, r"\S+")).as_py()
    return words is not None and words <= LABEL_WORDS


def _field(name: str) -> str:
    """A name that a header can hold: it ends at a colon, and a dot would part a file's suffix."""
    return "".join("_" if c in ":. \t" else c for c in name)


def _check_fields(what: str, names: list[str]) -> None:
    """Refuse two that would be one field, or one file. Raises BadInput."""
    fields: dict[str, str] = {}
    for name in names:
        other = fields.setdefault(_field(name), name)
        if other != name:
            raise BadInput(
                f"{what}s '{other}' and '{name}' would both be '{_field(name)}' in RecBole's files",
                remedy="rename one of them, or export to parquet",
            )


def _check_ids(ids: pa.ChunkedArray | pa.Array, what: str) -> None:
    lost = ids.filter(pc.is_in(ids, value_set=NO_VALUE))
    if len(lost):
        raise BadInput(
            f"RecBole reads the {what} id '{lost[0].as_py()}' as no value at all",
            remedy="give it another id before exporting to RecBole, or export to parquet",
        )


def _write(table: pa.Table, fields: Fields, only: pa.Array | None, path: Path) -> None:
    """only: item ids; rows of others are left out."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(f"{field}:{kind}" for _, field, kind in fields) + "\n")
        for start in range(0, len(table), ROWS):
            block = table.slice(start, ROWS).combine_chunks()
            if only is not None:
                block = block.filter(pc.is_in(block[ITEM_ID], value_set=only))
            cells = [_cells(block[column], kind, column in (ITEM_ID, USER_ID)) for column, _, kind in fields]
            _write_rows(file, cells)


def _write_rows(file: Any, cells: list[pa.Array]) -> None:
    if len(cells[0]):
        lines = pc.binary_join_element_wise(*cells, "\t")
        file.write("\n".join(lines.to_pylist()) + "\n")


def _cells(column: pa.ChunkedArray, kind: str, is_id: bool) -> pa.Array:
    """A column as texts, without tabs, line breaks and quotes; "" for NULL."""
    if pa.types.is_list(column.type):
        parts = column.combine_chunks()
        words = pc.replace_substring_regex(_clean(parts.flatten()), r"\s+", "_")  # one entry, one token
        lengths = pc.fill_null(pc.list_value_length(parts), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.r_[0, np.cumsum(lengths)], pa.int32())
        return pc.binary_join(pa.ListArray.from_arrays(offsets, words), " ")
    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.int64())
    text = pc.fill_null(pc.cast(column, pa.string()), "").combine_chunks()
    if kind == "float":
        return text
    if not is_id:
        return _clean(text)
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
    return pc.if_else(pc.match_substring(text, '"'), quoted, text)


def _clean(text: pa.Array) -> pa.Array:
    plain = pc.replace_substring_regex(pc.fill_null(text, ""), r"[\x00-\x1f\x7f\x{85}\x{2028}\x{2029}]+", " ")
    return pc.replace_substring(plain, '"', "'")


def _write_vectors(source: Source, feature: str, path: Path) -> None:
    matrix, field = source.release.matrix(feature), _field(feature)
    dim = matrix.values.shape[1]
    step = max(1, ROWS * 16 // dim)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"{field}_id:token\t{field}_emb:float_seq\n")
        for start in range(0, len(matrix), step):
            block = matrix.values[start : start + step]
            numbers = pc.cast(pa.array(np.ascontiguousarray(block).ravel()), pa.string())
            offsets = pa.array(np.arange(len(block) + 1) * dim, pa.int32())
            ids = pa.chunked_array([pa.array(matrix.ids[start : start + step].tolist(), pa.string())])
            vectors = pc.binary_join(pa.ListArray.from_arrays(offsets, numbers), " ")
            _write_rows(file, [_cells(ids, "token", True), vectors])


def _config(inter: Fields, item: Fields, vectors: list[str]) -> str:
    """NAME.yaml: what RecBole has to be told to read these files. JSON's lists and texts are YAML's too."""
    known = [field for _, field, _ in inter]
    lines = ["# python -m recbole.quick_start or run_recbole(config_file_list=[this file], ...)"]
    lines += [f"USER_ID_FIELD: {USER_ID}", f"ITEM_ID_FIELD: {ITEM_ID}"]
    if TIMESTAMP in known or POSITION in known:
        lines.append(f"TIME_FIELD: {TIMESTAMP if TIMESTAMP in known else POSITION}")
    if "rating" in known:
        lines.append("RATING_FIELD: rating")
    lines += ["load_col:", f"  inter: {json.dumps(known)}"]
    lines.append(f"  item: {json.dumps([field for _, field, _ in item], ensure_ascii=False)}")
    lines += [f"  {name}_emb: {json.dumps([f'{name}_id', f'{name}_emb'])}" for name in vectors]
    if vectors:
        lines.append(f"additional_feat_suffix: {json.dumps([f'{name}_emb' for name in vectors])}")
        lines.append(f"alias_of_item_id: {json.dumps([f'{name}_id' for name in vectors])}")
        lines.append("preload_weight:")
        lines += [f"  {name}_id: {name}_emb" for name in vectors]
    return "\n".join(lines) + "\n"


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
