"""`ingest`: a catalogue and a log into the store; only what changed is written.

Everything is read and checked first, so a refused call leaves the store as it was. Then pictures, items, events and
what was set aside are committed in that order: after a kill, running it again completes it. Nothing already stored
is lost to a bad row: an item whose new value or picture is unusable keeps the one it had.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from featurestore import journal, quarantine
from featurestore.errors import BadInput
from featurestore.interactions import EventChanges, plan_interactions, write_interactions
from featurestore.items import ItemChanges, keep_stored, plan_items, write_items
from featurestore.schema import IMAGE, IMAGE_SHA256, IMAGES, ITEM_ID, ITEMS, TITLE, attribute_fields
from ingest.mapping import Mapping, read_mapping
from ingest.pictures import PictureError
from ingest.raw import Raw
from ingest.readers import read_source
from ingest.shelve import Shelved, shelve
from ingest.validate import Events, Items, clean_events, clean_items

if TYPE_CHECKING:
    from featurestore.store import Store
    from featurestore.tables import Tables

Progress = Callable[[int, int | None, str], None]


@dataclass(frozen=True)
class ImageCounts:
    """Items by their picture. new: pictures the store had not (two items may share one)."""

    items: int = 0  # with a usable picture
    new: int = 0
    none: int = 0  # the source names none
    failed: int = 0

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did. None where the call had no such source; quarantined: rows or fields set aside, by code."""

    items: ItemChanges | None
    events: EventChanges | None
    images: ImageCounts | None
    quarantined: dict[str, int]
    notes: tuple[str, ...]
    seconds: float

    @property
    def wrote(self) -> bool:
        """Whether items or events changed."""
        kinds = [part.to_dict() for part in (self.items, self.events) if part is not None]
        return any(count for kind in kinds for name, count in kind.items() if name != "unchanged")

    def to_dict(self) -> dict[str, Any]:
        found = {name: value for name, value in asdict(self).items() if value is not None}
        return found | {"notes": list(self.notes), "seconds": round(self.seconds, 3)}


