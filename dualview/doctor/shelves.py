"""A store: its lock, tables, releases, artifacts, pictures and runs, looked at without changing anything."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from dualview.doctor import Finding
from dualview.store import Store
from featurestore import files, images, pending
from featurestore import release as releases
from featurestore.errors import DualviewError
from featurestore.lock import WriterLock
from featurestore.tables import SMALL_FILES, SMALL_ROWS, key_of

PICTURES = 1000  # files looked at unless all are asked for, spread evenly
MANY_VERSIONS = 200
ANEW = "restore the folder from a copy; a feature's table can be deleted and materialized again"


def examine(store: Store, deep: bool) -> list[Finding]:
    tables = [*_tables(store, deep), *_releases(store, deep), *_artifacts(store, deep)]
    return [_lock(store), *_pending(store), *tables, *_pictures(store, deep), *_runs(store)]


def _lock(store: Store) -> Finding:
    lock, path = WriterLock(store.root), store.root / "writer.lock"
    holder = lock.holder()
    if not os.access(store.root, os.W_OK):
        return Finding(
            "lock", "note", f"{store.root} may only be read by you", "ask its owner, where you write"
        )
    if path.exists() and _held(path):
        who = f"'{holder['verb']}', process {holder['pid']} on {holder['host']}" if holder else "a process"
        return Finding("lock", "note", f"{who} is writing", "wait for it to end, or give --wait SECONDS")
    if holder:
        says = f"'{holder['verb']}' of {holder['since']} (process {holder['pid']}) ended without finishing"
        return Finding("lock", "note", says, "run the same command again: it goes on where it was")
    return Finding("lock", "ok", "nobody is writing")


def _pending(store: Store) -> list[Finding]:
    says = pending.notice(store.root)
    return [Finding("lock", "note", says, "run it again, or any verb that writes")] if says else []


def _held(path: Path) -> bool:
    with path.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _tables(store: Store, deep: bool) -> list[Finding]:
    found: list[Finding] = []
    rows = 0
    for name in store.tables.names():
        try:
            rows += store.tables.count(name)
            found += _table(store, name, deep)
        except (
            OSError,
            ValueError,
            RuntimeError,
        ) as error:  # what Lance says of a file that is gone or damaged
            says = f"'{name}' cannot be read: {str(error).splitlines()[0][:200]}"
            found.append(Finding("tables", "problem", says, ANEW))
    checked = "; no key stands twice" if deep else ""
    fine = Finding("tables", "ok", f"{len(store.tables.names())} tables, {rows:,} rows{checked}")
    return found or [fine]


def _table(store: Store, name: str, deep: bool) -> list[Finding]:
    found = []
    dataset = store.tables.dataset(name)
    small, versions = dataset.stats.dataset_stats(SMALL_ROWS)["num_small_files"], len(dataset.versions())
    if small > SMALL_FILES:
        says = f"'{name}' lies in {small} small files, which slows reading"
        found.append(Finding("tables", "note", says, "the next write into it merges them"))
    if versions > MANY_VERSIONS:
        says = f"'{name}' keeps {versions:,} versions"
        found.append(Finding("tables", "note", says, f"dualview gc {store.root}"))
    if deep and (twice := _doubled(store, name)):
        found.append(Finding("tables", "problem", f"'{name}' holds {twice:,} keys more than once", ANEW))
    return found


def _doubled(store: Store, name: str) -> int:
    import pyarrow.compute as pc

    key = key_of(store.tables.schema(name))
    keys = store.tables.read(name, columns=[key])[key]
    return len(keys) - int(pc.count_distinct(keys).as_py())


def _releases(store: Store, deep: bool) -> list[Finding]:
    found: list[Finding] = []
    names = releases.names(store.root)
    for name in names:
        try:
            damaged = releases.open(store.root, name).verify(content=deep)
        except (DualviewError, ValueError, KeyError) as error:
            says = f"release {name} cannot be opened: {getattr(error, 'message', error)}"
            remedy = "restore its manifest.json from a copy, or take its folder away"
            found.append(Finding("releases", "problem", says, remedy))
            continue
        for path in damaged:
            says = f"release {name}: {path} is gone or not as it was written"
            remedy = f"dualview publish {store.root} --rebuild {name}"
            found.append(Finding("releases", "problem", says, remedy))
    checked = "every byte read" if deep else "files there in their sizes"
    return found or [Finding("releases", "ok", f"{len(names)} releases, {checked}")]


def _artifacts(store: Store, deep: bool) -> list[Finding]:
    found: list[Finding] = []
    count = 0
    for feature, recipe in store.recipes().items():
        for name, sha256 in recipe.artifacts.items():
            count += 1
            whole = store.artifacts.has(sha256) and (not deep or store.artifacts.verify(sha256))
            if not whole:
                says = f"'{name}' of feature '{feature}' ({sha256[:12]}) is gone or damaged"
                remedy = f"restore it from a copy, or: dualview fit {store.root} {feature} --refit"
                found.append(Finding("artifacts", "problem", says, remedy))
    return found or [Finding("artifacts", "ok", f"{count} in use")]


def _pictures(store: Store, deep: bool) -> list[Finding]:
    """Whether the files that pictures were read from still lie there as they were."""
    kept = images.kept(store.tables)
    outside = [at for sha, at in sorted(images.by_sha256(store.tables).items()) if sha not in kept]
    if not outside:
        return [Finding("pictures", "ok", f"{len(kept):,} kept in the store")] if kept else []
    step = 1.0 if deep else max(1.0, len(outside) / PICTURES)
    looked = [outside[int(place * step)] for place in range(int(len(outside) / step))]
    gone = [at for at in looked if not at.file.is_file()]
    changed = [at for at in looked if at.file.is_file() and _changed(at, deep)]
    found = []
    if gone:
        says = f"{len(gone):,} of {len(looked):,} files are gone, such as {gone[0].file}"
        remedy = (
            "put them back; ingest with --keep-images keeps copies. Features made from them stay as they are"
        )
        found.append(Finding("pictures", "note", says, remedy))
    if changed:
        says = f"{len(changed):,} of {len(looked):,} files changed since they were read, such as {changed[0].file}"
        found.append(
            Finding("pictures", "note", says, "ingest the catalogue again: what changed becomes stale")
        )
    return found or [
        Finding("pictures", "ok", f"{len(looked):,} of {len(outside):,} files looked at, all as they were")
    ]


def _changed(at: images.Located, deep: bool) -> bool:
    seen = at.file.stat()
    if (seen.st_size, seen.st_mtime_ns) == (at.bytes, at.mtime_ns) and not deep:
        return False
    return seen.st_size != at.bytes or files.sha256_file(at.file) != at.sha256


def _runs(store: Store) -> list[Finding]:
    from recommender import runs

    found = []
    there = runs.list_runs(store.root)
    names = set(releases.names(store.root))
    for run in there:
        if run.release is not None and run.release not in names:
            says = f"run {run.name} learnt from release {run.release}, which is gone"
            remedy = f"delete {run.folder}: without the release its stored features cannot be read"
            found.append(Finding("runs", "problem", says, remedy))
    try:
        promoted = runs.promoted(store.root)
    except DualviewError as error:
        remedy = f"dualview promote {store.root} RUN"
        return [*found, Finding("runs", "problem", f"the promoted run is gone: {error.message}", remedy)]
    chosen = f", promoted: {promoted.name}" if promoted else ""
    return found or [Finding("runs", "ok", f"{len(there)} runs{chosen}")]
