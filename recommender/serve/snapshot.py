"""One release, opened to answer: its cards, indexes, encoders, and the runs that recommend on it.

What a request needs is taken from one snapshot, so that no answer mixes two releases.
"""

from __future__ import annotations

import bisect
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore import release as releases
from featurestore import remedies, spelling
from featurestore.errors import Conflict, DualviewError, NotFound
from featurestore.files import canonical_json, sha256_text
from featurestore.query import default_feature
from featurestore.schema import ITEM_ID
from recommender import runs
from recommender.events import EventLog
from recommender.retrieve import Retriever
from recommender.serve.cards import Cards
from recommender.serve.encoding import Encoding

if TYPE_CHECKING:
    from featurestore.release import Release
    from featurestore.store import Store
    from recommender.msr.rerank import Rerankers
    from recommender.serve.settings import Settings

log = logging.getLogger("dualview.serve")

WEIGHTS = "checkpoint/best.safetensors"  # in a run's folder
RETRIEVERS = 3  # runs kept open beside the one that is served
Mark = tuple[
    str, str, str | None, tuple[int, int] | None
]  # release, what its manifest says, run, its weights


def found_run(root: Path, asked: str | None) -> str | None:
    """The run to recommend with: the one asked for, else the promoted one, else the newest that has finished; one that
    still trains, only where there is no other.

    Raises NotFound for one that is not there.
    """
    if asked is not None:
        return runs.open_run(root, asked).name
    chosen = runs.promoted(root)
    if chosen is not None:
        return chosen.name
    answers = [run for run in runs.list_runs(root) if run.kind == runs.SEQUENTIAL and usable(run)]
    finished = (run for run in answers if run.metrics().get("finished"))
    found = next(finished, answers[0] if answers else None)
    return found.name if found else None


def usable(run: runs.Run) -> bool:
    """Whether it has weights to answer with; a fine-tuned one, adapters to re-rank with."""
    return (run.folder / "adapter" if run.kind == runs.MSR else run.folder / WEIGHTS).exists()


def mark(root: Path, settings: Settings) -> Mark:
    """What a snapshot would be made of now; another one than before calls for another snapshot."""
    return _mark(root, releases.open(root, settings.release), found_run(root, settings.run))


def _mark(root: Path, release: Release, run: str | None) -> Mark:
    """By all of the manifest, since `forget` makes releases anew under their names; and by when the run's weights were
    written, since one that goes on training gets better ones.
    """
    weights = None
    if run is not None:
        with suppress(FileNotFoundError):
            found = (root / "runs" / run / WEIGHTS).stat()
            weights = found.st_mtime_ns, found.st_size
    return release.name, sha256_text(canonical_json(release.manifest)), run, weights


