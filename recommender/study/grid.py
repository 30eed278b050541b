"""The grid of a study: which cells there are, and every cell's options, resolved.

Options are taken from general to particular: [options], [data.D.options], [backbone.B], [data.D.backbone.B],
[tower.T], [data.D.tower.T]; the later wins. What is held out, and how it is ranked, is the same for all cells of a
data set, since figures of different protocols are not to stand in one table. Everything is checked when the study is
read, before anything is trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from featurestore import files
from featurestore.errors import BadInput, did_you_mean
from recommender.config import Config
from recommender.study.document import Document

SETTINGS = (
    "name", "seeds", "backbones", "baselines", "towers", "reference",
    "data", "options", "backbone", "tower", "only", "skip",
)  # fmt: skip
OF_DATA = ("release", "options", "backbone", "tower")
BACKBONES: tuple[str, ...] = get_args(Config.model_fields["backbone"].annotation)
BASELINES = ("popularity", "item_knn", "chance")
AXES = {"backbone": "backbones", "seed": "seeds"}  # options that the grid sets, and the list each comes from
PROTOCOL = ("split", "repeat", "k_core")
SHUFFLE = "shuffle"
LATEST = "latest"
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

    @property
    def baseline(self) -> bool:
        return self.tower is None

    @property
    def name(self) -> str:
        """ "amazon--sasrec--id--0", "amazon--popularity"."""
        parts = (self.data, self.backbone, self.tower, self.seed)
        return "--".join(str(part) for part in parts if part is not None)

    @property
    def options(self) -> dict[str, Any]:
        """All that decides the result besides the data; of a baseline, what is held out and how it is ranked."""
        every = self.config.model_dump(mode="json")
        return {name: every[name] for name in PROTOCOL} if self.baseline else every

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
        """What the cell left, whether or not it is of today's options; None where it was never done."""
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

    @classmethod
    def read(cls, path: str | Path, *, cells: str | Path | None = None) -> Study:
        """Read and check a study.toml. cells: folder of the records, by default `cells` beside it.

        Raises NotFound, and BadInput that names file, line and table.
        """
        path = Path(path)
        return _Reader(Document(path), Path(cells) if cells is not None else path.parent / "cells").study()

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


