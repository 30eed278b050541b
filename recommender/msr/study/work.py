"""What is done for one cell of a study of kind "msr": train, choose by validation, score the groups, keep the figures.

Every cell scores the same groups, drawn anew from the log by the same options; their hash stands in its record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore import files
from featurestore.errors import BadInput, Conflict
from recommender.msr import scorers
from recommender.msr.asking import CHANCE, POPULARITY
from recommender.msr.figures import Figures, figures
from recommender.msr.material import Material, texts_of
from recommender.msr.models import resolve
from recommender.msr.pairs import Pairs, draw_pairs
from recommender.msr.study.preparing import opened
from recommender.msr.study.shown import material_of, options_of, shown
from recommender.splits import Which
from recommender.study import records
from recommender.study.grid import FORMAT, SHUFFLE
from recommender.study.state import Sources
from recommender.study.work import Work, environment_of_baseline, now

if TYPE_CHECKING:
    from recommender.msr.config import MsrConfig
    from recommender.msr.scorers import GroupScorer
    from recommender.msr.study.grid import MsrCell, MsrStudy
    from recommender.runs import Run

KS = (5,)


class MsrWork(Work):
    cell: MsrCell

    def __init__(
        self, cell: MsrCell, out: Path, sources: Sources, device: str, told: Callable[[str], None]
    ) -> None:
        super().__init__(cell, out, sources, device, told)
        study: Any = sources.study
        self.study: MsrStudy = study
        self.store, _, self.log = opened(study)
        self.pairs: Pairs = draw_pairs(self.log, cell.pairs)

    # ---- how each kind is trained, and what then scores

    def _trained(self, test: bool) -> dict[str, Any]:
        self._begin()
        begun = time.perf_counter()
        kept = {"fine-tuned": self._fine_tuned, "zero-shot": self._zero_shot, "sequential": self._sequential}
        score, about = kept[self.cell.of]()
        about["cost"]["seconds"] = round(time.perf_counter() - begun, 3)
        begun = time.perf_counter()
        found = self._asked(score, test)
        about["cost"]["evaluation_seconds"] = round(time.perf_counter() - begun, 3)
        return self._told_of(found, about)

    def _baseline(self, test: bool) -> dict[str, Any]:
        begun = time.perf_counter()
        found = self._asked(self._floor(), test)
        seconds = round(time.perf_counter() - begun, 3)
        return self._told_of(found, _about(seconds=0.0, evaluation_seconds=seconds))

    def _floor(self) -> GroupScorer:
        if self.cell.backbone == CHANCE:
            return scorers.chance()
        assert self.cell.backbone == POPULARITY
        return scorers.popularity(self.log, self.pairs)

    def _fine_tuned(self) -> tuple[GroupScorer, dict[str, Any]]:
        """Each learning rate is tried; the one with the best validation is kept."""
        from recommender.msr import sft

        assert self.cell.arm is not None
        tried: dict[float, Run] = {}
        for rate in self.cell.arm.rates or (self._options().lr,):
            config = self._options().model_copy(update={"lr": rate})
            asked = self._material(config)
            tried[rate] = sft.train(
                self.store,
                config,
                asked.examples(self.pairs.parts["train"]),
                valid=asked.examples(self.pairs.parts["valid"]),
                folder=self._rate_folder(rate),
                release=self.release.name,
                pairs=self.pairs,
                device=self.device,
                progress=lambda row, rate=rate: self.told(_line(rate, row)),  # type: ignore[misc]
            )
        rate = max(tried, key=lambda each: tried[each].metrics()["valid"]["auc"])
        run = tried[rate]
        files.write_json(self.folder / "chosen.json", {"rate": rate})
        history = run.history()
        about = _about(
            best_epoch=run.metrics()["best_epoch"],
            epochs=run.metrics()["epochs"],
            weights=_weights(run),
            environment=files.read_json(run.folder / "environment.json"),
            parameters=_learned(run),
            epoch_seconds=float(np.mean([row["seconds"] for row in history])),
        )
        about["rate"] = rate
        about["rates"] = {str(each): one.metrics()["valid"]["auc"] for each, one in tried.items()}
        return self._of_run(run), about

    def _zero_shot(self) -> tuple[GroupScorer, dict[str, Any]]:
        from recommender.msr.ranker import Ranker

        config = self._options()
        found = resolve(self.store.root, config.model)  # the one that the record names
        ranker = Ranker.open(found.folder.resolve(), config=config, device=self.device)
        return self._material(config).scorer(ranker), _about()

    def _sequential(self) -> tuple[GroupScorer, dict[str, Any]]:
        from recommender import checkpoint
        from recommender.fit import fit

        features = self._features()
        run = fit(
            self.release, self.cell.config, self.folder, features=features, device=self.device,
            progress=lambda row: self.told(f"epoch {row['epoch']}: loss {row['loss']:.4f}"),
        )  # fmt: skip
        history, kept = run.history(), run.metrics()
        model = run.load_model(features=features)
        about = _about(
            best_epoch=kept["best_epoch"],
            epochs=kept["epochs"],
            weights=files.sha256_file(run.folder / "checkpoint" / checkpoint.BEST),
            environment=files.read_json(run.folder / "environment.json"),
            parameters=sum(weight.numel() for weight in model.parameters()),
            epoch_seconds=float(np.mean([row["seconds"] for row in history])),
        )
        return self._of_sequential(run), about

    # ---- a trained one again

    def _of_run(self, run: Run) -> GroupScorer:
        from recommender.msr.ranker import Ranker

        return self._material(run.options).scorer(Ranker.open(run, device=self.device))

    def _of_sequential(self, run: Run) -> GroupScorer:
        model = run.load_model(features=self._features())
        ranked = np.ones(len(run.item_ids), dtype=np.bool_) if run.config.features else run.counts > 0
        known = scorers.Sequential(run.item_ids, model.item_vectors(), ranked, model.user_vectors)
        return scorers.sequential(known, self.split, self.log, run.name)

    def _open_test(self, record: dict[str, Any]) -> None:
        """The test set of a cell that was trained without: once, from its kept weights."""
        from recommender import checkpoint
        from recommender.runs import Run

        if self.cell.baseline:
            score = self._floor()
        elif self.cell.of == "zero-shot":
            score = self._zero_shot()[0]
        else:
            folder = self.folder
            if self.cell.of == "fine-tuned":
                folder = self._rate_folder(record["rate"])
            if not (folder / "checkpoint" / checkpoint.BEST).exists():
                raise BadInput(
                    f"{self.cell.name} was trained, but its weights are not in {self.folder}",
                    remedy="give the --out that it was trained into, or take its record away to train it again",
                )
            run = Run(folder)
            weights = (
                _weights(run)
                if self.cell.of == "fine-tuned"
                else files.sha256_file(folder / "checkpoint" / checkpoint.BEST)
            )
            if weights != record["checkpoint_sha256"]:
                raise Conflict(
                    f"the weights in {self.folder} are not those that {self.cell.file.name} tells of",
                    remedy="give the --out that it was trained into",
                )
            score = self._of_run(run) if self.cell.of == "fine-tuned" else self._of_sequential(run)
        found = self._asked(score, True)
        opened_ = {"test": _figures(found["test"]) | {"opened": now()}}
        files.write_json(self.cell.file, record | opened_)

    # ---- all

    def _options(self) -> MsrConfig:
        return options_of(self.store, self.release, self.cell, self.device)

    def _material(self, config: MsrConfig) -> Material:
        return material_of(self.store, self.release, self.log, config)

    def _rate_folder(self, rate: float) -> Path:
        return self.folder / f"rate-{rate:g}"

    def _asked(self, score: GroupScorer, test: bool) -> dict[Which, Figures]:
        """Score the groups, and write each user's values."""
        parts: tuple[Which, ...] = ("valid", "test") if test else ("valid",)
        found: dict[Which, Figures] = {}
        for part in parts:
            groups = self.pairs.parts[part]
            if not len(groups):
                raise BadInput(
                    f"the pairs have nobody to ask about on {part}",
                    remedy="more users, or smaller min_history",
                )
            found[part] = figures(score(groups), KS)
        tables = [
            pa.table({"part": [part] * len(one.ranks), "rank": one.ranks} | dict(one.per_user))
            for part, one in found.items()
        ]
        with files.replacing(self.cell.ranks_file) as aside:
            pq.write_table(pa.concat_tables(tables), aside, compression="zstd")
        return found

    def _begin_facts(self) -> dict[str, Any]:
        return super()._begin_facts() | {"pairs_hash": self.pairs.hash}

    def _told_of(self, found: Mapping[Which, Figures], about: Mapping[str, Any]) -> dict[str, Any]:
        cell, test = self.cell, found.get("test")
        told: dict[str, Any] = {}
        if cell.of in ("fine-tuned", "zero-shot"):
            asked = self._material(self._options())
            told = texts_of(asked.tell(self.pairs.parts["test"]))
            about = {
                **about,
                "shown": shown(asked, self.pairs),
                "model": resolve(self.store.root, self._options().model).ref.model_dump(mode="json"),
            }
        return {
            "format": FORMAT,
            "study": cell.study,
            "cell": cell.name,
            "data": cell.data,
            "backbone": None if cell.baseline else cell.backbone,
            "tower": cell.tower,
            "seed": cell.seed,
            "baseline": cell.backbone if cell.baseline else None,
            "of": cell.of,
            "config": cell.options,
            SHUFFLE: [],
            "config_hash": cell.config_hash,
            "release": self.sources.facts(cell.data),
            "features": self.hashes,
            "split_hash": self.split.hash,
            "pairs_hash": self.pairs.hash,
            "pairs": dict(self.pairs.numbers),
            "protocol": self.pairs.description,
            "preferences": told,
            "valid": _figures(found["valid"]),
            "test": None if test is None else _figures(test) | {"opened": now()},
            "code": records.commit(),
            "written": now(),
            "earlier": [],
            **about,
        }