def ingest(
    store: Store,
    items: Any = None,
    interactions: Any = None,
    *,
    format: str | None = None,
    mapping: str | Path | Mapping | None = None,
    images_root: str | Path | None = None,
    remove_missing: bool = False,
    replace_interactions: bool = False,
    keep_images: bool = False,
    dry_run: bool = False,
    wait: float | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Read a catalogue, a log, or both.

    items, interactions: path (csv, jsonl, parquet; a folder of pictures is a catalogue), Arrow table or pandas
    frame. format: a public data set's, or "auto"; `items` is then the folder of its files and images_root the folder
    of its pictures, see `ingest.adapters`. mapping: TOML file, see `ingest.mapping`. images_root: what image paths are
    relative to (else the mapping's, else the folder of `items`). remove_missing: items that `items` no longer names
    are tombstoned. replace_interactions: the log becomes `interactions`. keep_images: store the pictures' own bytes.
    dry_run: read and check everything, pictures too, report what would change, and write nothing. wait: seconds to
    wait for another writer. progress: called with (done, total or None, label).

    Raises BadInput (the call, a source as a whole, the mapping) before anything is written; Conflict for a second
    writer.
    """
    if format is None:
        _check_call(items, interactions, remove_missing, replace_interactions, keep_images)
    else:
        _check_format(items, interactions, mapping, format)
    started = time.monotonic()
    notes: list[str] = []
    with nullcontext() if dry_run else store.lock("ingest", wait):
        tables = store.tables
        if format is None:
            said = read_mapping(mapping)
            if items is None:
                _check_log_only(said, images_root)
            read = _read_both(items, interactions, said, images_root, progress)
        else:
            read = _read_format(items, format, images_root, progress)
        raw_items, raw_events, said = read.items, read.events, read.mapping
        notes += read.notes
        if replace_interactions and raw_events is None:
            raise BadInput(
                f"{items} holds no log to replace the stored one by", remedy="leave out replacing it"
            )
        catalogue = clean_items(raw_items, said, _fixed(tables)) if raw_items else None
        if catalogue is not None and raw_items is not None:
            remove_missing = _may_remove(catalogue, raw_items, remove_missing, notes)
        folder = _images_folder(items, read.images, said, catalogue)
        log = None
        if raw_events is not None:
            log = clean_events(raw_events, said.interactions, _known_ids(tables, catalogue))
            _check_log(log, raw_events, replace_interactions, notes)

        counts = changes = events = None
        if catalogue is not None and raw_items is not None:
            shelved = _Shelving(tables, folder, keep_images, dry_run, progress)
            table, counts = _pictures(shelved, catalogue, raw_items)
            planned = plan_items(tables, table, remove_missing=remove_missing)
            changes = planned.changes
            if not dry_run:
                _tell(progress, 0, table.num_rows, "writing items")
                write_items(tables, planned)
                _tell(progress, table.num_rows, table.num_rows, "writing items")
        if log is not None:
            placed = plan_interactions(tables, log.table, replace=replace_interactions)
            events = placed.changes
            if not dry_run:
                _tell(progress, 0, log.table.num_rows, "writing events")
                write_interactions(tables, placed)
                _tell(progress, log.table.num_rows, log.table.num_rows, "writing events")
        sources = [raw for raw in (raw_items, raw_events, *read.beside) if raw is not None]
        codes: Counter[str] = Counter()
        for raw in sources:
            codes.update(raw.rejects.counts())
            if not dry_run:
                quarantine.put(tables, raw.rejects.table(), raw.name)
        seconds = time.monotonic() - started
        report = IngestReport(changes, events, counts, dict(sorted(codes.items())), tuple(notes), seconds)
        if not dry_run and (report.wrote or (counts is not None and counts.new)):
            journal.record(store.root, "ingest", sources=[raw.name for raw in sources], **report.to_dict())
    return report


def _check_call(
    items: Any, interactions: Any, remove_missing: bool, replace: bool, keep_images: bool
) -> None:
    if items is None and interactions is None:
        raise BadInput("nothing to ingest", remedy="name a catalogue, a log, or both")
    if items is None and (remove_missing or keep_images):
        option = "remove_missing" if remove_missing else "keep_images"
        raise BadInput(f"{option} is about items, and no items were given", remedy="name the catalogue too")
    if interactions is None and replace:
        raise BadInput(
            "replace_interactions needs interactions to replace the log by", remedy="name the log too"
        )


def _check_log_only(said: Mapping, images_root: Any) -> None:
    """What is said of a catalogue is refused where none is given."""
    about = sorted(said.model_fields_set - {"interactions"})
    if images_root is not None:
        about.append("images")
    if about:
        raise BadInput(
            f"{', '.join(about)}: this is about items, and no items were given",
            remedy="name the catalogue too, or put what is meant for the log under [interactions]",
        )


@dataclass(frozen=True)
class _Sources:
    """What a call's sources held. images: the folder that was asked for. beside: files that items were joined with."""

    items: Raw | None
    events: Raw | None
    mapping: Mapping
    images: str | Path | None
    beside: tuple[Raw, ...] = ()
    notes: tuple[str, ...] = ()


def _check_format(items: Any, interactions: Any, mapping: Any, format: str) -> None:
    if not isinstance(items, str | Path):
        raise BadInput(f"format '{format}' reads a folder", remedy="name the folder of the data set's files")
    if interactions is not None or mapping is not None:
        option = "interactions" if interactions is not None else "mapping"
        raise BadInput(
            f"format '{format}' finds the log and names the columns itself, and {option} was given",
            remedy=f"leave out {option}, or leave out the format",
        )


def _read_format(
    folder: str | Path, format: str, images: str | Path | None, progress: Progress | None
) -> _Sources:
    from ingest import adapters

    _tell(progress, 0, None, f"reading {format}")
    found = adapters.read(folder, format, images)
    return _Sources(found.items, found.interactions, found.mapping, found.images, found.beside, found.notes)


def _read_both(
    items: Any, interactions: Any, said: Mapping, images: str | Path | None, progress: Progress | None
) -> _Sources:
    catalogue = _read(items, said, "items", progress)
    return _Sources(catalogue, _read(interactions, said, "interactions", progress), said, images)


def _read(source: Any, said: Mapping, role: str, progress: Progress | None) -> Raw | None:
    if source is None:
        return None
    _tell(progress, 0, None, f"reading {role}")
    return read_source(source, said if role == "items" else said.interactions, role)


def _fixed(tables: Tables) -> dict[str, pa.DataType]:
    """The types of the columns that the catalogue has."""
    if not tables.exists(ITEMS):
        return {}
    return {field.name: field.type for field in attribute_fields(tables.schema(ITEMS))} | {TITLE: pa.string()}


def _may_remove(catalogue: Items, raw: Raw, asked: bool, notes: list[str]) -> bool:
    """Whether items may be tombstoned: not by a source without a valid row, nor while some rows' ids are not known."""
    if not asked:
        return False
    if catalogue.table.num_rows == 0:
        raise BadInput(
            f"{raw.name} has no valid row, so remove_missing would take every item out of the catalogue",
            remedy="mend the source first; without remove_missing, its bad rows are listed by `dualview errors`",
        )
    unknown = raw.unreadable + raw.rejects.counts().get("missing_id", 0)
    if unknown:
        notes.append(
            f"no item was removed: {unknown} rows of {raw.name} have no readable id, so what is missing cannot be told"
        )
    return not unknown


def _check_log(log: Events, raw: Raw, replace: bool, notes: list[str]) -> None:
    if replace and log.table.num_rows == 0:
        raise BadInput(
            f"{raw.name} has no valid event, so replace_interactions would empty the log",
            remedy="mend the source first; without replace_interactions, its bad rows are listed by `dualview errors`",
        )
    if log.placed:
        notes.append(
            f"{raw.name} has neither timestamp nor position: the order of its rows is taken for each user's order, "
            "so it has to be given whole each time"
        )
    if log.ignored:
        notes.append(f"columns of {raw.name} that a log does not keep: {', '.join(log.ignored)}")


def _known_ids(tables: Tables, catalogue: Items | None) -> pa.ChunkedArray:
    """Every item_id that events may name: stored ones (those that left the catalogue too) and those about to be."""
    chunks: list[pa.Array] = []
    if tables.exists(ITEMS):
        chunks += tables.read(ITEMS, columns=[ITEM_ID])[ITEM_ID].chunks
    if catalogue is not None:
        chunks += catalogue.table[ITEM_ID].chunks
    known = pa.chunked_array(chunks, type=pa.string())
    if not len(known):
        raise BadInput(
            "the store has no items that events could name",
            remedy="ingest the catalogue first, or with the log",
        )
    return known


def _images_folder(
    items: Any, asked: str | Path | None, said: Mapping, catalogue: Items | None
) -> Path | None:
    """What image paths are relative to; None where there are none to resolve."""
    given = asked if asked is not None else said.images_root
    if given is not None:
        folder = Path(given).expanduser()
        if not folder.is_dir():
            raise BadInput(
                f"the images' root {folder} is no folder",
                remedy="name the folder image paths are relative to",
            )
        return folder
    if isinstance(items, str | Path):
        path = Path(items).expanduser()
        return path if path.is_dir() else path.parent
    named = catalogue is not None and IMAGE in catalogue.table.column_names
    if named and catalogue is not None and catalogue.table[IMAGE].null_count < catalogue.table.num_rows:
        raise BadInput(
            "a table in memory names pictures, and nothing says what their paths are relative to",
            remedy="give images_root=FOLDER",
        )
    return None


@dataclass(frozen=True)
class _Shelving:
    """Where a catalogue's pictures are looked for and kept."""

    tables: Tables
    folder: Path | None
    keep: bool
    dry_run: bool
    progress: Progress | None

    def shelve(self, named: list[str]) -> Shelved:
        return shelve(
            self.tables,
            self.folder or Path(),
            named,
            keep=self.keep,
            dry_run=self.dry_run,
            progress=self.progress,
        )


def _pictures(shelving: _Shelving, catalogue: Items, raw: Raw) -> tuple[pa.Table, ImageCounts | None]:
    """The clean catalogue with a column for each picture's sha256; unusable values replaced by what the store has."""
    table, failed = catalogue.table, dict(catalogue.failed)
    counts = None
    if IMAGE in table.column_names:
        references = table[IMAGE].to_pylist()
        named = list(dict.fromkeys(reference for reference in references if reference is not None))
        shelved = shelving.shelve(named)
        missed = np.array([reference in shelved.failed for reference in references], bool)
        _set_aside(catalogue, raw, references, shelved.failed, missed)
        images = pa.array(
            [None if bad else ref for ref, bad in zip(references, missed, strict=True)], pa.string()
        )
        sha256 = pa.array(
            [shelved.sha256.get(ref) if ref is not None else None for ref in references], pa.string()
        )
        table = table.set_column(table.schema.get_field_index(IMAGE), IMAGE, images).append_column(
            IMAGE_SHA256, sha256
        )
        failed |= {IMAGE: missed, IMAGE_SHA256: missed}
        none = references.count(None)
        good = len(references) - none - int(missed.sum())
        counts = ImageCounts(items=good, new=shelved.written, none=none, failed=int(missed.sum()))
        if not shelving.dry_run and shelving.tables.exists(IMAGES):
            shelving.tables.compact(IMAGES)
    return keep_stored(shelving.tables, table, failed), counts


def _set_aside(
    catalogue: Items,
    raw: Raw,
    references: list[str | None],
    failed: dict[str, PictureError],
    missed: np.ndarray,
) -> None:
    codes = np.array([failed[ref].code if ref in failed else "" for ref in references])
    for code in sorted({error.code for error in failed.values()}):
        where = missed & (codes == code)
        reasons = [failed[references[at] or ""].message for at in np.flatnonzero(where)]
        raw.rejects.add_many(
            catalogue.raw, catalogue.lines, where, IMAGE, code, pa.array(reasons, pa.string())
        )


def _tell(progress: Progress | None, done: int, total: int | None, label: str) -> None:
    if progress is not None:
        progress(done, total, label)
