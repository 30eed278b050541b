"""`forget`: a person or an item leaves the store for good, releases that hold them included.

Versions of a table cannot be changed, so each table is made anew beside the store: a copy whose data files are links,
in which each pinned version and the newest is restored, rid of the rows, compacted so that no file holds them, and
pinned in the old one's place. Then every release is derived anew from those versions. Nothing of the store has changed
so far but lines of the journal. What follows (tables renamed into place, manifests replaced, everything that no
manifest names taken away) is written into pending.json first, without any id, and finished by whoever takes the
writer's lock next.

An id is forgotten where it stands; what it taught stays: weights and fitted vocabularies, which have to be made anew.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore import files, gc, journal, pending, preferences, rederive, schema, versions
from featurestore import release as releases
from featurestore.errors import BadInput
from featurestore.redact import Named
from featurestore.release import Release
from featurestore.tables import SMALL_ROWS, Tables

if TYPE_CHECKING:
    from featurestore.store import Store

PART = ".forget.part"
_OURS = ("at", "verb", "by", "release", "tables")  # of the journal: never an id


@dataclass(frozen=True)
class Edits:
    """What the floors above have to change: new contents, folders to take away, what learnt from the forgotten."""

    contents: dict[Path, bytes] = field(default_factory=dict)
    remove: list[Path] = field(default_factory=list)
    learnt: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ForgetReport:
    """What was forgotten, or with `dry_run` would be.

    rows: rows of the newest tables, by table. releases: those that held something. learnt: runs whose weights were
    trained on it. fitted: features whose fitted transform saw it. answers: of a describer, in no table yet, which go
    whoever they are about. unknown: ids that neither items nor events have.
    """

    users: int
    items: int
    rows: dict[str, int]
    releases: list[str]
    learnt: list[str]
    fitted: list[str]
    answers: int
    unknown: list[str]
    dry_run: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Table:
    """A table that is concerned. rows: of each version that stays, how many are to go."""

    name: str
    predicate: str
    rows: dict[int, int]
    rewrite: bool


def forget(
    store: Store,
    *,
    users: Sequence[str] = (),
    items: Sequence[str] = (),
    edits: Callable[[set[str], set[str]], Edits] = lambda users, items: Edits(),
    dry_run: bool = False,
    wait: float | None = None,
) -> ForgetReport:
    """Erase users and items from tables, releases, derived files, caches, the journal, and what `edits` adds.

    Killed before its point of no return, nothing has happened; after it, the next verb that writes finishes it. Either
    way running it again with the same ids completes it.

    Raises BadInput where no id is given, Conflict for a store that is being written.
    """
    if not users and not items:
        raise BadInput("no user and no item was named", remedy="give --user ID or --item ID")
    who, what = set(users), set(items)
    if dry_run:
        return _report(store, _concerned(store, who, what), edits(who, what), who, what, dry_run=True)
    with store.lock("forget", wait):
        concerned = _concerned(store, who, what)
        changes = edits(who, what)
        report = _report(store, concerned, changes, who, what, dry_run=False)
        _redact_journal(store.root, who | what)
        part = store.root / PART
        gc.discard(part)
        with files.disk_errors(str(part)):
            rewritten = [t for t in concerned if t.rewrite]
            spooled = _spooled(store.root, bool(what))
            intent = _prepare(store, part, rewritten, changes, report, spooled)
            files.flush_tree(part)
        pending.begin(store.root, "forget", intent)
        finish(store, intent)
    return report


def finish(store: Store, intent: dict[str, Any]) -> None:
    """Put in place what was prepared, take away what it replaces. The caller holds the writer's lock."""
    part = store.root / PART
    for name in intent["tables"]:
        made, place = part / "tables" / f"{name}.lance", store.tables.path(name)
        if made.exists():
            if place.exists():
                files.make_folder(part / "old")
                files.rename(place, part / "old" / place.name)
            files.rename(made, place)
    for number, name in enumerate(intent["files"]):
        made = part / "files" / str(number)
        if made.exists():
            files.rename(made, store.root / name)
    for name in intent["remove"]:
        gc.discard(store.root / name)
    gc.discard(part)
    gc.collect(store, grace=0.0)
    journal.record(store.root, "forget", **intent["facts"])
    pending.done(store.root)


# ---- what is concerned


