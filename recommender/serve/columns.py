"""The catalogue's columns for whoever looks at it: what a filter can name, and what a map can be coloured by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore import schema
from featurestore.errors import NotFound, did_you_mean
from featurestore.release import Release

if TYPE_CHECKING:
    from featurestore.store import Store

Kind = Literal["text", "number", "list", "yes or no", "time"]
COMMON = 8  # values of a column that are named
GROUPS = 9  # colours that can be told apart
FEW = 200  # distinct values up to which a column of texts is one of groups, if each has several items
JOINED = "|"  # between several values in one text, as MovieLens writes genres


_kept: WeakKeyDictionary[Release, list[Column]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Column:
    """One column. common: its most frequent values, where they say something; least and greatest: of numbers.

    grouped: items can be told apart by it, so that a map can be coloured.
    """

    name: str
    kind: Kind
    common: list[str]
    least: float | None
    greatest: float | None
    grouped: bool


@dataclass(frozen=True, eq=False)
class Colours:
    """What each of a release's items is coloured by.

    groups: names of the most frequent values, with counts; codes: (n,) int16, an item's group, len(groups) for another
    value and -1 for none. Or, of a column of numbers, values: (n,) float64, NaN for none.
    """

    groups: list[tuple[str, int]]
    codes: npt.NDArray[np.int16] | None
    values: npt.NDArray[np.float64] | None


def columns(release: Release) -> list[Column]:
    """The columns that items have, in the catalogue's order, without ids and paths of pictures. Kept."""
    if release not in _kept:
        named = [name for name in release.shown.schema.names if name not in (schema.ITEM_ID, schema.IMAGE)]
        _kept[release] = [_column(name, release.catalogue[name]) for name in named]
    return _kept[release]


def picture_ratio(store: Store | None) -> float | None:
    """Width by height of the store's pictures, the median; None without any, or where there is only a release."""
    if store is None or not store.tables.exists(schema.IMAGES):
        return None
    sizes = store.tables.read(schema.IMAGES, columns=["width", "height"])
    ratios = np.asarray(pc.divide(sizes["width"].cast(pa.float64()), sizes["height"]))
    ratios = ratios[np.isfinite(ratios)]
    return round(float(np.median(ratios)), 3) if len(ratios) else None


def colours(release: Release, name: str) -> Colours:
    """Raises NotFound for a column that is not there or that does not tell items apart."""
    found = {column.name: column for column in columns(release) if column.grouped}
    if name not in found:
        raise NotFound(f"items cannot be coloured by '{name}'", remedy=did_you_mean(name, found))
    values = release.catalogue[name]
    if found[name].kind == "number":
        numbers = values.cast(pa.float64(), safe=False).fill_null(float("nan"))
        return Colours([], None, np.asarray(numbers, np.float64))
    firsts = _firsts(values)
    counted = _counted(firsts)[:GROUPS]
    codes = pc.index_in(firsts, pa.array([value for value, _ in counted], pa.string()))
    other = pc.if_else(pc.is_null(firsts), -1, len(counted))
    return Colours(counted, np.asarray(pc.coalesce(codes, other), np.int16), None)


def _column(name: str, values: pa.ChunkedArray) -> Column:
    kind = _kind(values.type)
    if kind == "number":
        bounds = pc.min_max(values)
        least, greatest = (_number(bounds[end]) for end in ("min", "max"))
        return Column(name, kind, [], least, greatest, least is not None and least != greatest)
    counted = _counted(_firsts(values)) if kind != "time" else []
    several = bool(counted) and counted[0][1] > 1 and 1 < len(counted) <= FEW
    common = [value for value, _ in counted[:COMMON]] if several else []
    return Column(name, kind, common, None, None, several)


def _kind(of: pa.DataType) -> Kind:
    if pa.types.is_boolean(of):
        return "yes or no"
    if pa.types.is_integer(of) or pa.types.is_floating(of) or pa.types.is_decimal(of):
        return "number"
    if pa.types.is_list(of) or pa.types.is_large_list(of) or pa.types.is_fixed_size_list(of):
        return "list"
    if pa.types.is_temporal(of):
        return "time"
    return "text"


def _firsts(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The first of an item's values, as text: of a list, or of several that a text joins by |."""
    if _kind(values.type) == "list":
        lengths = pc.fill_null(pc.list_value_length(values), 0)
        full = pc.if_else(pc.greater(lengths, 0), values, pa.scalar(None, values.type))
        values = pc.list_element(full, 0)
    texts = values.cast(pa.string())
    return pc.replace_substring_regex(texts, f"\\s*\\{JOINED}.*", "")


def _counted(values: pa.ChunkedArray) -> list[tuple[str, int]]:
    """Distinct values and how many items have each, the most frequent first."""
    found = pc.value_counts(values.drop_null())
    pairs = zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)
    return sorted(((value, n) for value, n in pairs if value), key=lambda pair: (-pair[1], pair[0]))


def _number(value: Any) -> float | None:
    found = value.as_py()
    return None if found is None else float(found)
