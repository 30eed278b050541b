"""Parquet, with the types it has. `line` is the row, counted from 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.errors import BadInput
from ingest.raw import Raw


def read_parquet(path: Path) -> Raw:
    try:
        table = pq.ParquetFile(path).read(use_threads=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise BadInput(
            f"{path} cannot be read as parquet ({error})", remedy="write or fetch it again"
        ) from error
    return Raw(str(path.resolve()), table.replace_schema_metadata(None), np.arange(1, table.num_rows + 1))
