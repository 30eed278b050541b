"""The grid of a study: its cells, each with all that decides its result. `reading` makes it of a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from featurestore import files
from featurestore.errors import BadInput, Conflict, did_you_mean
from recommender.config import Config

if TYPE_CHECKING:
    from recommender.study.state import Sources
    from recommender.study.work import Work

# options of what is held out, and how it is ranked
PROTOCOL = ("split", "hide_items", "hide_seed", "repeat", "k_core")
SHUFFLE = "shuffle"
FORMAT = 1  # of a record
DEFAULTS: dict[str, Any] = Config.of().model_dump(mode="json")


@dataclass(frozen=True)
class Data:
    """A data set of a study. root: a store, or a copied folder that holds releases; release: name, tag or latest."""

    name: str
    root: Path
    release: str


@dataclass(frozen=True)
class Cell:
    """One training, or one baseline of a data set: then `backbone` is its name, and it has no tower and no seed.

    shuffle: features whose vectors are exchanged among the items before training. folder: where records are.
    """

    study: str
    data: str
    backbone: str
    tower: str | None
    seed: int | None
    config: Config
    shuffle: tuple[str, ...]
    folder: Path

    kind: ClassVar[str] = "sequential"  # of its study
    shown: ClassVar[str] = "NDCG@10"  # the figure that a line about it shows

    @property
    def baseline(self) -> bool:
        return self.tower is None

    @property
    def name(self) -> str:
        """ "amazon--sasrec--id--0", "amazon--popularity", "amazon--content_knn-text"."""
        parts = (self.data, re.sub("[:+]", "-", self.backbone), self.tower, self.seed)
        return "--".join(str(part) for part in parts if part is not None)

    @property
    def options(self) -> dict[str, Any]:
        """All that decides the result besides the data; of a baseline, what is held out and how it is ranked."""
        every = self.config.model_dump(mode="json")
        return {name: every[name] for name in PROTOCOL} if self.baseline else every

    @property
    def told_options(self) -> dict[str, Any]:
        """The options that are not their defaults, without the axes."""
        found = {k: v for k, v in self.options.items() if v != DEFAULTS[k] and k not in ("backbone", "seed")}
        return found | ({SHUFFLE: list(self.shuffle)} if self.shuffle else {})

    @property
    def features(self) -> tuple[str, ...]:
        """The features of the release that it reads."""
        return self.config.features

    def worker(self, out: Path, sources: Sources, device: str, told: Callable[[str], None]) -> Work:
        """What does it; see `work.work`."""
        from recommender.study.work import Work

        return Work(self, out, sources, device, told)

    def read_else(self, record: dict[str, Any], sources: Sources) -> list[str]:
        """What it read besides events and vectors that is another in today's release."""
        return []

    @property
    def config_hash(self) -> str:
        """sha256 of the resolved options, with what is shuffled."""
        told = {"of": self.backbone, "options": self.options, SHUFFLE: sorted(self.shuffle)}
        return files.sha256_text(files.canonical_json(told))

    @property
    def file(self) -> Path:
        """The record: figures, options, costs."""
        return self.folder / f"{self.name}.json"

    @property
    def ranks_file(self) -> Path:
        """One row a user of the split: rank_valid, rank_test, history, target_count."""
        return self.folder / f"{self.name}.ranks.parquet"

    def record(self) -> dict[str, Any] | None:
        """What the cell left, whether or not it is of today's options; None where it was never done.

        Raises BadInput where the file is damaged or newer, Conflict where it is another study's.
        """
        try:
            found: dict[str, Any] = files.read_json(self.file)
            written = int(found["format"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{self.file} is no record of a cell: {type(error).__name__}: {error}",
                remedy="restore it, or take it away and run the cell again",
            ) from error
        if written > FORMAT:
            raise BadInput(f"{self.file} was written by a newer version", remedy="update dualview")
        if found["study"] != self.study:
            raise Conflict(
                f"{self.file} is a cell of study '{found['study']}', not of '{self.study}'",
                remedy="give each study a folder of its own: --cells DIR",
            )
        return found

    @property
    def done(self) -> bool:
        """A record of these very options is there. Whether its data are today's, `state.judge` says."""
        found = self.record()
        return found is not None and not self.changed(found)

    def changed(self, record: dict[str, Any]) -> list[str]:
        """Which options differ from those of a record, in words. An option that came later had its default then."""
        then, now = record["config"], self.options
        was = {name: then.get(name, DEFAULTS[name]) for name in now}
        told = [f"{name} was {was[name]!r}, is {now[name]!r}" for name in now if was[name] != now[name]]
        told += [f"{name} is no option any more" for name in then if name not in now]
        if sorted(record[SHUFFLE]) != sorted(self.shuffle):
            told.append(f"shuffle was {sorted(record[SHUFFLE])}, is {sorted(self.shuffle)}")
        return told


@dataclass(frozen=True)
class Study:
    """A grid. reference: the tower that gains are relative to. folder: where cells leave their records."""

    path: Path
    name: str
    data: dict[str, Data]
    backbones: tuple[str, ...]
    baselines: tuple[str, ...]
    towers: tuple[str, ...]
    seeds: tuple[int, ...]
    reference: str
    folder: Path
    grid: tuple[Cell, ...] = field(repr=False)

    kind: ClassVar[str] = "sequential"

    @classmethod
    def read(cls, path: str | Path, *, cells: str | Path | None = None) -> Study:
        """Read and check a study.toml. cells: folder of the records, by default `cells` beside it.

        Raises NotFound, and BadInput that names file, line and table.
        """
        from recommender.study.document import Document
        from recommender.study.reading import Reader

        path = Path(path)
        document, folder = Document(path), Path(cells) if cells is not None else path.parent / "cells"
        kind = document.tables.get("kind", cls.kind)
        if kind == "msr":
            from recommender.msr.study.reading import MsrReader

            return MsrReader(document, folder).study()
        if kind != "sequential":
            remedy = did_you_mean(str(kind), ("sequential", "msr"))
            raise document.refusal(f"unknown kind '{kind}'", "kind", remedy=remedy)
        return Reader(document, folder).study()

    def prepare(self, device: str = "auto", progress: Any = None) -> list[dict[str, Any]]:
        """Make what cells read and a release does not hold; one report for each thing that was made."""
        return []

    def cells(self) -> list[Cell]:
        """All cells: data set by data set, in each the baselines, then seed by seed."""
        return list(self.grid)

    def select(
        self,
        *,
        data: Sequence[str] = (),
        backbone: Sequence[str] = (),
        tower: Sequence[str] = (),
        seed: Sequence[int] = (),
    ) -> list[Cell]:
        """The cells that these name; an axis without a name is whole. Raises BadInput with the nearest name."""
        known: dict[str, tuple[Any, ...]] = self._axes
        for axis, asked in {"data": data, "backbone": backbone, "tower": tower, "seed": seed}.items():
            for value in asked:
                if value not in known[axis]:
                    raise BadInput(
                        f"study {self.name} has no {axis} '{value}'",
                        remedy=did_you_mean(str(value), map(str, known[axis])),
                    )
        return [
            cell
            for cell in self.grid
            if (not data or cell.data in data)
            and (not backbone or cell.backbone in backbone)
            and (not tower or cell.tower in tower)
            and (not seed or cell.seed in seed)
        ]

    @cached_property
    def _axes(self) -> dict[str, tuple[Any, ...]]:
        return {
            "data": tuple(self.data),
            "backbone": (*self.backbones, *self.baselines),
            "tower": self.towers,
            "seed": self.seeds,
        }
