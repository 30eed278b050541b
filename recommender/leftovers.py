"""What of `runs/` nothing needs, and which releases runs do: the share of this floor in `gc`.

Training holds no lock. A folder without run.json may belong to a process that is still preparing its first step, so it
is left alone until nothing in it was written for a day; while there is such a folder, every release is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from featurestore import gc
from featurestore import release as releases
from featurestore.gc import Waste
from featurestore.release import Release
from recommender.runs import list_runs


def needed(store_root: Path) -> dict[str, str]:
    """Releases that runs learnt from, each with what needs it."""
    found = {run.release: f"run {run.name}" for run in list_runs(store_root) if run.release}
    starting = [folder for folder in _half_made(store_root) if gc.fresh(folder)]
    if starting:
        reason = f"run {starting[0].name}, which is being started"
        found = dict.fromkeys(releases.names(store_root), reason) | found
    return found


def waste(store_root: Path, stay: Iterable[Release]) -> Iterator[Waste]:
    """Runs that never began, and vectors that runs made for weights or releases that are no more."""
    for folder in _half_made(store_root):
        if not gc.fresh(folder):
            yield _whole("half-made runs", folder)
    for run in list_runs(store_root):
        folders = sorted((run.folder / "served").glob("[!.]*/"))
        if folders:
            from recommender.served import keys

            current = keys(run, stay)
            yield from (_whole("served vectors", folder) for folder in folders if folder.name not in current)


def _half_made(store_root: Path) -> list[Path]:
    home = store_root / "runs"
    return sorted(path for path in home.glob("[!.]*/") if not (path / "run.json").exists())


def _whole(kind: str, folder: Path) -> Waste:
    return Waste(kind, gc.size(folder), lambda: gc.discard(folder))
