"""A release carried to another machine: a folder with releases/ and derived/, and the runs trained beside them.

`export --to release` writes one. It is no store: nothing is ingested or computed there, and what is read of it takes
numpy and pyarrow alone.
"""

from __future__ import annotations

from pathlib import Path

from featurestore import release as releases
from featurestore.errors import NotFound
from featurestore.release import LATEST, Release


class Carried:
    """What training, evaluation and answers need of a store: its folder and its releases."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def open(cls, root: str | Path) -> Carried:
        """Raises NotFound where there is no release."""
        folder = Path(root).expanduser().resolve()
        if not releases.names(folder):
            raise NotFound(
                f"{folder} holds no release",
                remedy="bring one from a store: dualview export STORE FOLDER --to release",
            )
        return cls(folder)

    def release(self, name: str = LATEST) -> Release:
        """Open a release. Raises NotFound."""
        return releases.open(self.root, name)

    def releases(self) -> list[Release]:
        """All releases, newest first."""
        return releases.every(self.root)[::-1]
