"""What a cell leaves for good: a small JSON file of figures and a Parquet file of ranks, both fit for git.

    CELLS/amazon--sasrec--id--0.json            options, data, figures, costs; written last, with it the cell is done
    CELLS/amazon--sasrec--id--0.ranks.parquet   one row a user of the split, in the split's order; no ids

Ranks are kept for each user so that models can be compared in pairs; a row means the same user in all cells whose
`split_hash` is the same.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.files import replacing
from recommender.study.grid import Study
from recommender.study.state import Sources, State, judge

if TYPE_CHECKING:
    from recommender.evaluate import Result
    from recommender.splits import Split


def results(study: Study, *, tested: bool = False) -> list[dict[str, Any]]:
    """The record of every cell of the study that is done, in the order of `study.cells()`; outdated ones are left out.

    A record has study, cell, data, backbone, tower, seed (the three are None for a baseline, which `baseline` names),
    config, valid and test ({"metrics", "groups", ...}; test is None while it is closed), split_hash, cost and what else
    docs/study.md names; here also "ranks", the path of its ranks or None. tested: only those whose test was opened.
    """
    sources = Sources(study)
    wanted = (State.TESTED,) if tested else (State.TRAINED, State.TESTED)
    done = (cell for cell in study.cells() if judge(cell, sources)[0] in wanted)
    return [
        record | {"ranks": str(cell.ranks_file) if cell.ranks_file.exists() else None}
        for cell in done
        if (record := cell.record()) is not None
    ]


def ranks(path: Path) -> pa.Table:
    """rank_valid, rank_test, history (events before the test target), target_count (its training events), all int32.

    0 where a user has no such target; rank_test is null while the test is closed.
    """
    return pq.read_table(path)


def write_ranks(
    path: Path, split: Split, rank_valid: npt.NDArray[Any], rank_test: npt.NDArray[Any] | None
) -> None:
    """rank_valid, rank_test: (n_users,), 0 where a user has no such target."""
    users = split.users("test")
    first, target = split.history(users, "test")
    history, count = (np.zeros(split.log.n_users, dtype=np.int32) for _ in range(2))
    history[users] = target - first
    count[users] = split.counts[split.targets("test")]
    columns = {
        "rank_valid": pa.array(rank_valid, pa.int32()),
        "rank_test": pa.nulls(len(rank_valid), pa.int32())
        if rank_test is None
        else pa.array(rank_test, pa.int32()),
        "history": pa.array(history),
        "target_count": pa.array(count),
    }
    with replacing(path) as aside:
        pq.write_table(pa.table(columns), aside, compression="zstd")


def of_users(result: Result, split: Split) -> npt.NDArray[np.int32]:
    """(n_users,) int32: rank of each user of the split, 0 where the user has no target."""
    found = np.zeros(split.log.n_users, dtype=np.int32)
    found[result.users] = result.ranks
    return found


def figures(result: Result) -> dict[str, Any]:
    """What a record keeps of an evaluation."""
    whole = result.to_dict()
    names = ("users", "items", "metrics", "groups", "tied_times", "tied_scores", "repeat_targets", "seconds")
    return {name: whole[name] for name in names}


def commit() -> str | None:
    """The git commit of this code, "-dirty" where code was edited since; None where it is not run from a checkout.

    Records are no code: a study that replaces some of them does not make the next cells dirty.
    """
    here = Path(__file__)
    found = _git(here, "rev-parse", "HEAD") if _git(here, "ls-files", here.name) else None
    if not found:
        return None
    return found + (
        "-dirty" if _git(here, "status", "--porcelain", "-uno", "--", ":(top,glob)**/*.py") else ""
    )


def _git(here: Path, *asked: str) -> str | None:
    """What git says, None where it fails or is not there."""
    try:
        done = subprocess.run(
            ("git", *asked),
            cwd=here.parent,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
