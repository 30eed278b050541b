"""A release as it is: its manifest and every derived file that this names, for a machine without the store.

The folder is opened as a store's releases are (`featurestore.release.open`), with numpy and pyarrow alone. Files are
copied, not linked, and a copy whose hash is not the manifest's is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from featurestore import files, remedies
from featurestore.errors import Conflict, NotFound
from featurestore.export.base import Planned, Source
from featurestore.release import MANIFEST, Release


def plan(source: Source) -> Iterator[Planned]:
    release = source.release
    seen = set()
    for path, entry in release.files():
        if path not in seen:  # one file may serve two features
            seen.add(path)
            name = f"derived/{entry['derived']}/{entry['file']}"
            yield Planned(name, entry["bytes"], partial(_copy, release, path, entry))
    size = len(files.canonical_json(release.manifest))
    write = partial(_write, release.manifest)
    yield Planned(f"releases/{release.name}/{MANIFEST}", size, write)  # last: with it the release is there


def _write(manifest: dict[str, Any], path: Path) -> None:
    files.write_json(path, manifest)


def _copy(release: Release, path: Path, entry: dict[str, Any], to: Path) -> None:
    found = hashlib.sha256()
    try:
        with path.open("rb") as source, to.open("xb") as sink:
            while block := source.read(files.CHUNK):
                found.update(block)
                sink.write(block)
    except FileNotFoundError:
        raise NotFound(
            f"{path}, a file of release {release.name}, is gone", remedy=remedies.rebuild(release)
        ) from None
    if found.hexdigest() != entry["sha256"]:
        raise Conflict(
            f"{path} is not what release {release.name} wrote: its hash is another one",
            remedy=remedies.rebuild(release),
        )
