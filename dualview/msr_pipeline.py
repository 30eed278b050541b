"""From raw files to the table of MLLM-MSR, as one msr.toml says: a store, preferences, fine-tuned models, figures.

Every step sees what is there and does what is not: a killed call is completed by the same call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualview.store import Store, preset_toml
from featurestore.errors import BadInput, NotFound

if TYPE_CHECKING:
    from ingest.load import IngestReport
    from recommender.msr.study.grid import MsrStudy
    from recommender.msr.study.report import Row
    from recommender.study.runner import Outcome

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Made:
    """What a call did. rows: of the table, as far as cells are done; part: "test", or "valid" while it is closed."""

    study: MsrStudy
    outcomes: list[Outcome]
    rows: list[Row]
    part: str
    files: list[Path]

    def to_dict(self) -> dict[str, Any]:
        from recommender.compare import spread

        return {
            "study": self.study.name,
            "part": self.part,
            "cells": [one.to_dict() for one in self.outcomes],
            "table": [
                {
                    "scorer": row.name,
                    "of": row.of,
                    "seeds": row.seeds,
                    "metrics": {name: spread(values)[0] for name, values in row.values.items()},
                    "against": row.against,
                    "above_chance": row.above,
                }
                for row in self.rows
            ],
            "files": [str(path) for path in self.files],
        }


def read(path: str | Path, cells: Path | None = None) -> MsrStudy:
    """The study of an msr.toml. Raises BadInput for one of another kind."""
    from recommender.msr.study.grid import MsrStudy
    from recommender.study import Study

    study = Study.read(path, cells=cells)
    if not isinstance(study, MsrStudy):
        raise BadInput(
            f'{path} is no study of kind "msr"', remedy='dualview study run, or kind = "msr" in it'
        )
    return study


def plan(study: MsrStudy, *, test: bool = True, again: bool = False) -> dict[str, Any]:
    """What `run` would do: whether a store would be made, and which cells. Nothing is written."""
    from recommender.study import runner
    from recommender.study.state import Sources

    root = next(iter(study.data.values())).root
    try:
        left = [cell.name for cell in runner.todo(study.cells(), Sources(study), test=test, again=again)[0]]
    except NotFound:
        left = [cell.name for cell in study.cells()]
    return {
        "study": study.name,
        "store": str(root),
        "makes_store": not (root / "store.json").exists(),
        "cells": left,
        "of": len(study.cells()),
    }


def run(
    study: MsrStudy,
    out: Path,
    *,
    jobs: int = 1,
    test: bool = True,
    again: bool = False,
    device: str = "auto",
    until: float | None = None,
    wait: float | None = None,
    say: Say | None = None,
    told: Callable[[Outcome], None] | None = None,
    progress: Any = None,
) -> Made:
    """All of it. out: folder of runs, and of REPORT.md. test: open the test set of each cell, once. again: cells whose
    options or data changed since, too. until: seconds after which training stops, to go on the next time.
    """
    from recommender.msr.study import report
    from recommender.study import results, runner

    tell = say or (lambda line: None)
    make_store(study, wait=wait, say=tell, progress=progress)
    for found in study.prepare(device, progress):
        if found["computed"]:
            tell(
                f"preferences {found['variant']}: {found['computed']:,} states of {found['users']:,} users made"
            )
        if found["error"] or found["failed"]:
            tell(f"preferences {found['variant']}: {found['error'] + found['failed']:,} states failed")
    outcomes = runner.run(
        study, study.cells(), out, jobs=jobs, test=test, again=again, device=device, until=until, told=told
    )
    done = results(study)
    if not done:
        return Made(study, outcomes, [], "valid", [])
    files = report.write(study, done, out)
    rows, part = report.table(study, done)
    return Made(study, outcomes, rows, part, files)


def make_store(study: MsrStudy, *, wait: float | None = None, say: Say, progress: Any = None) -> None:
    """The study's store, ingested, materialized and published where it is not there or has no release yet.

    A store with a release is left as it is, whatever the raw files say now: figures stand on it.
    """
    data, raw = next(iter(study.data.values())), study.raw
    if (data.root / "store.json").exists():
        store = Store.open(data.root)
        if _published(store):
            return
    elif raw.items is None:
        raise NotFound(
            f"there is no store {data.root}, and {study.path.name} does not say what to make it of",
            remedy=f"[data.{data.name}] items = FILE and interactions = FILE, or make the store first",
        )
    else:
        for path in (raw.items, raw.interactions, raw.features, *raw.texts.values()):
            if path is not None and not path.exists():
                raise NotFound(
                    f"{study.path.name}: there is no {path}", remedy=f"correct it in [data.{data.name}]"
                )
        text = raw.features.read_text(encoding="utf-8") if raw.features else preset_toml("offline")
        store = Store.create(data.root, text)
        say(f"store {data.root} made")
    if raw.items is not None:
        read = store.ingest(
            raw.items,
            raw.interactions,
            format=raw.format,
            images_root=raw.images_root,
            wait=wait,
            progress=progress,
        )
        say(f"ingested: {_line(read)}")
    for feature, file in raw.texts.items():
        store.import_texts(feature, file, wait=wait, progress=progress)
    made = store.materialize(wait=wait, progress=progress)
    if made.errors:
        say(f"{made.errors:,} cells failed: dualview errors {data.root}")
    release = store.publish(wait=wait)
    say(f"release {release.name} published")


def _published(store: Store) -> bool:
    try:
        store.release("latest")
    except NotFound:
        return False
    return True


def _line(report: IngestReport) -> str:
    parts = [("items", report.items), ("events", report.events)]
    told = [
        f"{kind} {name} {count:,}"
        for kind, part in parts
        if part is not None
        for name, count in part.to_dict().items()
        if count
    ]
    aside = sum(report.quarantined.values())
    return ", ".join([*told, *([f"set aside {aside:,}"] if aside else [])])
