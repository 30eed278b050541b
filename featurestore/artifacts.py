"""What recipes name besides options (fitted weights, vocabularies, prompts), kept under its sha256.

An artifact is a folder of files. It is written once, aside, and renamed into place; what is there is never changed.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from featurestore import files
from featurestore.errors import NotFound

REFUSED = (".pkl", ".pickle", ".joblib")  # would run code when read back


class Artifacts:
    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, sha256: str) -> Path:
        """The artifact's folder. Raises NotFound."""
        found = self._place(sha256)
        if not found.is_dir():
            raise NotFound(
                f"artifact {sha256[:12]} is not in {self.folder}",
                remedy="copy the store whole, or fit the feature again: dualview fit STORE FEATURE --refit",
            )
        return found

    def has(self, sha256: str) -> bool:
        return self._place(sha256).is_dir()

    def put(self, contents: Mapping[str, bytes]) -> str:
        """Keep files (name -> content) as one artifact; returns its sha256."""
        aside = self._aside()
        try:
            for name, data in contents.items():
                target = aside / name
                if aside.resolve() not in target.resolve().parents or target.suffix in REFUSED:
                    raise ValueError(f"'{name}' is no name for a file of an artifact")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            return self._settle(aside)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def put_folder(self, source: str | Path) -> str:
        """Keep a copy of a folder; returns its sha256."""
        aside = self._aside()
        try:
            shutil.copytree(source, aside, dirs_exist_ok=True)
            return self._settle(aside)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def put_bytes(self, name: str, data: bytes) -> str:
        return self.put({name: data})

    def verify(self, sha256: str) -> bool:
        """Whether what is kept under this hash still has it."""
        return files.sha256_folder(self.path(sha256)) == sha256

    def _place(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def _aside(self) -> Path:
        aside = self.folder / f".{uuid.uuid4().hex}.part"
        aside.mkdir(parents=True)
        return aside

    def _settle(self, aside: Path) -> str:
        sha256 = files.sha256_folder(aside)
        place = self._place(sha256)
        if not place.is_dir():
            for path in aside.rglob("*"):
                if path.is_file():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(aside, place)
            files.flush_folder(place.parent)
        return sha256
