"""`doctor`: what may be wrong with this machine, a store and its models, each finding with its remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """about: what was looked at. level: ok; a note, with which everything works; or a problem, which needs mending."""

    about: str
    level: Level
    says: str
    remedy: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(store: str | Path | None = None, *, deep: bool = False) -> list[Finding]:
    """Look at this machine and, where one is given, at a store and the models that its features name.

    deep: read every file that a release or an artifact consists of, every key and every picture's file, instead of
    their sizes and a sample. Writes nothing. Raises NotFound where there is no store.
    """
    from dualview.doctor import machine, models, shelves
    from dualview.store import Store

    opened = Store.open(store) if store is not None else None
    found = machine.examine(opened.root if opened else Path.cwd())
    if opened is not None:
        found += shelves.examine(opened, deep) + models.examine(opened)
    return found
