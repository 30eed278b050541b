"""What `runs/` holds of users and items, and what is left of it once they are forgotten.

A run's vocabulary keeps its length, since a row of it is a row of the weights: a forgotten item's id is replaced by a
placeholder that no release has, so that nothing ranks it. The weights stay as they are, and are told of.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore import release as releases
from featurestore.errors import NotFound
from featurestore.forget import Edits
from recommender.runs import Run, list_runs


def edits(store_root: Path, users: set[str], items: set[str]) -> Edits:
    """New contents of files under runs/, folders to take away, and the runs that learnt from one of them."""
    found = Edits()
    seen: dict[str | None, bool] = {}
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
        if (run.folder / "served").exists():
            found.remove.append(run.folder / "served")  # made again when it is asked for
        if run.release not in seen:
            seen[run.release] = _names_user(store_root, run, users)
        if items & set(vocabulary) or seen[run.release]:
            found.learnt.append(run.name)
    return found


def _names_user(store_root: Path, run: Run, users: set[str]) -> bool:
    """Whether one of the users is in the log that the run learnt from; taken to be so where that is not known."""
    if not users or run.release is None:
        return bool(users)
    try:
        log = releases.open(store_root, run.release).events()
    except NotFound:
        return True
    return any(user in users for user in pc.unique(log["user_id"]).to_pylist())


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