def _concerned(store: Store, users: set[str], items: set[str]) -> list[_Table]:
    """The tables that name one of them in a version that stays, or hold deleted rows that no compaction has removed."""
    tables = store.tables
    found = []
    for name in tables.names():
        predicate = _predicate(tables, name, users, items)
        if predicate is None:
            continue
        rows, hollow = {}, False
        for version in _staying(tables, name):
            dataset = tables.dataset(name, version)
            rows[version] = dataset.count_rows(predicate)
            hollow = hollow or any(f.num_deletions for f in dataset.get_fragments())
        found.append(_Table(name, predicate, rows, rewrite=hollow or any(rows.values())))
    return found


def _staying(tables: Tables, name: str) -> list[int]:
    """Versions that a tag pins, and last the newest."""
    newest = tables.version(name)
    return [*sorted({*versions.tags(tables, name).values()} - {newest}), newest]


def _predicate(tables: Tables, name: str, users: set[str], items: set[str]) -> str | None:
    """Which rows of a table go; None where none can."""
    columns = tables.schema(name).names
    if name == schema.IMAGES:
        return _in("sha256", _pictures(tables, items))
    if name == schema.QUARANTINE:
        return _in("quarantine_id", _set_aside(tables, users | items))
    if name == schema.PREFERENCES:
        parts = [_in(schema.USER_ID, users), _in(preferences.STATE_ID, _made_of(tables, items))]
        return " OR ".join(part for part in parts if part) or None
    parts = [_in(schema.ITEM_ID, items) if schema.ITEM_ID in columns else None]
    if name != schema.ITEMS:  # there, a column of that name is the catalogue's own
        parts.append(_in(schema.USER_ID, users) if schema.USER_ID in columns else None)
    return " OR ".join(part for part in parts if part) or None


def _in(column: str, values: Iterable[str]) -> str | None:
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in sorted(values))
    return f"{column} IN ({quoted})" if quoted else None


def _pictures(tables: Tables, items: set[str]) -> set[str]:
    """sha256 of pictures that these items have or had, and no other item has in any version that stays."""
    own: set[str] = set()
    others: set[str] = set()
    for version in _staying(tables, schema.ITEMS) if items and tables.exists(schema.ITEMS) else ():
        rows = tables.read(schema.ITEMS, [schema.ITEM_ID, schema.IMAGE_SHA256], version=version)
        for item, sha256 in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True):
            if sha256 is not None:
                (own if item in items else others).add(sha256)
    return own - others


def _set_aside(tables: Tables, ids: set[str]) -> set[str]:
    """Keys of the rows set aside at ingest whose content or reason names one of the ids."""
    named = Named(ids)
    found = set()
    for version in _staying(tables, schema.QUARANTINE):
        rows = tables.read(schema.QUARANTINE, ["quarantine_id", "row", "reason"], version=version)
        found |= {r["quarantine_id"] for r in rows.to_pylist() if named.set_aside(r["row"], r["reason"])}
    return found


def _made_of(tables: Tables, items: set[str]) -> set[str]:
    """Keys of the preferences that were made of one of the items, in any version that stays."""
    versions_ = _staying(tables, schema.PREFERENCES)
    return {state for version in versions_ for state in preferences.about(tables, items, version)}


def _report(
    store: Store, concerned: list[_Table], edits: Edits, users: set[str], items: set[str], *, dry_run: bool
) -> ForgetReport:
    known = _known(store, users, items)
    holding = [
        release.name
        for release in releases.every(store.root)
        if any(t.rows.get(release.manifest["tables"].get(t.name, -1), 0) for t in concerned)
    ]
    return ForgetReport(
        users=len(users & known),
        items=len(items & known),
        rows={t.name: list(t.rows.values())[-1] for t in concerned if any(t.rows.values())},
        releases=holding,
        learnt=edits.learnt,
        fitted=_fitted(store, bool(items & known), bool(users & known)),
        answers=sum(path.read_bytes().count(b"\n") for path in _spooled(store.root, bool(items))),
        unknown=sorted((users | items) - known),
        dry_run=dry_run,
    )


def _fitted(store: Store, items: bool, users: bool) -> list[str]:
    """Features whose fit saw items, or the events of users; one that uses another's fit is fitted with that."""
    return [
        name
        for name, locked in store.locked().items()
        if locked.fitted
        and "same_fit" not in locked.fitted
        and (items or (users and "events" in locked.fitted))
    ]


