"""From a study's file to its grid: every table checked, every cell's options resolved, before anything is trained.

Options are taken from general to particular, and the later wins: [options], [data.D.options], [backbone.B],
[data.D.backbone.B], [tower.T], [tower.T.backbone.B], [data.D.tower.T], [data.D.tower.T.backbone.B]. What is held out,
and how it is ranked, is the same for all cells of a data set: figures of different protocols are not to stand in one
table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from featurestore.errors import BadInput, did_you_mean
from recommender.config import ID, Config
from recommender.study.document import Document
from recommender.study.grid import PROTOCOL, SHUFFLE, Cell, Data, Study

SETTINGS = (
    "kind", "name", "seeds", "backbones", "baselines", "towers", "reference",
    "data", "options", "backbone", "tower", "only", "skip",
)  # fmt: skip
OF_DATA = ("release", "options", "backbone", "tower")
BACKBONES: tuple[str, ...] = get_args(Config.model_fields["backbone"].annotation)
BASELINES = ("popularity", "item_knn", "chance")
CONTENT = "content_knn:"  # and features joined by +
AXES = {"backbone": "backbones", "seed": "seeds"}  # options that the grid sets, and the list each comes from
LATEST = "latest"


class Reader:
    """Makes the study of a document. folder: where its records are."""

    def __init__(self, document: Document, folder: Path) -> None:
        self.document, self.folder = document, folder

    def study(self) -> Study:
        document = self.document
        document.known(document.tables, SETTINGS)
        name = document.text("name")
        document.nameable(name, "name")
        data = {name: self._data(name) for name in document.table("data")}
        backbones = document.names("backbones", known=BACKBONES)
        baselines = self._baselines()
        in_file = tuple(document.table("tower"))
        towers = document.names("towers", known=in_file) if "towers" in document.tables else in_file
        seeds = seeds_of(document)
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

    def _baselines(self) -> tuple[str, ...]:
        """Known floors, and neighbours by the content of the features that are named: content_knn:text+image."""
        given = self.document.tables.get("baselines", [])
        content = [name for name in given if str(name).startswith(CONTENT)] if isinstance(given, list) else []
        for name in content:
            features = name.removeprefix(CONTENT).split("+")
            if not all(features) or len(set(features)) < len(features) or ID in features:
                raise self.document.refusal(
                    f"'{name}' must name different features",
                    "baselines",
                    remedy="as in content_knn:text+image",
                )
            for feature in features:
                self.document.nameable(feature, "baselines")
        if isinstance(given, list) and CONTENT[:-1] in given:
            raise self.document.refusal(
                "content_knn is of a feature", "baselines", remedy="name it, as in content_knn:text"
            )
        return self.document.names("baselines", known=(*BASELINES, *content))

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
                on = (*of, "tower", tower, "backbone")
                if self._on_backbones(*on[:-1]):
                    document.known(document.table(*on), BACKBONES, *on, what="backbone")
                    for backbone in document.table(*on):
                        self._check_options(*on, backbone, more=(SHUFFLE,))

    def _check_options(self, *keys: str, shared: bool = False, more: tuple[str, ...] = ()) -> None:
        document = self.document
        table = _options(document.table(*keys))
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
            for of in (("tower", tower), ("data", data, "tower", tower)):
                tables += [of, (*of, "backbone", backbone)] if self._on_backbones(*of) else [of]
        given: dict[str, Any] = {}
        origin: dict[str, tuple[str, ...]] = {}
        for keys in tables:
            for name, value in _options(self.document.table(*keys)).items():
                given[name], origin[name] = value, (*keys, name)
        shuffled = tuple(given.pop(SHUFFLE, ()))
        if tower is None:
            given = {name: value for name, value in given.items() if name in PROTOCOL}
            if backbone.startswith(CONTENT):
                given["items"] = backbone.removeprefix(CONTENT)
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

    def _on_backbones(self, *tower: str) -> bool:
        """Whether a tower has options apart for some backbones."""
        return isinstance(self.document.table(*tower).get("backbone"), dict)

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


def _options(table: dict[str, Any]) -> dict[str, Any]:
    """A table's options, without the tables that it has for backbones."""
    return {name: value for name, value in table.items() if name != "backbone" or not isinstance(value, dict)}


def _meets(cell: Cell, rule: dict[str, list[Any]]) -> bool:
    return all(getattr(cell, axis) in values for axis, values in rule.items())


def seeds_of(document: Document) -> tuple[int, ...]:
    found = document.tables.get("seeds", [0])
    whole = isinstance(found, list) and all(type(seed) is int and seed >= 0 for seed in found)
    if not whole or len(set(found)) < len(found) or not found:
        raise document.refusal("seeds must be different whole numbers from 0 up", "seeds")
    return tuple(found)