def _figures(found: Figures) -> dict[str, Any]:
    return found.to_dict()


def _about(
    *,
    best_epoch: int | None = None,
    epochs: int | None = None,
    weights: str | None = None,
    environment: dict[str, Any] | None = None,
    **cost: Any,
) -> dict[str, Any]:
    """What a record says of the training; cost: parameters (that were learnt), epoch_seconds, seconds, ..."""
    nothing = {"parameters": 0, "epoch_seconds": None, "seconds": 0.0, "evaluation_seconds": 0.0}
    return {
        "best_epoch": best_epoch,
        "epochs": epochs,
        "checkpoint_sha256": weights,
        "environment": environment or environment_of_baseline(),
        "cost": nothing | cost,
    }


def _weights(run: Run) -> str:
    from recommender.msr import lora

    return files.sha256_file(run.folder / lora.FOLDER / lora.WEIGHTS)


def _learned(run: Run) -> int:
    """Numbers in a run's adapters."""
    from safetensors import safe_open

    from recommender.msr import lora

    with safe_open(run.folder / lora.FOLDER / lora.WEIGHTS, "numpy") as tensors:
        names = tensors.keys()
        return sum(int(np.prod(tensors.get_slice(name).get_shape())) for name in names)


def _line(rate: float, row: Mapping[str, Any]) -> str:
    best = ", best" if row.get("best") else ""
    valid = f", validation AUC {row['valid_auc']:.4f}{best}" if "valid_auc" in row else ""
    return f"rate {rate:g}, epoch {row['epoch']}: loss {row['loss']:.4f}{valid}"
