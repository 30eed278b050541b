"""The optional mapping file: how a source's columns become ours. Without one, names speak for themselves.

    encoding = "latin-1"                # csv and jsonl; UTF-8 unless said
    delimiter = ";"                     # csv; a comma unless said (a tab in .tsv)
    images_root = "pictures"            # what image paths are relative to; itself relative to this file
    drop = ["internal_note"]

    [rename]                            # the source's name = ours
    asin = "item_id"

    [columns.genres]                    # under our name
    type = "list"                       # string, integer, number, boolean or list; inferred unless said
    separator = "|"

    [columns.price]
    type = "number"                     # "$1,299.00" is read as 1299.0; with decimal = "," so is "1.299,00 €"

    [interactions]                      # the same keys for the log
    rename = { uid = "user_id" }
    [interactions.columns.timestamp]
    unit = "ms"                         # s, ms, us or ns; told from the size of the number unless said

Unknown keys are refused, and so are columns that the source does not have: a misspelt name never goes unnoticed.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from featurestore.errors import BadInput, did_you_mean
from ingest.raw import Raw

TYPES = ("string", "integer", "number", "boolean", "list")


class ColumnSpec(BaseModel):
    """What is said about one column."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["string", "integer", "number", "boolean", "list"] | None = None
    separator: str | None = Field(default=None, min_length=1)  # between the parts of a list; "|" unless said
    decimal: Literal[".", ","] | None = None  # of a number; "." unless said
    unit: Literal["s", "ms", "us", "ns"] | None = None  # of a timestamp

    @model_validator(mode="after")
    def _fits(self) -> ColumnSpec:
        if self.separator is not None and self.type != "list":
            raise ValueError('separator belongs to type = "list"')
        if self.decimal is not None and self.type not in ("number", "integer"):
            raise ValueError('decimal belongs to type = "number" or "integer"')
        if self.unit is not None and self.type is not None:
            raise ValueError("unit is for a timestamp, which takes no type")
        return self


class SourceMapping(BaseModel):
    """What is said about one source."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoding: str = "utf-8"
    delimiter: str | None = None
    rename: dict[str, str] = {}
    drop: list[str] = []
    columns: dict[str, ColumnSpec] = {}

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or not value.isascii() or value in '"\r\n'):
            raise ValueError("a delimiter is one ASCII character")
        return value

    def spec(self, column: str) -> ColumnSpec:
        return self.columns.get(column, ColumnSpec())


class Mapping(SourceMapping):
    """What is said about the catalogue (the keys at the top) and about the log (under `interactions`)."""

    images_root: Path | None = None
    interactions: SourceMapping = SourceMapping()


def read_mapping(given: str | Path | Mapping | None) -> Mapping:
    """The mapping of a TOML file; an empty one without a file. Raises BadInput naming the file and the key."""
    if isinstance(given, Mapping):
        return given
    if given is None:
        return Mapping()
    path = Path(given)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"there is no mapping file {path}", remedy="check its path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadInput(
            f"{path} cannot be read as TOML ({error})", remedy="see the guide on ingesting for an example"
        ) from error
    try:
        mapping = Mapping.model_validate(content)
    except ValidationError as error:
        raise _refusal(path, error) from error
    if mapping.images_root is not None:
        mapping = mapping.model_copy(update={"images_root": path.parent / mapping.images_root.expanduser()})
    return mapping


def our_name(name: str, mapping: SourceMapping, known: Iterable[str] = ()) -> str:
    """What a column of a source is called here: as the mapping says, and where only case differs, which SQL ignores,
    as one that is known.
    """
    ours = mapping.rename.get(name, name).strip()
    return {each.lower(): each for each in known}.get(ours.lower(), ours)


def apply_names(raw: Raw, mapping: SourceMapping, known: Iterable[str] = ()) -> pa.Table:
    """The source's table under our names: dropped and renamed as said, every name fit to be a column of a table.

    known: columns that there are, or that mean something. Raises BadInput for names that are empty, twice there,
    reserved, or that the mapping names and the source has not.
    """
    names = list(raw.table.column_names)
    for said, where in ((mapping.rename, "rename"), (mapping.drop, "drop")):
        for name in said:
            if name not in names:
                raise BadInput(
                    f"the mapping's {where} names column '{name}', which {raw.name} has not",
                    remedy=did_you_mean(name, names),
                )
    keep = [place for place, name in enumerate(names) if name not in mapping.drop]
    table = raw.table.select(keep)
    ours = [our_name(name, mapping, known) for name in table.column_names]
    for place, name in enumerate(ours, start=1):
        problem = _unfit(name)
        if problem:
            raise BadInput(
                f"column {place} of {raw.name} ('{name}') {problem}",
                remedy="rename it in the source, or under [rename] of a mapping file",
            )
    twice = [name for name, count in Counter(name.lower() for name in ours).items() if count > 1]
    if twice:
        raise BadInput(
            f"{raw.name} has more than one column '{twice[0]}' (upper and lower case count as the same)",
            remedy="rename one of them in the source, or drop it in a mapping file",
        )
    for name in mapping.columns:
        if name not in ours:
            raise BadInput(
                f"the mapping describes column '{name}', which {raw.name} has not",
                remedy=did_you_mean(name, ours),
            )
    return table.rename_columns(ours)


def _unfit(name: str) -> str:
    if not name:
        return "has no name (pandas writes its index so; index=False leaves it out)"
    if name.startswith("_"):
        return "begins with an underscore, which is for columns that the store keeps itself"
    if "." in name or "`" in name or '"' in name:
        return "has a dot or a quote in its name, which tables and queries cannot spell"
    if not name.isprintable() or len(name.encode()) > 128:
        return "has a name that cannot be printed or is longer than 128 bytes"
    return ""


def _refusal(path: Path, error: ValidationError) -> BadInput:
    first: Any = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    key = ".".join(place)
    if first["type"] == "extra_forbidden":
        inside_column = len(place) >= 3 and place[-3] == "columns"
        known: type[BaseModel] = (
            ColumnSpec if inside_column else SourceMapping if place[0] == "interactions" else Mapping
        )
        return BadInput(f"{path}: unknown key '{key}'", remedy=did_you_mean(place[-1], known.model_fields))
    message = str(first["msg"]).removeprefix("Value error, ")
    return BadInput(
        f"{path}: {key or 'mapping'}: {message}", remedy="see the guide on ingesting for an example"
    )
