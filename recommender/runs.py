"""Runs: what was trained, on what, and how it went. One folder each, with a readable name that is given only
once.

    runs/sasrec-id-003/  run.json         name, release, split and its hash, when
                         config.json      every option, resolved
                         items.json       the run's own vocabulary: item id of each row
                         counts.npy       training events of each item
                         pairs.parquet    kind msr: the pairs that it learnt from and is asked about
                         history.jsonl    one line an epoch
                         metrics.json     the best epoch by validation; what `evaluate` found
                         environment.json versions and machine
                         checkpoint/      last.safetensors (to go on), best.safetensors (to use)
                         adapter/         kind msr: the best epoch's adapters, as peft reads them
    runs/promoted.json   which run answers `recommend`

A run holds the id vocabulary and the weights, but not the stored vectors it learnt from: those are the
release's. Runs are of two kinds: `sequential` (a model of `dualview train`) and `msr` (adapters of `dualview msr
train`); who asks for one and names the other is told so.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from featurestore.errors import BadInput, NotFound, did_you_mean
from featurestore.files import read_json, replacing, write_json, write_text
from recommender.config import Config

if TYPE_CHECKING:
    from pydantic import BaseModel

    from recommender.evaluate import Result
    from recommender.items import Stored
    from recommender.model import SequentialModel
    from recommender.splits import Split

FORMAT = 1
LATEST = "latest"
PROMOTED = "promoted.json"
SEQUENTIAL, MSR = "sequential", "msr"
EVALUATED = {"test": "test", "valid": "valid_evaluated"}  # in metrics.json; "valid" chose the epoch
PAIRS = "pairs.parquet"  # in the folder of a run of kind MSR
TOLD = {  # kind -> what its runs are, and which verbs take them
    SEQUENTIAL: ("a sequential recommender", "dualview evaluate, recommend, promote, audit"),
    MSR: ("a fine-tuned yes/no model", "dualview msr"),
}


class Run:
    """One folder under `runs/`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "run.json").exists():
            raise NotFound(f"{self.folder} is not a run", remedy="list runs with `dualview runs STORE`")
        if self.about["format"] > FORMAT:
            raise BadInput(f"run {self.name} was written by a newer version", remedy="update dualview")

    @classmethod
    def begin(
        cls, folder: str | Path, config: Config, split: Split, *, release: str | None, device: str = "cpu"
    ) -> Run:
        """Write everything that is known before the first step.

        `run.json` comes last: with it the folder is a run.
        """
        told = {"name": split.name, "hash": split.hash, "description": split.description, **split.numbers()}
        return cls.write(
            folder, SEQUENTIAL, config, split.log.item_ids, split.counts, told, release=release, device=device
        )

    @classmethod
    def write(
        cls,
        folder: str | Path,
        kind: str,
        config: BaseModel,
        item_ids: npt.NDArray[np.str_],
        counts: npt.NDArray[np.int64],
        split: Mapping[str, Any],
        *,
        release: str | None,
        device: str,
        **more: Any,
    ) -> Run:
        """The same of any kind. split: name, hash and description, for the record; more: what else `run.json` says."""
        folder = Path(folder)
        (folder / "checkpoint").mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", config.model_dump(mode="json"))
        write_json(folder / "items.json", item_ids.tolist())
        with replacing(folder / "counts.npy") as aside, aside.open("wb") as file:
            np.save(file, counts, allow_pickle=False)
        write_json(folder / "environment.json", environment(device))
        about = {
            "format": FORMAT,
            "name": folder.name,
            "kind": kind,
            "created": datetime.now(UTC).isoformat(timespec="microseconds"),
            "release": release,
            "split": dict(split),
            **more,
        }
        write_json(folder / "run.json", about)
        return cls(folder)

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def about(self) -> dict[str, Any]:
        result: dict[str, Any] = read_json(self.folder / "run.json")
        return result

    @property
    def root(self) -> Path:
        """The store, two folders up."""
        return self.folder.parent.parent

    @property
    def kind(self) -> str:
        """SEQUENTIAL or MSR."""
        return str(self.about.get("kind", SEQUENTIAL))

    def check(self, kind: str) -> None:
        """Raises BadInput where this is a run of another kind."""
        if self.kind != kind:
            remedy = f"it is for {TOLD[self.kind][1]}" if self.kind in TOLD else "update dualview"
            raise BadInput(
                f"run {self.name} is {TOLD.get(self.kind, (self.kind,))[0]}, and {TOLD[kind][0]} is asked for",
                remedy=remedy,
            )

    @property
    def release(self) -> str | None:
        """Name of the release it learnt from; None where a bare log was given."""
        name: str | None = self.about["release"]
        return name

    @property
    def split_hash(self) -> str:
        value: str = self.about["split"]["hash"]
        return value

    @property
    def created(self) -> str:
        """UTC, ISO 8601."""
        value: str = self.about["created"]
        return value

    @property
    def config(self) -> Config:
        """Options of a sequential run. Raises BadInput for another kind."""
        self.check(SEQUENTIAL)
        options: Config = self.options
        return options

    @cached_property
    def options(self) -> Any:
        """Options of a run of any kind: a Config or an MsrConfig; both have `seed`, `items`, `features`, `slug`."""
        if self.kind == MSR:
            from recommender.msr.config import MsrConfig

            return MsrConfig.of(**read_json(self.folder / "config.json"))
        return Config.stored(read_json(self.folder / "config.json"))

    def set_config(self, config: BaseModel) -> None:
        """What a resumed run goes on with."""
        if config != self.options:
            write_json(self.folder / "config.json", config.model_dump(mode="json"))
            self.__dict__["options"] = config

    @cached_property
    def item_ids(self) -> npt.NDArray[np.str_]:
        """(n_items,) the item id of each row."""
        return np.array(read_json(self.folder / "items.json"), dtype=np.str_)

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """(n_items,) training events of each item."""
        values: npt.NDArray[np.int64] = np.load(self.folder / "counts.npy", allow_pickle=False)
        return values

    def history(self) -> list[dict[str, Any]]:
        """One row an epoch, oldest first."""
        path = self.folder / "history.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        write_text(self.folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def metrics(self) -> dict[str, Any]:
        """{"best_epoch": 32, "epochs": 42, "finished": true, "valid": {...}, later "test": {...}}; empty
        before the first.
        """
        path = self.folder / "metrics.json"
        result: dict[str, Any] = read_json(path) if path.exists() else {}
        return result

    def write_metrics(self, **parts: Any) -> None:
        """Set or replace parts of metrics.json, such as test={"ndcg@10": .17}."""
        write_json(self.folder / "metrics.json", self.metrics() | parts)

    def write_evaluation(self, on: Literal["valid", "test"], result: Result, split: Split) -> None:
        """Keep an evaluation: its figures in metrics.json, and its ranks, one row a user, in ON_users.parquet."""
        import pyarrow.parquet as pq

        with replacing(self.folder / f"{on}_users.parquet") as aside:
            pq.write_table(result.to_table(split), aside)
        self.write_metrics(**{EVALUATED[on]: result.to_dict()})

    def summary(self) -> dict[str, Any]:
        """What a list of runs shows of one."""
        found = self.metrics()
        return {
            "run": self.name,
            "kind": self.kind,
            "release": self.release,
            "epochs": found.get("epochs", 0),
            "best_epoch": found.get("best_epoch"),
            "finished": found.get("finished", False),
            **{f"valid_{name}": value for name, value in found.get("valid", {}).items()},
        }

    def load_model(
        self, *, features: Mapping[str, Stored] | None = None, device: str = "cpu"
    ) -> SequentialModel:
        """The model of the best epoch, ready to answer.

        features: the stored vectors it learnt from, over `item_ids` in that order. Without them they are read
        from the run's own release, two folders up.
        """
        from recommender import checkpoint, data, model
        from recommender.items import kept_scalings

        if features is None and self.config.features:
            features = data.features_of(self.opened_release(), self.config, self.item_ids)
        tensors, _ = checkpoint.load(self.folder / "checkpoint" / checkpoint.BEST)
        weights = checkpoint.under("model", tensors)
        fitted = kept_scalings(weights, self.config.features)
        built = model.build(self.config, self.counts, features, fitted)
        built.load_state_dict(weights)
        return built.to(device).eval()

    def opened_release(self) -> Any:
        """The release that it learnt from, two folders up."""
        if self.release is None:
            raise BadInput(
                f"run {self.name} learnt from features that no release keeps",
                remedy="pass them: load_model(features={name: Vectors})",
            )
        from featurestore import release

        return release.open(self.folder.parent.parent, self.release)


