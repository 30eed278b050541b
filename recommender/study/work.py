"""What is done for one cell: train, validate and, where asked, open the test set.

What a cell was begun with is noted in its run's folder before the first step, so that a killed one goes on only with
the same options, events and vectors, and so that a record names every version of this code that had a part in it. The
ranks are written before the record, and the record is what says that a test was opened; whoever dies in between has
seen no figure of it.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore import files
from featurestore.errors import BadInput, Conflict
from recommender.runs import Run
from recommender.study import records
from recommender.study.claims import claim
from recommender.study.grid import FORMAT, SHUFFLE, Cell, Study
from recommender.study.shuffle import shuffled
from recommender.study.state import Sources, State, judge

if TYPE_CHECKING:
    from recommender.evaluate import Result, ScoreFn
    from recommender.splits import Split, Which

KS = (5, 10, 20)
BEGUN, LOG = "cell.json", "log.txt"  # in the run's folder


def folder_of(out: Path, cell: Cell) -> Path:
    """Where the heavy part of a cell is kept."""
    return out / "runs" / cell.name


def work(
    study: Study,
    cell: Cell,
    out: Path,
    *,
    test: bool = False,
    again: bool = False,
    device: str = "auto",
    told: Callable[[str], None] | None = None,
    claimed: bool = False,
) -> State | None:
    """Bring a cell as far as is asked, and return where it stands then. None where nothing was done: it stood there
    before, or another process is at it.

    test: open the test set once training is over; never for the second time. again: also do an outdated cell anew.
    told: called with a line for each epoch. claimed: this process holds the cell already.
    Raises Conflict for an outdated one otherwise, and whatever `fit` and `evaluate` raise.
    """
    with nullcontext(True) if claimed else claim(out, cell.name) as mine:
        if not mine:
            return None
        sources = Sources(study)
        state, why = judge(cell, sources)
        if state is State.OUTDATED and not again:
            raise Conflict(
                f"{cell.name} is done, but outdated: {why}",
                remedy="do it anew with --again, or undo the change",
            )
        if state is State.TESTED or (state is State.TRAINED and not test):
            return None
        cell.worker(out, sources, device, told or (lambda line: None)).run(state, test)
    return State.TESTED if test else State.TRAINED


class Work:
    """One cell under way."""

    def __init__(
        self, cell: Cell, out: Path, sources: Sources, device: str, told: Callable[[str], None]
    ) -> None:
        self.cell, self.told, self.device, self.sources = cell, told, device, sources
        self.folder = folder_of(out, cell)
        self.found: dict[Which, Result] = {}
        self.code = [records.commit()]
        self.release = sources.release(cell.data)
        self.hashes = sources.features(cell.data, cell.features)  # a feature that is not there ends it here
        from recommender import data

        self.split: Split = data.split_of(self.release, cell.config)
        files.make_folder(self.folder.resolve())
        files.make_folder(cell.folder.resolve())
        self._sweep()

    def run(self, state: State, test: bool) -> None:
        old = self.cell.record()
        if state is State.TRAINED:
            assert old is not None
            self._open_test(old)
            return
        record = self._baseline(test) if self.cell.baseline else self._trained(test)
        if (
            old is not None
        ):  # what was outdated: whoever reads the figures may want to know how often it was tried
            earlier = {"config_hash": old["config_hash"], "split_hash": old["split_hash"]}
            record["earlier"] = [*old["earlier"], earlier | {"tested": old["test"] is not None}]
        files.write_json(self.cell.file, record)
        self._keep()

    def _keep(self) -> None:
        """What was evaluated, in the run's folder too, as `dualview evaluate` keeps it. After the record: see above."""
        if not self.cell.baseline:
            for which, result in self.found.items():
                Run(self.folder).write_evaluation(which, result, self.split)

    # ---- a baseline

    def _scorer(self, which: Which) -> ScoreFn:
        from recommender import baselines

        if self.cell.backbone == "item_knn":
            return baselines.item_knn(self.split, which)
        if self.cell.backbone == "chance":
            return baselines.chance(self.split)
        if self.cell.config.features:
            return baselines.content_knn(self.split, which, self._features().values())
        return baselines.popularity(self.split)

    def _baseline(self, test: bool) -> dict[str, Any]:
        begun = time.perf_counter()
        found = self._evaluated(self._scorer, ("valid", "test") if test else ("valid",))
        seconds = round(time.perf_counter() - begun, 3)
        cost = _cost(0, [], None, seconds, None) | {"seconds": seconds}
        return self._record(found, None, None, cost, environment_of_baseline(), None)

    # ---- a model

    def _trained(self, test: bool) -> dict[str, Any]:
        from recommender import checkpoint
        from recommender.fit import fit

        self._begin()
        features = self._features()
        run = fit(
            self.release,
            self.cell.config,
            self.folder,
            features=features,
            device=self.device,
            progress=lambda row: self.told(_line(row)),
        )
        begun = time.perf_counter()
        model, score = self._model(run, features)
        found = self._evaluated(score, ("valid", "test") if test else ("valid",))
        history, kept = run.history(), run.metrics()
        parameters = sum(weight.numel() for weight in model.parameters())
        evaluation = round(time.perf_counter() - begun, 3)
        environment = files.read_json(self.folder / "environment.json")
        cost = _cost(parameters, history, kept["best_epoch"], evaluation, environment["threads"])
        weights = files.sha256_file(self.folder / "checkpoint" / checkpoint.BEST)
        return self._record(found, kept["best_epoch"], kept["epochs"], cost, environment, weights)

    def _features(self) -> Mapping[str, Any]:
        from recommender import data

        found = data.features_of(self.release, self.cell.config, self.split.log.item_ids)
        return shuffled(found, self.cell.shuffle)

    def _model(self, run: Run, features: Mapping[str, Any]) -> tuple[Any, Callable[[Which], ScoreFn]]:
        from recommender.fit import pick_device
        from recommender.model import scorer

        model = run.load_model(features=features, device=str(pick_device(self.device)))
        return model, lambda which: scorer(model, self.split, which)

    def _begin(self) -> None:
        """Note what is begun, or see that what was begun is the same; another one is taken away.

        That is right here: a record of other options, or no record, is all there is, and this was asked for.
        """
        now = self._begin_facts()
        note = self.folder / BEGUN
        if note.exists():
            then = files.read_json(note)
            if then["study"] != self.cell.study:
                raise Conflict(
                    f"{self.folder} is of study '{then['study']}'",
                    remedy="give each study an --out of its own",
                )
            same = not self.cell.changed(then) and all(
                then.get(part) == now[part] for part in now if part not in ("config", SHUFFLE)
            )
            if same:
                self.code = list(dict.fromkeys([*then.get("code", []), *self.code]))
                files.write_json(note, then | {"code": self.code})
                return
            self.told("what was begun here had other options or data; it is begun anew")
            note.unlink()
        elif (self.folder / "run.json").exists():
            raise Conflict(f"{self.folder} holds a run that is no cell's", remedy="give another --out")
        for path in self.folder.iterdir():
            if path.name != LOG:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        files.write_json(note, now | {"code": self.code})

    def _begin_facts(self) -> dict[str, Any]:
        """What a cell was begun with: all but its options must be the very same to go on."""
        return {
            "study": self.cell.study,
            "config": self.cell.options,
            SHUFFLE: list(self.cell.shuffle),
            "split_hash": self.split.hash,
            "features": self.hashes,
        }

    def _open_test(self, record: dict[str, Any]) -> None:
        """The test set of a cell that was trained without: once, from its kept weights."""
        score = self.kept_scorer(record)
        wanted: tuple[Which, ...] = ("test",) if self.cell.ranks_file.exists() else ("valid", "test")
        found = self._evaluated(score, wanted)
        opened = {"test": records.figures(found["test"]) | {"opened": now()}}
        files.write_json(self.cell.file, record | opened)
        self._keep()

    def kept_scorer(self, record: dict[str, Any]) -> Callable[[Which], ScoreFn]:
        """What scores as the cell's record tells of: a baseline, or the kept weights.

        Raises BadInput where the weights are not there, Conflict where they are others.
        """
        from recommender import checkpoint

        if self.cell.baseline:
            return self._scorer
        weights = self.folder / "checkpoint" / checkpoint.BEST
        if not weights.exists():
            raise BadInput(
                f"{self.cell.name} was trained, but its weights are not in {self.folder}",
                remedy="give the --out that it was trained into, or take its record away to train it again",
            )
        if files.sha256_file(weights) != record["checkpoint_sha256"]:
            raise Conflict(
                f"the weights in {self.folder} are not those that {self.cell.file.name} tells of",
                remedy="give the --out that it was trained into",
            )
        return self._model(Run(self.folder), self._features())[1]

    # ---- both

    def _evaluated(self, score: Callable[[Which], ScoreFn], wanted: Sequence[Which]) -> dict[Which, Result]:
        """Evaluate, and write the ranks; those of validation that are there already are kept."""
        from recommender.evaluate import evaluate

        found = {
            which: evaluate(score(which), self.split, which, KS, repeat=self.cell.config.repeat)
            for which in wanted
        }
        self.found = found
        by_user = {which: records.of_users(result, self.split) for which, result in found.items()}
        if "valid" not in by_user:
            by_user["valid"] = records.ranks(self.cell.ranks_file)["rank_valid"].to_numpy()
        records.write_ranks(self.cell.ranks_file, self.split, by_user["valid"], by_user.get("test"))
        return found

    def _record(
        self,
        found: dict[Which, Result],
        best_epoch: int | None,
        epochs: int | None,
        cost: dict[str, Any],
        environment: dict[str, Any],
        weights: str | None,
    ) -> dict[str, Any]:
        cell, test = self.cell, found.get("test")
        return {
            "format": FORMAT,
            "study": cell.study,
            "cell": cell.name,
            "data": cell.data,
            "backbone": None if cell.baseline else cell.backbone,
            "tower": cell.tower,
            "seed": cell.seed,
            "baseline": cell.backbone if cell.baseline else None,
            "config": cell.options,
            SHUFFLE: list(cell.shuffle),
            "config_hash": cell.config_hash,
            "release": self.sources.facts(cell.data),
            "features": self.hashes,
            "split_hash": self.split.hash,
            "split": {
                "name": self.split.name,
                "description": self.split.description,
                "numbers": self.split.numbers(),
            },
            "protocol": found["valid"].protocol,
            "best_epoch": best_epoch,
            "epochs": epochs,
            "valid": records.figures(found["valid"]),
            "test": None if test is None else records.figures(test) | {"opened": now()},
            "cost": cost,
            "checkpoint_sha256": weights,
            "environment": environment,
            "code": " ".join(str(one) for one in self.code if one) or None,
            "written": now(),
            "earlier": [],
        }

    def _sweep(self) -> None:
        """Take away what a killed process was writing: nobody else is at this cell."""
        places = [(self.folder, ".*.part"), (self.folder / "checkpoint", ".*.part")]
        places += [
            (self.cell.folder, f".{path.name}.*.part") for path in (self.cell.file, self.cell.ranks_file)
        ]
        for folder, pattern in places:
            for path in folder.glob(pattern):
                path.unlink()


