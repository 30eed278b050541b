"""The process of one cell, which the runner starts; by hand:

python -m recommender.study.cell study.toml amazon--sasrec--id--0 --out runs --test
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from featurestore.errors import BadInput, DualviewError, did_you_mean
from recommender.study.grid import Study
from recommender.study.work import now, work

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
}
IDLE = 75  # exit code: there was nothing to do


def _end_with_starter() -> None:
    """End when standard input does: the runner holds its other end, and the kernel lets go when the runner dies."""
    with suppress(OSError):
        while os.read(0, 1):  # not sys.stdin: its lock, held at the end of the process, is a fatal error
            pass
    os._exit(143)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recommender.study.cell", description="Do one cell of a study."
    )
    parser.add_argument("study", type=Path, help="the study.toml")
    parser.add_argument("cell", help="name of a cell, such as amazon--sasrec--id--0")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs")
    parser.add_argument("--cells", type=Path, help="folder for records; by default cells, beside the study")
    parser.add_argument("--test", action="store_true", help="open the test set")
    parser.add_argument("--again", action="store_true", help="do it anew where it is outdated")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--claim", type=int, metavar="FILE", help="an open file that holds the cell")
    parser.add_argument("--leash", action="store_true", help="end when standard input ends")
    given = parser.parse_args(arguments)
    os.environ.update(ENVIRONMENT)  # torch is not imported yet
    if given.leash:
        threading.Thread(target=_end_with_starter, daemon=True).start()
    try:
        study = Study.read(given.study, cells=given.cells)
        cells = {cell.name: cell for cell in study.cells()}
        if given.cell not in cells:
            raise BadInput(
                f"study {study.name} has no cell '{given.cell}'", remedy=did_you_mean(given.cell, cells)
            )
        _say(f"{now()} {given.cell}: begun by process {os.getpid()}")
        state = work(
            study,
            cells[given.cell],
            given.out,
            test=given.test,
            again=given.again,
            device=given.device,
            told=_say,
            claimed=given.claim is not None,
        )
    except DualviewError as error:
        _say(f"error: {error!s}")
        return 1
    _say(f"{now()} {given.cell}: {state or 'nothing to do, or another process is at it'}")
    return IDLE if state is None else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
