"""The text document of an item: its title and text columns as one string, which text encoders read.

    Toy Story
    genres: Animation, Children's
    description: A cowboy doll is ...

The title stands bare on the first line. Names of the other columns are written before their values (`labels`), which
helps a sentence encoder to tell a brand from a colour; a bag of words does without them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from featurestore.recipe import FEATURE
from featurestore.schema import TITLE


def documents(table: pa.Table, columns: Sequence[str], *, labels: bool = True) -> list[str]:
    """One document a row of `table`, from `columns` in their order; "" where all of them are empty.

    Strings are stripped, list entries joined with ", ", other types written as Arrow prints them; NULL and "" are left
    out. An item of which only one value is there gets that value, without its name.
    """
    names = [f"{name.removeprefix(FEATURE)}: " if labels and name != TITLE else "" for name in columns]
    rows = zip(*(texts(table[name]) for name in columns), strict=True)
    return [_joined(names, row) for row in rows]


def _joined(names: Sequence[str], values: Sequence[str]) -> str:
    there = [(name, value) for name, value in zip(names, values, strict=True) if value]
    return there[0][1] if len(there) == 1 else "\n".join(name + value for name, value in there)


def texts(column: pa.ChunkedArray) -> list[str]:
    """A column as stripped strings, "" for NULL."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [
            ", ".join(str(v) for v in values if v is not None).strip() if values else ""
            for values in column.to_pylist()
        ]
    strings = column if pa.types.is_string(kind) else column.cast(pa.string())
    return pc.utf8_trim_whitespace(pc.fill_null(strings, "")).to_pylist()  # type: ignore[no-any-return]