class Snapshot:
    """Opened by `open`; asked by requests, in threads. `leases` are requests that use it, `retired` that none will."""

    def __init__(
        self, root: Path, store: Store | None, release: Release, run: str | None, settings: Settings
    ) -> None:
        self.root, self.store, self.release, self.run = root, store, release, run
        self.since = datetime.now(UTC).isoformat(timespec="seconds")
        self.mark = _mark(root, release, run)
        self.leases, self.retired = 0, False
        self.notes: list[str] = []
        self.parts: dict[str, str] = {"similar": "ready", "recommend": "loading" if run else "absent"}
        self.parts["text"] = "loading" if store is not None else "absent"
        self.cards = Cards(release)
        self.encoder = None if store is None else Encoding(store, release, settings.device)
        self._retrievers: OrderedDict[str, Retriever] = OrderedDict()
        self._opening = threading.Lock()

    @classmethod
    def open(cls, root: Path, store: Store | None, settings: Settings) -> Snapshot:
        """What answers by the default feature; the rest is opened by `warm`, or when asked for.

        Raises NotFound, and Conflict for a release whose files are not all there.
        """
        release = releases.open(root, settings.release)
        if damaged := release.verify(content=False):
            raise Conflict(
                f"{len(damaged)} files of release {release.name} are gone or have another size",
                remedy=remedies.rebuild(release),
            )
        snapshot = cls(root, store, release, found_run(root, settings.run), settings)
        if len(release.ids):
            release.row_of(str(release.ids[0]))
        with suppress(NotFound):  # a release without vectors is still a catalogue
            snapshot.open_feature(default_feature(release))
        return snapshot

    def _open_features(self) -> None:
        for name in self.release.searchable:
            self.open_feature(name)

    def open_feature(self, name: str) -> None:
        self.release.index(name)
        self.release.matrix(name)

    def warm(self) -> None:
        """Open all that answers may need: every index, the run, the log, an encoder of texts.

        What cannot be opened is "failed" in `parts`, with a note.
        """
        self._part("similar", self._open_features)
        with suppress(DualviewError):
            self.log.offsets  # noqa: B018  # opened now, used later
        with suppress(DualviewError):
            self.release.mask(f"{ITEM_ID} IS NULL")  # loads what reads filters
            self.release.words  # noqa: B018
        if self.run is not None:
            self._part("recommend", lambda: self.retriever().run)
        encoder = self.encoder
        if encoder is not None and not (fitting := encoder.fitting(of_text=True)):
            self.parts["text"] = "absent"
        elif encoder is not None:
            self._part("text", lambda: encoder.load(fitting[0]))

    def _part(self, name: str, load: Callable[[], object]) -> None:
        try:
            load()
            self.parts[name] = "ready"
        except Exception as error:
            self.parts[name] = "failed"
            said = error.message if isinstance(error, DualviewError) else "a bug; see the service's log"
            self.notes.append(f"{name}: {said}".replace(str(self.root), "STORE"))
            if not isinstance(error, DualviewError):
                log.exception("a bug while %s of release %s was opened", name, self.release.name)

    def retriever(self, run: str | None = None) -> Retriever:
        """The retriever of a run, opened; without a name that of the run which is served. Raises NotFound, BadInput."""
        name = run or self.run
        if name is None:
            raise NotFound(
                "there is no run to recommend with", remedy=f"train one: dualview train {self.root}"
            )
        if name == runs.LATEST:
            name = runs.open_run(self.root, name).name
        kept = self._retrievers.get(name)
        if kept is not None:  # whoever asks for one that is open does not wait while another is opened
            with suppress(KeyError):  # closed in this moment
                self._retrievers.move_to_end(name)
            return kept
        with self._opening:
            kept = self._retrievers.get(name) or self._opened(name)
            self._retrievers[name] = kept
            while len(self._retrievers) > RETRIEVERS + 1:
                oldest = next(each for each in self._retrievers if each != self.run)
                del self._retrievers[oldest]
            return kept

    def _opened(self, name: str) -> Retriever:
        asked = runs.open_run(self.root, name)
        if not usable(asked):
            raise NotFound(f"run {name} has no weights yet", remedy="ask again when it has trained")
        opened = Retriever(self.root, self.release, name)
        opened.log, opened.rerankers = self.log, self.rerankers  # one for all runs
        opened.run  # noqa: B018  # opened here, under the lock
        return opened

    def has_opened(self, run: str | None) -> bool:
        """Whether `retriever` answers at once."""
        return (run or self.run) in self._retrievers

    @cached_property
    def rerankers(self) -> Rerankers:
        """One language model at a time, whichever run it re-ranks for."""
        from recommender.msr.rerank import Rerankers

        return Rerankers(self.root, self.release)

    @cached_property
    def log(self) -> EventLog:
        """The log of the release, by user."""
        return EventLog.from_table(self.release.events())

    @property
    def has_log(self) -> bool:
        """Whether `log` is there at once."""
        return "log" in vars(self)

    def users_from(self, prefix: str) -> tuple[int, int]:
        """The users whose ids begin so: places of the first and behind the last."""
        names = self.log.user_ids
        first = bisect.bisect_left(names, prefix)  # numpy's would copy all names at the length of the prefix
        return first, bisect.bisect_left(names, prefix + chr(0x10FFFF)) if prefix else len(names)

    def row(self, item_id: str) -> int | None:
        """The item's row, None where the release does not have it."""
        found = spelling.place(self.release.ids, item_id)
        return found if found >= 0 else None

    def titles(self, ids: Iterable[str]) -> dict[str, str | None]:
        """The title of each id; None where it has none, or left the catalogue."""
        rows = {each: self.row(each) for each in ids}
        there = {each: row for each, row in rows.items() if row is not None}
        cards = dict(zip(there, self.cards.of(there.values()), strict=True))
        return {each: cards[each]["title"] if each in cards else None for each in rows}

    def is_exact(self, feature: str) -> bool:
        """Whether its index looks at every vector."""
        return bool(self.release.facts(feature)["index"].get("exact", True))

    def index_facts(self, names: Any, *, exact: bool = False) -> list[dict[str, Any]]:
        """How neighbours are found by each feature, and the recall that was measured."""
        return [self._index_facts(name, exact) for name in names]

    def _index_facts(self, name: str, exact: bool) -> dict[str, Any]:
        facts = self.release.facts(name)["index"]
        sure = exact or facts.get("exact", True)
        return {
            "feature": name,
            "kind": facts.get("kind", "exact"),
            "exact": sure,
            "recall": 1.0 if sure else facts.get("recall"),
        }

    def close(self) -> None:
        """Let go of what it opened. A release's cache of masks holds the release, and would keep it."""
        vars(self.release).pop("mask", None)
        self._retrievers.clear()
