"""Items as answers show them: a card of id, title, picture and attributes, and its JSON, made once and kept.

The texts that models wrote (catalogue columns `feature_NAME`) are on an item's own page only.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from featurestore import schema
from featurestore.release import Cell

if TYPE_CHECKING:
    from featurestore.release import Release

KEPT = 100_000_000  # characters of cards that are kept as JSON
TEXT = "feature_"  # before the name of a feature in a column of its texts
OWN = (schema.ITEM_ID, schema.TITLE, schema.IMAGE)


class Cards:
    """The cards of one release. Safe to use from several threads."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._table = release.catalogue
        self._attributes = [
            n for n in self._table.column_names if n not in OWN and not n.startswith(("_", TEXT))
        ]
        columns = [self._table[schema.ITEM_ID], self._column(schema.TITLE)]
        columns.append(pc.is_valid(self._column(schema.IMAGE_SHA256)))
        columns += [self._table[name] for name in self._attributes]
        table = pa.table(columns, names=[str(place) for place in range(len(columns))])
        batches = table.to_batches()
        self._rows: pa.Table | pa.RecordBatch = batches[0] if len(batches) == 1 else table
        self._json: OrderedDict[int, str] = OrderedDict()
        self._size, self._keeping = 0, threading.Lock()

    def _column(self, name: str) -> Any:
        """A column that a catalogue may lack: then all null."""
        there = name in self._table.column_names
        return self._table[name] if there else pa.nulls(len(self._table), pa.string())

    @property
    def attributes(self) -> list[str]:
        """Columns of the catalogue beside id, title and picture."""
        return self._attributes

    def of(self, rows: Iterable[int]) -> list[dict[str, Any]]:
        """The cards of rows of the release."""
        wanted = list(rows)
        if not wanted:
            return []
        picked = self._rows.take(pa.array(wanted, pa.int64()))
        ids, titles, has, *rest = (column.to_pylist() for column in picked.columns)
        values = zip(*rest, strict=True) if rest else ((),) * len(ids)
        return [
            {
                "id": name,
                "title": title,
                "picture": f"/v1/items/{quote(name, safe='')}/picture" if there else None,
                "attributes": dict(zip(self._attributes, map(plain, each), strict=True)),
            }
            for name, title, there, each in zip(ids, titles, has, values, strict=True)
        ]

    def json(self, rows: Sequence[int]) -> list[str]:
        """The same as JSON objects without their last bracket, so that more can be added."""
        kept = self._json
        found = [kept.get(row) for row in rows]
        if None in found:
            missing = [row for row, text in zip(rows, found, strict=True) if text is None]
            made = {row: dumps(card)[:-1] for row, card in zip(missing, self.of(missing), strict=True)}
            self._keep(made)
            return [text if text is not None else made[row] for row, text in zip(rows, found, strict=True)]
        return [text for text in found if text is not None]

    def _keep(self, made: dict[int, str]) -> None:
        with self._keeping:
            for row, text in made.items():
                self._size += len(text) - len(self._json.get(row, ""))
                self._json[row] = text
            while self._size > KEPT:
                self._size -= len(self._json.popitem(last=False)[1])

    def page(self, row: int) -> dict[str, Any]:
        """All that the release has of an item: its card, texts by feature, and which vectors it has."""
        (card,) = self.of([row])
        (whole,) = self._table.slice(row, 1).to_pylist()
        card["texts"] = {n[len(TEXT) :]: v for n, v in whole.items() if n.startswith(TEXT) and v is not None}
        card["image"] = whole.get(schema.IMAGE)
        card["features"] = {name: self._cell(name, row) for name in self._release.features}
        return card

    def _cell(self, feature: str, row: int) -> dict[str, Any]:
        facts = self._release.facts(feature)
        state = self._release.cell(feature, row)
        told = {"holds": str(facts["kind"]), "state": state.name.lower(), "dim": facts["dim"], "count": None}
        if facts["kind"] == schema.ValueKind.VECTORS and state is Cell.OK:
            matrix = self._release.matrix(feature)
            place = matrix.place_of(row)
            assert matrix.offsets is not None
            told["count"] = int(matrix.offsets[place + 1] - matrix.offsets[place])
        return told


def plain(value: Any) -> Any:
    """A value of the catalogue as JSON has it: times in ISO 8601, what is no finite number as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def dumps(value: Any) -> str:
    """Compact JSON. Raises ValueError for a number that JSON has not."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
