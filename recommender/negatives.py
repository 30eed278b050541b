"""The items that a sampled protocol ranks a target against: drawn once from a seed, kept, and named by a
hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.errors import BadInput, NotFound
from featurestore.files import replacing
from recommender.events import Int32, Int64
from recommender.ranking import ranges
from recommender.splits import Split, Which

METADATA = b"dualview.negatives"


@dataclass(frozen=True, eq=False)
class Negatives:
    """users: (m,) int64, all users with a target. items: (m, n) int32, distinct rows of the item
    vocabulary."""

    split_hash: str
    which: Which
    seed: int
    users: Int64
    items: Int32

    @cached_property
    def hash(self) -> str:
        """sha256 over split, purpose, users and items."""
        digest = hashlib.sha256(f"{self.split_hash} {self.which} {self.items.shape}".encode())
        digest.update(self.users.astype("<i8").tobytes())
        digest.update(self.items.astype("<i4").tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path, split: Split) -> None:
        """Write a parquet file with one row a user: user_id and the list of item ids."""
        import pyarrow.parquet as pq

        if split.hash != self.split_hash:
            raise BadInput("these negatives were drawn for another split")
        n = self.items.shape[1]
        ids = pa.FixedSizeListArray.from_arrays(pa.array(split.log.item_ids[self.items.ravel()]), n)
        facts = {"split": self.split_hash, "which": self.which, "seed": self.seed, "hash": self.hash}
        table = pa.table({"user_id": pa.array(split.log.user_ids[self.users]), "item_ids": ids})
        with replacing(Path(path)) as aside:
            pq.write_table(table.replace_schema_metadata({METADATA: json.dumps(facts)}), aside)

    @classmethod
    def load(cls, path: str | Path, split: Split) -> Negatives:
        """Read what `save` wrote; refused where it was drawn for another split or the file was changed."""
        import pyarrow.parquet as pq

        if not Path(path).is_file():
            raise NotFound(f"no negatives at {path}")
        table = pq.read_table(Path(path))
        facts = json.loads((table.schema.metadata or {}).get(METADATA, b"{}"))
        if facts.get("split") != split.hash:
            raise BadInput(f"{path} was drawn for another split", remedy="draw negatives for this one")
        flat = np.asarray(table["item_ids"].combine_chunks().flatten().to_pylist(), dtype=np.str_)
        n = table.schema.field("item_ids").type.list_size
        user_ids = np.asarray(table["user_id"].to_pylist(), dtype=np.str_)
        loaded = cls(
            split_hash=facts["split"],
            which=facts["which"],
            seed=facts["seed"],
            users=np.searchsorted(split.log.user_ids, user_ids).astype(np.int64),
            items=np.searchsorted(split.log.item_ids, flat).astype(np.int32).reshape(-1, n),
        )
        if loaded.hash != facts["hash"]:
            raise BadInput(f"{path} does not hold what its hash says", remedy="draw negatives again")
        return loaded


def draw_negatives(split: Split, which: Which, n: int, seed: int) -> Negatives:
    """For each user with a target, `n` distinct items that the user has nowhere in the log, uniformly."""
    if n < 1:
        raise BadInput(f"the number of negatives must be positive, got {n}")
    log, users = split.log, split.users(which)
    events, owner = ranges(log.offsets[users], log.offsets[users + 1])
    aside, its = split.taken_aside(users)
    keys = np.concatenate([owner * log.n_items + log.items[events], aside * log.n_items + its])
    taken = np.unique(keys)  # sorted keys (position of user, item)
    has = np.bincount(taken // max(log.n_items, 1), minlength=len(users))
    poor = int((log.n_items - has < n).sum())
    if poor:
        raise BadInput(
            f"{poor} users have fewer than {n} items that they never took ({log.n_items} items in all)",
            remedy="ask for fewer negatives, or use full ranking",
        )
    rng = np.random.default_rng(seed)
    chosen = np.full((len(users), n), -1, dtype=np.int64)
    crowded = log.n_items - has < 2 * n  # drawing and rejecting would take long: shuffle what is left instead
    for row in np.flatnonzero(crowded):
        own = taken[
            np.searchsorted(taken, row * log.n_items) : np.searchsorted(taken, (row + 1) * log.n_items)
        ]
        free = np.setdiff1d(np.arange(log.n_items), own - row * log.n_items)
        chosen[row] = rng.permutation(free)[:n]
    for rows in np.array_split(np.flatnonzero(~crowded), max(1, len(users) * n // 2_000_000)):
        open_rows = rows
        while len(open_rows):
            chosen[open_rows] = _fill(chosen[open_rows], open_rows, taken, log.n_items, rng)
            open_rows = open_rows[(chosen[open_rows] < 0).any(axis=1)]
    return Negatives(split.hash, which, seed, users, chosen.astype(np.int32))


def _fill(
    chosen: Int64, rows: Int64, taken: Int64, n_items: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Put fresh draws into the empty (-1) places of each row, those that are taken or double left out."""
    n = chosen.shape[1]
    pool = np.concatenate([chosen, rng.integers(n_items, size=(len(rows), n + 8))], axis=1)
    keys = rows[:, None] * n_items + pool
    at = np.minimum(np.searchsorted(taken, keys), max(len(taken) - 1, 0))
    good = (pool >= 0) & (taken[at] != keys)
    order = np.argsort(pool, axis=1, kind="stable")  # of equal draws the earlier stays
    ordered = np.take_along_axis(pool, order, axis=1)
    double = np.zeros_like(good)
    np.put_along_axis(double, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    good &= ~double
    front = np.argsort(~good, axis=1, kind="stable")[:, :n]
    filled: npt.NDArray[np.int64] = np.where(
        np.take_along_axis(good, front, axis=1), np.take_along_axis(pool, front, axis=1), -1
    )
    return filled
