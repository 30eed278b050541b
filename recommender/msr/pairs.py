"""Pairs: a user at a moment, an item, and whether the user took it then. What MLLM-MSR learns from and is asked.

A *group* is one event that happened (the positive) with items that its user never took (the negatives): 1:1 for
training, 1:20 to evaluate. It holds how many events the user had before, and those alone may be known of the user:
a preference is read at that point in time. Groups are drawn once from a seed and kept with the run as a Parquet file
that carries a hash of its contents, so that whoever compares compares on the same candidates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from featurestore.errors import BadInput, NotFound, did_you_mean
from featurestore.files import replacing
from recommender.events import EventLog, Int32, Int64, Strings
from recommender.msr import candidates
from recommender.splits import leave_one_out

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
METADATA = b"dualview.pairs"
FORMAT = 1


class PairOptions(BaseModel):
    """How groups are drawn. `PairOptions.of(seed=1)`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    split: Literal["leave-one-out", "by-user"] = Field(
        default="leave-one-out",
        description="leave-one-out: of each user the last event is for test, the one before for validation; "
        "by-user (the paper's): 8 of 10 users are for training, 1 for validation, 1 for test",
    )
    seed: int = Field(
        default=0, ge=0, description="of the negatives, of the users who are chosen, and of the split by user"
    )
    train_negatives: int = Field(default=1, ge=1, description="negatives of a training group")
    negatives: int = Field(default=20, ge=1, description="negatives of a group of validation or test")
    weighting: candidates.Weighting = Field(
        default="uniform", description="uniform, or popularity: an item is drawn as often as it was taken"
    )
    catalogue: candidates.Catalogue = Field(
        default="then",
        description="then: items that somebody had taken by that time; all: those of the whole log",
    )
    min_history: int = Field(default=1, ge=1, description="events that a user must have before a positive")
    train_positives: int = Field(
        default=1, ge=1, description="positives a user gives to training, the latest ones"
    )
    users: int | None = Field(
        default=None, ge=1, description="only so many users, drawn from the seed; None: all"
    )
    valid_users: int | None = Field(
        default=None, ge=1, description="of these, so many are asked in validation; None: all"
    )

    @classmethod
    def of(cls, **given: Any) -> PairOptions:
        """Raises BadInput for an unknown name or a value that cannot be meant."""
        for name in given:
            if name not in cls.model_fields:
                raise BadInput(
                    f"unknown option of pairs '{name}'", remedy=did_you_mean(name, cls.model_fields)
                )
        try:
            return cls(**given)
        except ValidationError as error:
            told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise BadInput(f"options of pairs: {told}") from None


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of one part, ordered by user and then time.

    users: (m,) ids. history: (m,) int32, events of that user before the positive. items: (m, 1 + n) ids, the positive
    in column 0.
    """

    users: Strings
    history: Int32
    items: Strings

    def __len__(self) -> int:
        return len(self.users)

    @property
    def negatives(self) -> int:
        return int(self.items.shape[1]) - 1

    @property
    def targets(self) -> Strings:
        """(m,) the positives."""
        positives: Strings = self.items[:, 0]
        return positives

    def take(self, rows: npt.NDArray[Any]) -> Groups:
        return Groups(self.users[rows], self.history[rows], self.items[rows])


@dataclass(frozen=True, eq=False)
class Pairs:
    """The groups of all parts, and how they came about.

    log_hash: of the log they were drawn from. numbers: every user and event accounted for.
    """

    options: PairOptions
    log_hash: str
    parts: Mapping[Part, Groups]
    numbers: Mapping[str, int]

    @cached_property
    def hash(self) -> str:
        """sha256 over log, options and all groups."""
        facts = {"log": self.log_hash, "options": self.options.model_dump(mode="json")}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for name in PARTS:
            groups = self.parts[name]
            told = [name, groups.users.tolist(), groups.history.tolist(), groups.items.tolist()]
            digest.update(json.dumps(told).encode())
        return digest.hexdigest()

    @property
    def description(self) -> str:
        """The protocol in words, for reports."""
        o = self.options
        how = {
            "leave-one-out": "last event of each user for test, the one before for validation, earlier for training",
            "by-user": f"SPLIT BY USER (seed {o.seed}): 8 of 10 users for training, 1 for validation, 1 for test; "
            "the last event of each",
        }[o.split]
        pool = "items that somebody had taken by then" if o.catalogue == "then" else "all items of the log"
        drawn = "uniformly" if o.weighting == "uniform" else "by popularity"
        return (
            f"{how}; SAMPLED 1:{o.negatives}, drawn {drawn} from {pool} (seed {o.seed}), never one that the user ever "
            "took; equal scores count their expected place"
        )

    def save(self, path: str | Path) -> None:
        """Write a Parquet file with one row a pair: part, user_id, item_id, label, history."""
        import pyarrow.parquet as pq

        tables = []
        for name in PARTS:
            groups = self.parts[name]
            width = groups.items.shape[1]
            label = np.zeros(groups.items.shape, dtype=np.int8)
            label[:, 0] = 1
            columns = {
                "part": pa.array([name] * groups.items.size, pa.string()),
                "user_id": pa.array(np.repeat(groups.users, width).tolist(), pa.string()),
                "item_id": pa.array(groups.items.ravel().tolist(), pa.string()),
                "label": pa.array(label.ravel()),
                "history": pa.array(np.repeat(groups.history, width).astype(np.int32)),
            }
            tables.append(pa.table(columns))
        facts = {
            "format": FORMAT,
            "options": self.options.model_dump(mode="json"),
            "log": self.log_hash,
            "numbers": dict(self.numbers),
            "hash": self.hash,
        }
        table = pa.concat_tables(tables).replace_schema_metadata({METADATA: json.dumps(facts)})
        with replacing(Path(path)) as aside:
            pq.write_table(table, aside, compression="zstd")

    @classmethod
    def load(cls, path: str | Path) -> Pairs:
        """Read what `save` wrote. Raises NotFound, and BadInput where the file was changed."""
        import pyarrow.parquet as pq

        if not Path(path).is_file():
            raise NotFound(f"no pairs at {path}", remedy="draw them again")
        table = pq.read_table(Path(path))
        facts = json.loads((table.schema.metadata or {}).get(METADATA, b"{}"))
        if facts.get("format") != FORMAT:
            raise BadInput(f"{path} holds no pairs of this version", remedy="draw them again")
        options = PairOptions.of(**facts["options"])
        parts: dict[Part, Groups] = {}
        for name in PARTS:
            width = 1 + (options.train_negatives if name == "train" else options.negatives)
            rows = table.filter(pc.equal(table["part"], name))
            if len(rows) % width:
                raise BadInput(f"{path} does not hold what its hash says", remedy="draw the pairs again")
            parts[name] = Groups(
                users=_strings(rows["user_id"])[::width],
                history=rows["history"].to_numpy().astype(np.int32)[::width],
                items=_strings(rows["item_id"]).reshape(-1, width),
            )
        found = cls(options, facts["log"], parts, facts["numbers"])
        if found.hash != facts["hash"]:
            raise BadInput(f"{path} does not hold what its hash says", remedy="draw the pairs again")
        return found


def draw_pairs(log: EventLog, options: PairOptions | None = None) -> Pairs:
    """The groups of a log, a function of log and options alone.

    Raises BadInput where no part of the split has a group.
    """
    options = options or PairOptions()
    at, numbers = _positives(log, options)
    taken = candidates.taken_keys(log)
    parts: dict[Part, Groups] = {}
    for place, name in enumerate(PARTS):
        n = options.train_negatives if name == "train" else options.negatives
        among = candidates.pool(log, at[name], options.weighting, options.catalogue)
        plenty = candidates.enough(log, at[name], among, n, taken)
        numbers[f"{name}_too_few_candidates"] = int((~plenty).sum())
        rows = at[name][plenty]
        among = candidates.Pool(among.items, among.bound[plenty])
        rng = np.random.default_rng([options.seed, place])
        drawn = candidates.draw(log, rows, among, n, rng, taken)
        items = np.concatenate([log.items[rows][:, None].astype(np.int64), drawn], axis=1)
        parts[name] = Groups(
            users=log.user_ids[log.users[rows]],
            history=(rows - log.offsets[log.users[rows]]).astype(np.int32),
            items=log.item_ids[items],
        )
        numbers[f"{name}_groups"] = len(rows)
        numbers[f"{name}_repeats"] = _repeats(log, rows)
        numbers[f"{name}_tied"] = _tied(log, rows)
    if not any(len(groups) for groups in parts.values()):
        raise BadInput(
            f"no user has an event after {options.min_history} others, with enough items left to draw from",
            remedy="lower min_history or negatives, or set catalogue = 'all'",
        )
    return Pairs(options, log.hash, parts, numbers)


def _positives(log: EventLog, options: PairOptions) -> tuple[dict[Part, Int64], dict[str, int]]:
    """Rows of the events that are the positives of each part, ascending; and what became of the users."""
    chosen = np.arange(log.n_users)
    rng = np.random.default_rng([options.seed, len(PARTS)])
    shuffled = rng.permutation(log.n_users)
    if options.users is not None:
        chosen = np.sort(shuffled[: options.users])
    first, last = log.offsets[chosen], log.offsets[chosen + 1]
    if options.split == "leave-one-out":
        split = leave_one_out(log)
        targets = {"valid": split.valid[chosen], "test": split.test[chosen]}
        train_end, learns = split.train_end[chosen], np.ones(len(chosen), dtype=np.bool_)
    else:
        tenth = np.empty(log.n_users, dtype=np.int64)
        tenth[shuffled] = np.arange(log.n_users) % 10
        tenth = tenth[chosen]
        targets = {"valid": np.where(tenth == 8, last - 1, -1), "test": np.where(tenth == 9, last - 1, -1)}
        train_end, learns = last, tenth < 8
    at: dict[Part, Int64] = {}
    begins = np.maximum(first + options.min_history, train_end - options.train_positives)
    counts = np.where(learns, np.maximum(train_end - begins, 0), 0)
    at["train"] = np.repeat(begins - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    numbers = {
        "users": log.n_users,
        "users_chosen": len(chosen),
        "users_without_training": int((counts == 0).sum()),
    }
    for name in ("valid", "test"):
        rows = targets[name]
        asked, known = rows >= 0, rows - first >= options.min_history
        numbers[f"{name}_users_without_target"] = int((~asked).sum())
        numbers[f"{name}_short_history"] = int((asked & ~known).sum())
        rows = rows[asked & known]
        if name == "valid" and options.valid_users is not None and options.valid_users < len(rows):
            kept = np.random.default_rng([options.seed, len(PARTS) + 1]).permutation(len(rows))
            numbers["valid_not_asked"] = len(rows) - options.valid_users
            rows = np.sort(rows[kept[: options.valid_users]])
        at[name] = rows.astype(np.int64)
    return at, numbers


def _repeats(log: EventLog, rows: Int64) -> int:
    """How many of these events are of an item that their user had taken before."""
    keys = log.users.astype(np.int64) * max(log.n_items, 1) + log.items
    order = np.argsort(keys, kind="stable")  # events of one user and item, the earliest first
    again = np.zeros(len(log), dtype=np.bool_)
    again[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return int(again[rows].sum())


def _tied(log: EventLog, rows: Int64) -> int:
    """How many of these events have the time of the one before or after: their order is that of the input."""
    after = np.minimum(rows + 1, len(log) - 1)
    follows = (rows + 1 < log.offsets[log.users[rows] + 1]) & log.tied[after]
    return int((log.tied[rows] | follows).sum())


def _strings(column: pa.ChunkedArray) -> Strings:
    return np.asarray(column.to_pylist(), dtype=np.str_)
