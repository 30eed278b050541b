"""Values that somebody else computed, as a feature like any other: with a recipe, current or stale by items' inputs.

The recipe names the model that made them and the hash of the file, so a new file is a new recipe, which fills a new
table while releases keep serving the old one. An item that the file has no value of gets `no_input`: the file is what
it would be computed from. An item edited later is stale, and only another file makes it current: the same file again
writes what is missing (an import that was stopped goes on) and leaves stale what was edited since, unless `renew` says
that its values still hold.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore import definitions as defs
from featurestore import features as cells
from featurestore import files, journal, schema
from featurestore.errors import BadInput
from featurestore.schema import State, Status
from ingest.imported.declare import Declared, Said, declare
from ingest.imported.values import Block, ValueFile, open_texts, open_vectors

if TYPE_CHECKING:
    from featurestore.store import Store

EXAMPLES = 5  # unknown ids that a report shows

Bool = npt.NDArray[np.bool_]
Progress = Callable[[int, int | None, str], None]


@dataclass(frozen=True)
class ImportReport:
    """What an import did. Counts are of live items.

    ok, error, absent: cells written with a value, as an error (by code), and as having none in the file. unchanged:
    they had this file's value already. stale: edited since this file was first imported, left as they were. blocked:
    a feature that the values were made from is not current. unknown: ids of the file that no item has.
    """

    feature: str
    recipe: str
    before: str | None  # the recipe that was active
    kind: str
    dim: int | None
    rows: int
    ok: int = 0
    error: int = 0
    absent: int = 0
    unchanged: int = 0
    stale: int = 0
    blocked: int = 0
    unknown: int = 0
    unknown_examples: list[str] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    declared: bool = False  # features.toml got a table
    dry_run: bool = False
    seconds: float = 0.0

    @property
    def written(self) -> int:
        return self.ok + self.error + self.absent

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"written": self.written, "seconds": round(self.seconds, 3)}


def import_vectors(
    store: Store,
    feature: str,
    file: str | Path,
    *,
    ids: str | Path | None = None,
    column: str | None = None,
    model: str | None = None,
    revision: str | None = None,
    inputs: Sequence[str] | None = None,
    note: str = "",
    renew: bool = False,
    dry_run: bool = False,
    wait: float | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Make the vectors in a file the values of `feature`, declaring it where it is new.

    file: .npy of shape (items, size) in a float type, with `ids` (.txt, .npy, .json; beside it as NAME.ids.txt unless
    said), or .parquet with a column item_id and one of lists (`column` where there are several). model, revision: what
    made them; not needed for a file that a store exported. inputs: what they were made from, so that an edit of it
    makes them stale: columns, "text", "image", other features; "text" unless said. renew: values of this same file
    hold for items that were edited since. dry_run: check everything, count, and write nothing.

    Raises BadInput for a file that cannot be meant, Conflict where features.toml says otherwise or another writes.
    """
    source = open_vectors(Path(file).expanduser(), None if ids is None else Path(ids).expanduser(), column)
    said = Said(model, revision, None if inputs is None else list(inputs), note)
    return _Import(store, feature, source, said, renew, progress).run(dry_run, wait)


