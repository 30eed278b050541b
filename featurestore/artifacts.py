"""What recipes name besides options (fitted weights, vocabularies, prompts), kept under its sha256.

An artifact is a folder of files. It is written once, aside, and renamed into place; what is there is never changed.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from featurestore import files
from featurestore.errors import NotFound

REFUSED = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt")  # pickles: reading one back may run its code
SHA256 = re.compile(r"[0-9a-f]{64}")


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
        with self._aside() as aside:
            for name, data in contents.items():
                target = aside / name
                if aside.resolve() not in target.resolve().parents:
                    raise ValueError(f"'{name}' lies outside its artifact")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            return self._settle(aside)

    def verify(self, sha256: str) -> bool:
        """Whether what is kept under this hash still has it."""
        return files.sha256_folder(self.path(sha256)) == sha256

    def _place(self, sha256: str) -> Path:
        if not SHA256.fullmatch(sha256):
            raise ValueError(f"'{sha256}' is no sha256")
        return self.folder / sha256[:2] / sha256

    @contextmanager
    def _aside(self) -> Iterator[Path]:
        """A new folder to write to, gone afterwards unless it was renamed."""
        aside = self.folder / f".{uuid.uuid4().hex}.part"
        with files.disk_errors(f"an artifact in {self.folder}"):
            try:
                aside.mkdir(parents=True)
                yield aside
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def _settle(self, aside: Path) -> str:
        kept = [path for path in aside.rglob("*") if path.is_file()]
        for path in kept:
            name = path.relative_to(aside)
            if path.suffix.lower() in REFUSED or any(part.startswith(".") for part in name.parts):
                raise ValueError(f"'{name}' is no name for a file of an artifact")
        if not kept:
            raise ValueError("an artifact holds at least one file")
        sha256 = files.sha256_folder(aside)
        place = self._place(sha256)
        if place.is_dir() and files.sha256_folder(place) != sha256:
            shutil.rmtree(place)  # damaged since it was written
        if not place.is_dir():
            files.flush_tree(aside)
            files.make_folder(place.parent)
            files.rename(aside, place)
        return sha256
