"""Two or more ways to do the same work, run in turn, compared by their medians.

Runs are interleaved (a, b, a, b, ...) so that a machine that slows down slows all of them alike. What is reported is
the ratio of medians and, as its spread, the least and greatest ratio of neighbouring runs.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

RUNS = 7
OUT = Path(__file__).parent / "out"


@dataclass
class Comparison:
    """`ours` against `peer`: ratio above 1 means that ours is faster."""

    name: str
    what: str
    ours: Callable[[], object]
    peer: Callable[[], object]
    work: float  # units done in one run
    unit: str  # of `work`
    target: float  # the ratio that is promised
    before: Callable[[], object] = field(default=lambda: None)  # run before each measurement, not timed


def measure(case: Comparison, runs: int = RUNS) -> dict[str, object]:
    case.before()
    case.ours()  # first calls load and compile; they are not measured
    case.before()
    case.peer()
    ours, peer = [], []
    for _ in range(runs):
        for action, times in ((case.ours, ours), (case.peer, peer)):
            case.before()
            start = time.perf_counter()
            action()
            times.append(time.perf_counter() - start)
    ratios = [theirs / mine for theirs, mine in zip(peer, ours, strict=True)]
    mine, theirs = statistics.median(ours), statistics.median(peer)
    return {
        "name": case.name,
        "what": case.what,
        "ours": case.work / mine,
        "peer": case.work / theirs,
        "unit": f"{case.unit}/s",
        "ratio": theirs / mine,
        "spread": [min(ratios), max(ratios)],
        "target": case.target,
        "reached": theirs / mine >= case.target,
        "runs": runs,
    }


def environment() -> dict[str, str]:
    packages = (
        "torch",
        "faiss-cpu",
        "lancedb",
        "pylance",
        "duckdb",
        "numpy",
        "pyarrow",
        "sentence-transformers",
    )
    facts = {name: version(name) for name in packages}
    return facts | {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": str(os.cpu_count()),
    }


def drop_cached(folder: Path) -> None:
    """Ask the kernel to forget the files under `folder`, so that the next read is cold."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)


def save(name: str, rows: list[dict[str, object]]) -> Path:
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.json"
    path.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=1) + "\n")
    return path