def import_texts(
    store: Store,
    feature: str,
    file: str | Path,
    *,
    column: str | None = None,
    model: str | None = None,
    revision: str | None = None,
    inputs: Sequence[str] | None = None,
    note: str = "",
    renew: bool = False,
    dry_run: bool = False,
    wait: float | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """The same for texts, such as descriptions: .parquet with a column item_id and one of texts."""
    source = open_texts(Path(file).expanduser(), column)
    said = Said(model, revision, None if inputs is None else list(inputs), note)
    return _Import(store, feature, source, said, renew, progress).run(dry_run, wait)


class _Import:
    """One call: where each item stands, then the file's blocks in their order, then the items it does not have."""

    def __init__(
        self,
        store: Store,
        feature: str,
        source: ValueFile,
        said: Said,
        renew: bool,
        progress: Progress | None,
    ) -> None:
        self.store, self.feature, self.source, self.said = store, feature, source, said
        self.renew = renew
        self.progress = progress
        self.counts: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()

    def run(self, dry_run: bool, wait: float | None) -> ImportReport:
        begun = time.monotonic()
        store = self.store
        with nullcontext() if dry_run else store.lock("import", wait):
            if not store.tables.exists(schema.ITEMS):
                raise BadInput(
                    f"{store.root} holds no items that values could belong to",
                    remedy=f"dualview ingest {store.root} ITEMS",
                )
            declared = declare(store, self.feature, self.source, self.said)
            before = store.recipes().get(self.feature)
            recipe = declared.recipe
            plan = cells.plan(store.tables, store.recipes() | {self.feature: recipe}, self.feature)
            place = pc.index_in(self.source.ids, value_set=plan[schema.ITEM_ID].combine_chunks())
            unknown = self.source.ids.filter(place.is_null())
            if not len(place):
                raise BadInput("the file holds no row", remedy="check that it is the one that was meant")
            if len(unknown) == len(place):
                raise BadInput(
                    f"none of the {len(place):,} ids in the file is an item of this store (the first: '{unknown[0]}')",
                    remedy="check that the ids are those of the catalogue, as spelled there",
                )
            if not dry_run:
                self._settle(declared)
            self._write(declared, plan, pc.fill_null(place, -1).to_numpy(), dry_run)
            report = ImportReport(
                feature=self.feature,
                recipe=recipe.short,
                before=before.short if before else None,
                kind=str(self.source.kind),
                dim=self.source.dim,
                rows=len(self.source.ids),
                unknown=len(unknown),
                unknown_examples=unknown.slice(0, EXAMPLES).to_pylist(),
                errors=dict(sorted(self.codes.items())),
                declared=declared.toml is not None,
                dry_run=dry_run,
                seconds=time.monotonic() - begun,
                **self.counts,
            )
            if not dry_run and (report.written or recipe != before or report.declared):
                facts = report.to_dict() | {"note": self.said.note, **self.source.identity}
                journal.record(store.root, "import", **facts)
        return report

    def _settle(self, declared: Declared) -> None:
        """Declare the feature and make its recipe the active one; a kill after this leaves cells missing, no more."""
        store = self.store
        if declared.toml is not None:
            files.write_text(store.root / defs.FILE, declared.toml)
        if store.recipe(self.feature) != declared.recipe or store.outdated(self.feature) is not None:
            store.lock_recipe(self.feature, declared.recipe)

    def _write(self, declared: Declared, plan: pa.Table, place: npt.NDArray[np.int64], dry_run: bool) -> None:
        """place: (rows of the file,) each one's row in the plan, -1 for none."""
        state = plan["state"]
        again = [State.MISSING, State.STALE] if self.renew else [State.MISSING]
        todo: Bool = pc.is_in(state, value_set=pa.array(again, pa.string())).to_numpy()
        standing = Counter(state.filter(pa.array(~todo)).to_pylist())
        self.counts["unchanged"] = standing[State.CURRENT] + standing[State.FAILED]
        self.counts["stale"], self.counts["blocked"] = standing[State.STALE], standing[State.BLOCKED]
        absent = todo.copy()
        if todo.any():
            for block in self.source.blocks():
                self._block(declared, plan, place, todo, absent, block, dry_run)
                self._tell(block.start + len(block.given))
        left = np.flatnonzero(absent)
        self.counts["absent"] = len(left)
        for start in range(0, 0 if dry_run else len(left), cells.READ_ROWS):
            rows = plan.take(pa.array(left[start : start + cells.READ_ROWS]))
            kind = schema.value_type(self.source.kind, self.source.dim)
            nothing = pa.nulls(len(rows), pa.string())
            self._commit(
                declared, rows, pa.nulls(len(rows), kind), [Status.NO_INPUT] * len(rows), nothing, nothing
            )

    def _block(
        self,
        declared: Declared,
        plan: pa.Table,
        place: npt.NDArray[np.int64],
        todo: Bool,
        absent: Bool,
        block: Block,
        dry_run: bool,
    ) -> None:
        at = place[block.start : block.start + len(block.given)]
        rows = np.flatnonzero((at >= 0) & block.given & todo[at])
        absent[at[rows]] = False
        faults = [block.faults.get(int(row)) for row in rows]
        self.codes.update(fault.code for fault in faults if fault is not None)
        failed = sum(fault is not None for fault in faults)
        self.counts["error"] += failed
        self.counts["ok"] += len(rows) - failed
        if dry_run or not len(rows):
            return
        good = pa.array([fault is None for fault in faults])
        values = block.values.take(pa.array(rows))
        self._commit(
            declared,
            plan.take(pa.array(at[rows])),
            pc.if_else(good, values, pa.scalar(None, values.type)) if failed else values,
            [Status.OK if fault is None else Status.ERROR for fault in faults],
            pa.array([fault.code if fault else None for fault in faults], pa.string()),
            pa.array([fault.message if fault else None for fault in faults], pa.string()),
        )

    def _commit(
        self,
        declared: Declared,
        rows: pa.Table,
        values: pa.Array,
        statuses: list[Status],
        codes: pa.Array,
        messages: pa.Array,
    ) -> None:
        table = pa.table(
            {
                schema.ITEM_ID: rows[schema.ITEM_ID],
                schema.VALUE: values,
                schema.INPUT_HASH: rows[schema.INPUT_HASH],
                schema.STATUS: pa.array([str(status) for status in statuses], pa.string()),
                schema.ERROR_CODE: codes,
                schema.ERROR_MESSAGE: messages,
                schema.TRANSIENT: pa.repeat(pa.scalar(False), len(rows)),
                schema.ATTEMPTS: rows[schema.ATTEMPTS],
            }
        )
        cells.commit(self.store.tables, self.feature, declared.recipe, table)

    def _tell(self, done: int) -> None:
        if self.progress is not None:
            self.progress(done, len(self.source.ids), self.feature)
