"""What `runs/` holds of users and items, and what is left of it once they are forgotten.

A run's vocabulary keeps its length, since a row of it is a row of the weights: a forgotten item's id is replaced by a
placeholder that no release has, so that nothing ranks it. The weights stay as they are, and are told of.
"""

from __future__ import annotations

import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore import release as releases
from featurestore.errors import NotFound
from featurestore.forget import Edits
from recommender.runs import MSR, PAIRS, Run, list_runs


def edits(store_root: Path, users: set[str], items: set[str]) -> Edits:
    """New contents of files under runs/, folders to take away, and the runs that learnt from one of them."""
    found = Edits()
    seen: dict[tuple[str | None, str], bool] = {}
    for run in list_runs(store_root):
        vocabulary = run.item_ids.tolist()
        if items & set(vocabulary):
            kept = [f"forgotten:{row}" if item in items else item for row, item in enumerate(vocabulary)]
            text = json.dumps(kept, indent=2, ensure_ascii=False) + "\n"
            found.contents[run.folder / "items.json"] = text.encode()
        for path in sorted(run.folder.glob("*_users.parquet")):
            content = _without(path, users, items)
            if content is not None:
                found.contents[path] = content
        pairs = run.folder / PAIRS
        if pairs.exists() and (content := _pairs_without(pairs, users, items)) is not None:
            found.contents[pairs] = content
        if (run.folder / "served").exists():
            found.remove.append(run.folder / "served")  # made again when it is asked for
        # a yes/no model reads of items that stand in no pair: those that make up a preference
        of_release = (run.release, run.kind)
        if of_release not in seen:
            seen[of_release] = _names(store_root, run, users, items if run.kind == MSR else set())
        if items & set(vocabulary) or seen[of_release]:
            found.learnt.append(run.name)
    return found


def _names(store_root: Path, run: Run, users: set[str], items: set[str]) -> bool:
    """Whether one of them is in the log that the run learnt from; taken to be so where that is not known."""
    if run.release is None or not (users or items):
        return bool(users or items)
    try:
        log = releases.open(store_root, run.release).events()
    except NotFound:
        return True
    wanted = (("user_id", users), ("item_id", items))
    return any(some & set(pc.unique(log[column]).to_pylist()) for column, some in wanted if some)


def _pairs_without(path: Path, users: set[str], items: set[str]) -> bytes | None:
    """A run's pairs without the groups that name one of them, or None where none does."""
    from recommender.msr.pairs import Pairs

    pairs = Pairs.load(path)
    keep = {
        name: ~np.isin(groups.users, list(users)) & ~np.isin(groups.items, list(items)).any(axis=1)
        for name, groups in pairs.parts.items()
    }
    if all(rows.all() for rows in keep.values()):
        return None
    parts = {name: groups.take(np.flatnonzero(keep[name])) for name, groups in pairs.parts.items()}
    with tempfile.TemporaryDirectory(prefix="dualview-forget-") as folder:
        replace(pairs, parts=parts).save(Path(folder) / path.name)
        return (Path(folder) / path.name).read_bytes()


def _without(path: Path, users: set[str], items: set[str]) -> bytes | None:
    """A file of one row a user without theirs, or None where it has none of theirs."""
    table = pq.read_table(path)
    rows = zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True)
    keep = [user not in users and item not in items for user, item in rows]
    if all(keep):
        return None
    out = io.BytesIO()
    pq.write_table(table.filter(keep), out)
    return out.getvalue()
