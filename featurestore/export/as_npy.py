"""A release's vectors as NAME.npy, float32 (n, dim), with NAME.ids.txt, one item id a line in the order of the rows,
and NAME.json, which says what made them. Of a feature of several vectors an item, NAME.offsets.npy says whose they
are: item i has rows offsets[i] to offsets[i + 1].
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from featurestore import files
from featurestore.export.base import Planned, Source
from featurestore.schema import ValueKind


def plan(source: Source) -> Iterator[Planned]:
    for name in source.features:
        if source.kind(name) is not ValueKind.TEXT:
            yield from _feature(source, name)


def _feature(source: Source, name: str) -> Iterator[Planned]:
    matrix = source.release.matrix(name)
    stored = source.release.paths(name)
    for part, target in (("values", f"{name}.npy"), ("offsets", f"{name}.offsets.npy")):
        if part in stored:
            path = stored[part]
            yield Planned(target, path.stat().st_size, partial(_copy, path))
    said: dict[str, Any] = source.origin(name) | {
        "values": f"{name}.npy",
        "ids": f"{name}.ids.txt",
        "items": len(matrix),
        "dim": int(matrix.values.shape[1]),
        "dtype": "float32",
    }
    if matrix.offsets is not None:
        said["offsets"] = f"{name}.offsets.npy"
    yield Planned(f"{name}.ids.txt", _size(matrix.ids), partial(_write_ids, matrix.ids))
    yield Planned(f"{name}.json", len(json.dumps(said)), lambda path: files.write_json(path, said))


def _copy(path: Path, to: Path) -> None:
    shutil.copyfile(path, to)


def _size(ids: np.ndarray) -> int:
    return int(np.char.str_len(ids).sum()) + len(ids)


def _write_ids(ids: np.ndarray, path: Path) -> None:
    """No id holds a line break: ingest refuses them."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{item}\n" for item in ids.tolist())
