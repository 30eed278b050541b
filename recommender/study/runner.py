"""Fills the grid: one process a cell, a few side by side, until nothing is left or time is up.

Several runners may share `out`, on one machine or on a file system with locks: a cell is claimed by the process that
trains it. A cell's failure is reported, and the others go on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import recommender
from featurestore.errors import BadInput
from featurestore.files import make_folder
from recommender.study import claims
from recommender.study.cell import ENVIRONMENT, IDLE
from recommender.study.grid import Cell, Study
from recommender.study.state import Sources, State, judge
from recommender.study.work import LOG, folder_of

POLL_SECONDS = 0.05
GRACE_SECONDS = 10.0  # to end before it is killed; a checkpoint is whole either way

DONE, OUTDATED, ELSEWHERE = "done before", "outdated", "under way elsewhere"
FINISHED, FAILED, STOPPED, LEFT = "finished", "failed", "stopped", "not begun"


@dataclass(frozen=True)
class Outcome:
    """How it went with one cell. what: one of the words above; says: why, where it did not finish."""

    cell: str
    what: str
    seconds: float = 0.0
    says: str | None = None
    log: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Job:
    cell: Cell
    process: subprocess.Popen[bytes]
    log: Path
    size: int  # of the log before it began
    begun: float


def ordered(cells: Sequence[Cell], sources: Sources) -> list[Cell]:
    """Data sets with fewer events first; inside one the baselines, then seed by seed."""
    return sorted(cells, key=lambda cell: sources.release(cell.data).n_events)


def todo(
    cells: Sequence[Cell], sources: Sources, *, test: bool, again: bool
) -> tuple[list[Cell], list[Outcome]]:
    """The cells that have something left to do, in order, and what becomes of the others."""
    left, others = [], []
    for cell in ordered(cells, sources):
        state, why = judge(cell, sources)
        if state is State.OUTDATED and not again:
            others.append(Outcome(cell.name, OUTDATED, says=why))
        elif state is State.TESTED or (state is State.TRAINED and not test):
            others.append(Outcome(cell.name, DONE))
        else:
            left.append(cell)
    return left, others


def run(
    study: Study,
    cells: Sequence[Cell],
    out: Path,
    *,
    jobs: int = 1,
    test: bool = False,
    again: bool = False,
    device: str = "auto",
    until: float | None = None,
    told: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Do the cells that are not done; returns how it went with each, in the order in which that was known.

    jobs: processes at a time. test: open the test set of each. again: outdated cells too. until: seconds after which
    what is under way is stopped, to go on from its last epoch the next time. told: called with each outcome.
    """
    if jobs < 1:
        raise BadInput(f"jobs must be at least 1, got {jobs}")
    begun = time.monotonic()
    sources = Sources(study)
    left, outcomes = todo(cells, sources, test=test, again=again)
    waiting, running = deque(left), list[_Job]()

    def late() -> bool:
        return until is not None and time.monotonic() - begun >= until

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if told is not None:
            told(outcome)

    try:
        while (waiting or running) and not late():
            while waiting and len(running) < jobs:
                cell = waiting.popleft()
                handle = claims.take(out, cell.name)
                if handle is None:
                    tell(Outcome(cell.name, ELSEWHERE))
                    continue
                try:
                    if todo([cell], sources, test=test, again=again)[0]:
                        running.append(_start(study, cell, out, test, again, device, handle))
                    else:  # another runner was here meanwhile
                        tell(Outcome(cell.name, DONE))
                finally:
                    os.close(handle)  # the cell's process holds its own
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                tell(_ended(job))
            time.sleep(POLL_SECONDS)
    finally:
        for job in running:
            job.process.terminate()
        for job in running:
            _wait(job.process)
    for job in running:
        tell(
            Outcome(job.cell.name, STOPPED, _since(job.begun), "it goes on from its last epoch", str(job.log))
        )
    for cell in waiting:
        tell(Outcome(cell.name, LEFT))
    return outcomes


def _start(study: Study, cell: Cell, out: Path, test: bool, again: bool, device: str, handle: int) -> _Job:
    """handle: an open file that holds the cell, for its process to inherit."""
    folder = folder_of(out, cell)
    make_folder(folder.resolve())
    log = folder / LOG
    command = [sys.executable, "-m", "recommender.study.cell", str(study.path.resolve()), cell.name]
    command += ["--out", str(out.resolve()), "--cells", str(study.folder.resolve()), "--device", device]
    command += ["--leash", "--claim", str(handle)]
    command += ["--test"] * test + ["--again"] * again
    home = str(Path(recommender.__file__).resolve().parents[1])
    above = [home, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    with log.open("ab") as file:
        size = file.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # never written to: it ends with this process, and the cell with it
            stdout=file,
            stderr=file,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(above)},
            pass_fds=[handle],
            start_new_session=True,  # Ctrl-C is this process's to pass on
        )
    return _Job(cell, process, log, size, time.monotonic())


def _ended(job: _Job) -> Outcome:
    _wait(job.process)
    code, seconds, log = job.process.returncode, _since(job.begun), str(job.log)
    if code == 0:
        return Outcome(job.cell.name, FINISHED, seconds, log=log)
    if code == IDLE:
        return Outcome(job.cell.name, DONE, log=log)
    return Outcome(job.cell.name, FAILED, seconds, _reason(job, code), log)


def _reason(job: _Job, code: int) -> str:
    with job.log.open("rb") as file:
        file.seek(job.size)
        lines = file.read().decode(errors="replace").splitlines()
    if code < 0:
        return f"ended by signal {-code}"
    refused = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    said = [line for line in lines if line.strip()]
    return refused[-1] if refused else said[-1] if said else f"exit code {code}"


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 2)