def allot(store_root: str | Path, slug: str) -> Path:
    """Make the folder of a new run, `runs/SLUG-NNN`, one past the highest number of that slug.

    Safe among processes.
    """
    home = Path(store_root) / "runs"
    home.mkdir(parents=True, exist_ok=True)
    while True:
        folder = home / next_name(store_root, slug)
        try:
            folder.mkdir()
        except FileExistsError:
            continue  # another process took the number
        return folder


def next_name(store_root: str | Path, slug: str) -> str:
    """The name that a run of this slug would get now."""
    shape = re.compile(re.escape(slug) + r"-(\d+)")
    found = (shape.fullmatch(path.name) for path in (Path(store_root) / "runs").glob("*"))
    numbers = [int(match[1]) for match in found if match]
    return f"{slug}-{max(numbers, default=0) + 1:03d}"


def list_runs(store_root: str | Path) -> list[Run]:
    """Every run of a store, newest first."""
    home = Path(store_root) / "runs"
    folders = [path.parent for path in home.glob("*/run.json")]
    return sorted((Run(folder) for folder in folders), key=lambda run: (run.created, run.name), reverse=True)


def open_run(store_root: str | Path, name: str, kind: str | None = SEQUENTIAL) -> Run:
    """A run by its name, or "latest". kind: what it must be; None: either.

    Raises NotFound, and BadInput for a run of the other kind.
    """
    found = list_runs(store_root)
    for run in found:
        if name == run.name and kind is not None:
            run.check(kind)
        if name == run.name or (name == LATEST and kind in (run.kind, None)):
            return run
    verb = "dualview msr train STORE" if kind == MSR else "dualview train STORE"
    names = [run.name for run in found if kind in (run.kind, None)]
    hint = did_you_mean(name, names) if names else f"nothing was trained yet: `{verb}`"
    raise NotFound(f"there is no run '{name}'", remedy=hint)


def promote(store_root: str | Path, name: str) -> Run:
    """Make a run the one that `recommend` uses. It must have weights to use."""
    run = promotable(store_root, name)
    write_json(Path(store_root) / "runs" / PROMOTED, {"run": run.name, "at": datetime.now(UTC).isoformat()})
    return run


def promotable(store_root: str | Path, name: str) -> Run:
    """The run, if it has weights to use. Raises NotFound, BadInput."""
    run = open_run(store_root, name)
    if not (run.folder / "checkpoint" / "best.safetensors").exists():
        raise BadInput(
            f"run {run.name} has no validated weights yet", remedy="let it train for an epoch first"
        )
    return run


def promoted(store_root: str | Path) -> Run | None:
    """The promoted run, or None where none was chosen."""
    path = Path(store_root) / "runs" / PROMOTED
    return open_run(store_root, read_json(path)["run"]) if path.exists() else None


def environment(device: str) -> dict[str, Any]:
    """Versions and machine, for the record; none of it is hashed."""
    import torch

    packages = ("dualview", "numpy", "pyarrow", "safetensors", "transformers", "peft")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        **{name: _version(name) for name in packages},
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
