"""From files, folders and tables in memory to one raw Arrow table each; nothing is judged here but readability.

`read_source` picks the reader by what it is given: csv (tsv, gz), jsonl (gz), parquet, a folder of pictures, an
Arrow table or a pandas frame. A row that cannot be read at all is set aside with its line; a source that cannot be
read is refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from featurestore.errors import BadInput
from ingest.mapping import SourceMapping
from ingest.raw import Raw, Rejects

__all__ = ["Raw", "Rejects", "read_source"]

CSV = (".csv", ".tsv")
JSONL = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:/")


def read_source(source: Any, mapping: SourceMapping, role: str) -> Raw:
    """Read all of `source`.

    source: path, Arrow table or pandas frame. role: "items" or "interactions", for messages and names.
    Raises BadInput where the source does not exist, is of no known kind, or cannot be read as a whole.
    """
    if isinstance(source, str | Path):
        raw = _read_path(source, mapping, role)
    else:
        from ingest.readers.memory import read_memory

        raw = read_memory(source, role)
    if raw.table.num_rows == 0 and len(raw.rejects) == 0:
        raise BadInput(
            f"{raw.name} has columns ({', '.join(raw.table.column_names)}) and no rows",
            remedy="check that the export that wrote it ended; an empty source changes nothing, so it is refused",
        )
    return raw


def _read_path(source: str | Path, mapping: SourceMapping, role: str) -> Raw:
    if URL.match(str(source)):
        raise BadInput(
            f"'{source}' is a URL; only local files are read",
            remedy="fetch it first, then name the local file",
        )
    path = Path(source).expanduser()
    if not path.exists():
        raise BadInput(f"there is no file or folder {path}", remedy=f"check the path of the {role}")
    if path.is_dir():
        if role != "items":
            raise BadInput(
                f"{path} is a folder; {role} come as one file",
                remedy="name a csv, jsonl or parquet file inside it",
            )
        from ingest.readers.folder import read_folder

        return read_folder(path)
    if not path.is_file():
        raise BadInput(f"{path} is neither a file nor a folder", remedy="write it to an ordinary file first")
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(CSV):
        from ingest.readers.csv import read_csv

        return read_csv(path, mapping)
    if name.endswith(JSONL):
        from ingest.readers.jsonl import read_jsonl

        return read_jsonl(path, mapping)
    if path.name.lower().endswith(PARQUET):
        from ingest.readers.parquet import read_parquet

        return read_parquet(path)
    raise BadInput(
        f"{path.name} is of no kind that can be read",
        remedy="name a .csv, .tsv, .jsonl or .parquet file (csv and jsonl may be .gz), or a folder of pictures",
    )