class _Reader:
    def __init__(self, document: Document, folder: Path) -> None:
        self.document, self.folder = document, folder

    def study(self) -> Study:
        document = self.document
        document.known(document.tables, SETTINGS)
        name = document.text("name")
        document.nameable(name, "name")
        data = {name: self._data(name) for name in document.table("data")}
        backbones = document.names("backbones", known=BACKBONES)
        baselines = document.names("baselines", known=BASELINES)
        in_file = tuple(document.table("tower"))
        towers = document.names("towers", known=in_file) if "towers" in document.tables else in_file
        seeds = self._seeds()
        if not data:
            raise BadInput(
                f"{document.path.name} names no data", remedy="add [data.NAME] with release = FOLDER"
            )
        if not baselines and not (backbones and towers and seeds):
            raise BadInput(
                f"{document.path.name} has no cell to train",
                remedy="give backbones, seeds and a [tower.NAME]",
            )
        self._check_tables(data, in_file)
        if towers:
            reference = document.text("reference") if "reference" in document.tables else towers[0]
            if reference not in towers:
                raise document.refusal(
                    f"unknown tower '{reference}'", "reference", remedy=did_you_mean(reference, towers)
                )
        else:
            reference = ""
        cells: list[Cell] = []
        for one in data:
            cells += [self._cell(name, one, baseline, None, None) for baseline in baselines]
            for seed in seeds:
                cells += [self._cell(name, one, b, t, seed) for b in backbones for t in towers]
        axes = {"data": data, "backbone": (*backbones, *baselines), "tower": towers, "seed": seeds}
        only, skip = self._rules("only", axes), self._rules("skip", axes)
        kept = [
            cell
            for cell in cells
            if (not only or cell.baseline or any(_meets(cell, rule) for rule in only))
            and not any(_meets(cell, rule) for rule in skip)
        ]
        if not kept:
            raise BadInput(f"{document.path.name}: only and skip leave no cell")
        return Study(
            path=document.path,
            name=name,
            data=data,
            backbones=backbones,
            baselines=baselines,
            towers=towers,
            seeds=seeds,
            reference=reference,
            folder=self.folder,
            grid=tuple(kept),
        )

    def _seeds(self) -> tuple[int, ...]:
        found = self.document.tables.get("seeds", [0])
        whole = isinstance(found, list) and all(type(seed) is int and seed >= 0 for seed in found)
        if not whole or len(set(found)) < len(found) or not found:
            raise self.document.refusal("seeds must be different whole numbers from 0 up", "seeds")
        return tuple(found)

    def _data(self, name: str) -> Data:
        document = self.document
        document.nameable(name, "data", name)
        document.known(document.table("data", name), OF_DATA, "data", name)
        given = document.text("data", name, "release")
        place, at, release = given.rpartition("@")
        if not at or not place or "/" in release or (document.path.parent / given).exists():
            place, release = given, LATEST
        return Data(name, document.path.parent / place, release)

    def _check_tables(self, data: Iterable[str], towers: Sequence[str]) -> None:
        """Every table of options, those too that no cell reads."""
        document = self.document
        self._check_options("options", shared=True)
        for of in ((), *(("data", name) for name in data)):
            document.known(document.table(*of, "backbone"), BACKBONES, *of, "backbone", what="backbone")
            document.known(document.table(*of, "tower"), towers, *of, "tower", what="tower")
            if of:
                self._check_options(*of, "options", shared=True)
            for backbone in document.table(*of, "backbone"):
                self._check_options(*of, "backbone", backbone)
            for tower in document.table(*of, "tower"):
                document.nameable(tower, *of, "tower", tower)
                self._check_options(*of, "tower", tower, more=(SHUFFLE,))

    def _check_options(self, *keys: str, shared: bool = False, more: tuple[str, ...] = ()) -> None:
        document = self.document
        table = document.table(*keys)
        for name in table:
            if name in AXES:
                raise document.refusal(
                    f"{name} is an axis of the study", *keys, name, remedy=f"list it in {AXES[name]}"
                )
            if name in PROTOCOL and not shared:
                raise document.refusal(
                    f"{name} must be the same for all cells of a data set",
                    *keys,
                    name,
                    remedy="set it in [options] or [data.NAME.options]",
                )
        document.known(table, (*Config.model_fields, *more), *keys, what="training option")
        shuffled = table.get(SHUFFLE, [])
        if not isinstance(shuffled, list) or not all(isinstance(name, str) for name in shuffled):
            raise document.refusal("shuffle must be a list of features", *keys, SHUFFLE)

    def _cell(self, study: str, data: str, backbone: str, tower: str | None, seed: int | None) -> Cell:
        tables: list[tuple[str, ...]] = [("options",), ("data", data, "options")]
        if tower is not None:
            tables += [("backbone", backbone), ("data", data, "backbone", backbone)]
            tables += [("tower", tower), ("data", data, "tower", tower)]
        given: dict[str, Any] = {}
        origin: dict[str, tuple[str, ...]] = {}
        for keys in tables:
            for name, value in self.document.table(*keys).items():
                given[name], origin[name] = value, (*keys, name)
        shuffled = tuple(given.pop(SHUFFLE, ()))
        if tower is None:
            given = {name: value for name, value in given.items() if name in PROTOCOL}
        else:
            given |= {"backbone": backbone, "seed": seed}
        config = self._config(given, origin, f"{data}, {backbone}" + (f", {tower}" if tower else ""))
        for name in shuffled:
            if name not in config.features:
                raise self.document.refusal(
                    f"shuffle names '{name}', which is not in items '{config.items}'",
                    *origin[SHUFFLE],
                    remedy=did_you_mean(name, config.features),
                )
        return Cell(study, data, backbone, tower, seed, config, shuffled, self.folder)

    def _config(self, given: dict[str, Any], origin: dict[str, tuple[str, ...]], cell: str) -> Config:
        try:
            return Config(**given)
        except ValidationError as error:
            told = []
            for part in error.errors():
                name = str(part["loc"][0]) if part["loc"] else None
                says = part["msg"].removeprefix("Value error, ")
                if name in origin:
                    told.append(f"{self.document.at(*origin[name])}: {name}: {says}")
                else:
                    told.append(f"{self.document.path.name}, cell {cell}: {says}")
            raise BadInput("; ".join(told), remedy="see `dualview train --options`") from None

    def _rules(self, key: str, axes: dict[str, Any]) -> list[dict[str, list[Any]]]:
        """[[only]] or [[skip]]: axis -> values. A rule meets a cell with one of its values on every axis it names."""
        document = self.document
        given = document.tables.get(key, [])
        if not isinstance(given, list) or not all(isinstance(rule, dict) and rule for rule in given):
            raise document.refusal(f"{key} must be tables, each with a [[{key}]] above it", key)
        rules = []
        for rule in given:
            document.known(rule, axes, key, what="axis")
            listed = {axis: value if isinstance(value, list) else [value] for axis, value in rule.items()}
            for axis, values in listed.items():
                for value in values:
                    if value not in axes[axis]:
                        near = did_you_mean(str(value), map(str, axes[axis]))
                        raise document.refusal(f"unknown {axis} '{value}'", key, axis, remedy=near)
            rules.append(listed)
        return rules


def _meets(cell: Cell, rule: dict[str, list[Any]]) -> bool:
    return all(getattr(cell, axis) in values for axis, values in rule.items())
