"""Which cells are done: a record counts while its options, its events and the vectors that it read are today's.

A newer release outdates nothing by being newer. Only where its manifest is another are events and vectors compared, and
only those of the features that the cell reads. Where a release is not at hand (records travel without stores), a
record is judged by its options.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from featurestore import files
from featurestore import release as releases
from featurestore.errors import NotFound
from featurestore.release import Release
from recommender.study.grid import Cell, Study

VECTORS = ("rows", "values", "offsets")  # the files of a feature that a model reads


class State(StrEnum):
    NEW = "new"
    TRAINED = "trained"  # its test is closed
    TESTED = "tested"
    OUTDATED = "outdated"


class Sources:
    """The releases of a study, each opened when it is first asked for."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._opened: dict[str, Release] = {}
        self._facts: dict[str, dict[str, str]] = {}
        self._splits: dict[tuple[Any, ...], str] = {}

    def release(self, data: str) -> Release:
        """Raises NotFound that names the data set's folder."""
        if data not in self._opened:
            place = self.study.data[data]
            try:
                self._opened[data] = releases.open(place.root, place.release)
            except NotFound as error:
                raise NotFound(f"data {data}: {error.message}", remedy=error.remedy) from error
        return self._opened[data]

    def there(self, data: str) -> bool:
        try:
            self.release(data)
        except NotFound:
            return False
        return True

    def facts(self, data: str) -> dict[str, str]:
        """Name of the release and sha256 of its manifest."""
        if data not in self._facts:
            release = self.release(data)
            path = release.root / "releases" / release.name / releases.MANIFEST
            self._facts[data] = {"name": release.name, "manifest_sha256": files.sha256_file(path)}
        return self._facts[data]

    def features(self, data: str, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Of each feature its recipe, and one hash of its vectors' files, or of its texts. Raises NotFound."""
        found = {}
        for name in names:
            facts = self.release(data).facts(name)
            if "column" in facts:
                told: list[str | None] = self.release(data).catalogue[facts["column"]].to_pylist()
                texts = files.sha256_text(files.canonical_json(told))
                found[name] = {"recipe": str(facts["recipe_id"]), "sha256": texts}
                continue
            hashes = {part: facts["files"][part]["sha256"] for part in VECTORS if part in facts["files"]}
            sha256 = files.sha256_text(files.canonical_json(hashes))
            found[name] = {"recipe": str(facts["recipe_id"]), "sha256": sha256}
        return found

    def split_hash(self, cell: Cell) -> str:
        from recommender.data import split_of

        config = cell.config
        key = (cell.data, config.split, config.hide_items, config.hide_seed, config.k_core)
        if key not in self._splits:
            self._splits[key] = split_of(self.release(cell.data), cell.config).hash
        return self._splits[key]


def judge(cell: Cell, sources: Sources) -> tuple[State, str | None]:
    """Where a cell stands and, of an outdated one, why."""
    record = cell.record()
    if record is None:
        return State.NEW, None
    why = cell.changed(record)
    if not why and sources.there(cell.data):
        why = _other_data(cell, record, sources)
    if why:
        return State.OUTDATED, "; ".join(why)
    return (State.TRAINED if record["test"] is None else State.TESTED), None


def _other_data(cell: Cell, record: dict[str, Any], sources: Sources) -> list[str]:
    if record["release"]["manifest_sha256"] == sources.facts(cell.data)["manifest_sha256"]:
        return []
    told = []
    if record["split_hash"] != sources.split_hash(cell):
        told.append("the release has other events")
    try:
        now = sources.features(cell.data, record["features"])
    except NotFound as error:
        return [*told, error.message]
    then = record["features"]
    told += [
        f"feature {name} has other vectors" for name in now if now[name]["sha256"] != then[name]["sha256"]
    ]
    return [*told, *cell.read_else(record, sources)]