def _cost(
    parameters: int,
    history: Sequence[Mapping[str, Any]],
    best_epoch: int | None,
    evaluation: float,
    threads: int | None,
) -> dict[str, Any]:
    """parameters; epoch_seconds: mean, without validation; seconds_to_best and seconds: of epochs with validations.

    On a CPU the first two are processor seconds over threads, so that a busy machine makes nothing dearer; `clock` says
    which they are. seconds is always by the wall.
    """

    def wall(name: str) -> list[float]:
        return [float(row.get(name, 0.0)) for row in history]

    by_processor = bool(threads and history) and all(
        "cpu_seconds" in row and ("valid_seconds" in row) == ("valid_cpu_seconds" in row) for row in history
    )
    names = ("cpu_seconds", "valid_cpu_seconds") if by_processor else ("seconds", "valid_seconds")
    share = threads if by_processor and threads else 1
    epochs, checked = ([each / share for each in wall(name)] for name in names)
    return {
        "parameters": parameters,
        "epoch_seconds": round(sum(epochs) / len(epochs), 4) if epochs else None,
        "seconds_to_best": round(sum(epochs[:best_epoch]) + sum(checked[:best_epoch]), 3)
        if best_epoch
        else None,
        "clock": "processor" if by_processor else "wall",
        "seconds": round(sum(wall("seconds")) + sum(wall("valid_seconds")), 3),
        "evaluation_seconds": evaluation,
        "threads": threads,
    }


def environment_of_baseline() -> dict[str, Any]:
    """Of a baseline, which needs no torch."""
    versions = {name: metadata.version(name) for name in ("numpy", "scipy")}
    machine = {"python": platform.python_version(), "platform": platform.platform(), "cores": os.cpu_count()}
    return {**machine, **versions, "device": "cpu"}


def _line(row: Mapping[str, Any]) -> str:
    valid = f", validation NDCG@10 {row['valid_ndcg@10']:.4f}" if "valid_ndcg@10" in row else ""
    best = ", best" if row.get("best") else ""
    return f"epoch {row['epoch']}: loss {row['loss']:.4f}, {row['seconds']:.1f} s{valid}{best}"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