def _known(store: Store, users: set[str], items: set[str]) -> set[str]:
    """Those of the ids that a version that stays has as a key."""
    found: set[str] = set()
    for name, column, wanted in (
        (schema.ITEMS, schema.ITEM_ID, items),
        (schema.INTERACTIONS, schema.ITEM_ID, items),
        (schema.INTERACTIONS, schema.USER_ID, users),
    ):
        predicate = _in(column, wanted)
        if predicate and store.tables.exists(name):
            for version in _staying(store.tables, name):
                found |= set(store.tables.read(name, [column], predicate, version)[column].to_pylist())
    return found


# ---- what is prepared


def _prepare(
    store: Store,
    part: Path,
    concerned: list[_Table],
    edits: Edits,
    report: ForgetReport,
    spooled: Sequence[Path],
) -> dict[str, Any]:
    """Make tables, manifests and files anew under `part`; returns what is left to be done, which names no id."""
    aside = copy.copy(store)
    aside.tables = Tables(part / "tables", durable=False)  # flushed once, when it is whole
    files.make_folder(part / "tables")
    files.make_folder(part / "files")
    moved: dict[str, dict[int, int]] = {}
    for table in store.tables.names():
        _linked(store.tables.path(table), aside.tables.path(table))
    for each in concerned:
        moved[each.name] = _without(aside.tables, each)
    contents = dict(edits.contents)
    latest: Release | None = None
    for release in releases.every(store.root):
        name, manifest = release.name, release.manifest
        if not set(manifest["tables"]) & set(moved):
            continue
        pinned = {t: moved[t][v] if t in moved else v for t, v in manifest["tables"].items()}
        manifest = rederive.rederive(aside, manifest, pinned, latest)
        if name in report.releases:
            before = manifest.get("forgotten", {"users": 0, "items": 0})
            manifest["forgotten"] = {k: before[k] + getattr(report, k) for k in before}
        latest = Release(store.root, manifest)
        text = json.dumps(manifest, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        contents[store.root / "releases" / name / releases.MANIFEST] = text.encode()
    for number, content in enumerate(contents.values()):
        (part / "files" / str(number)).write_bytes(content)
    return {
        "tables": sorted(moved),
        "files": [str(path.relative_to(store.root)) for path in contents],
        "remove": [str(path.relative_to(store.root)) for path in (*edits.remove, *spooled)],
        "facts": {"users": report.users, "items": report.items, "releases": report.releases},
    }


def _linked(source: Path, target: Path) -> None:
    """A copy of a table in which what is never written again, the bulk of it, is linked where the disk can."""
    for path in source.rglob("*"):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.relative_to(source).parts[0] in ("data", "_deletions", "_indices"):
            try:
                os.link(path, place)
                continue
            except OSError:
                pass
        shutil.copy2(path, place)


def _without(tables: Tables, table: _Table) -> dict[int, int]:
    """Make each version that stays anew without the rows, and pin it in the old one's place: old version -> new."""
    name, moved = table.name, {}
    for version, rows in table.rows.items():  # the newest comes last, and is the newest again
        tables.restore(name, version)
        dataset = tables.dataset(name)
        for index in dataset.describe_indices():
            dataset.drop_index(index.name)  # made anew by the next write, where the table is large
        if rows:
            tables.delete(name, table.predicate)
        dataset = tables.dataset(name)
        whole = [f.fragment_id for f in dataset.get_fragments() if not f.num_deletions]
        dataset.optimize.compact_files(
            target_rows_per_fragment=SMALL_ROWS,
            materialize_deletions_threshold=0.0,
            excluded_fragment_ids=whole,
        )
        # once more as it is: a version keeps the transaction that made it, and that of a delete says what was deleted
        moved[version] = tables.restore(name, tables.version(name))
    for tag, version in versions.tags(tables, name).items():
        tables.tag(name, tag, moved[version])
    return moved


def _redact_journal(root: Path, ids: set[str]) -> None:
    """Put `redact.GONE` in the place of the ids wherever a line of the journal names one."""
    named = Named(ids)
    journal.rewrite(
        root, lambda entry: {k: v if k in _OURS else named.redacted(v, k) for k, v in entry.items()}
    )


def _spooled(root: Path, items: bool) -> list[Path]:
    """Answers that wait for their commit: those about users, and about items too where `items`. They say what was
    asked by its hash only, so whose they are is not known.
    """
    return sorted((root / gc.SPOOL).glob("*.jsonl" if items else f"{schema.PREFERENCES}__*.jsonl"))
