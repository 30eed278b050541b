"""Which snapshot answers now. A newer release is opened aside and takes over between two requests: none is dropped, and
none sees two. The old one is let go of when the last request that uses it has been answered.

A release that cannot be opened leaves the old one in place, and is told of by /ready and /metrics until it can.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from featurestore.errors import Conflict, DualviewError
from recommender.serve.batch import Batcher
from recommender.serve.errors import Refused
from recommender.serve.meters import Meters
from recommender.serve.pool import Aside, Pool
from recommender.serve.projection import LAYOUTS
from recommender.serve.settings import SLOW
from recommender.serve.snapshot import Mark, Snapshot, mark

if TYPE_CHECKING:
    from featurestore.store import Store
    from recommender.serve.settings import Settings

log = logging.getLogger("dualview.serve")

Found = TypeVar("Found")
Trace = Callable[[Any, str], dict[str, Any]]
LONGEST_PAUSE = 300.0  # seconds until a release that could not be opened is tried again
PATIENCE = 1.0  # seconds, at the end, with threads whose requests were given up


class Service:
    """What the routes ask. All of it but `Snapshot.open` and `warm` runs in the event loop's thread.

    store: None where a carried release is served. trace: an item's lineage, from the floor above.
    """

    def __init__(
        self, root: Path, store: Store | None, settings: Settings, trace: Trace | None = None
    ) -> None:
        self.root, self.store, self.settings, self.trace = root, store, settings, trace
        self.meters = Meters()
        refused = self.meters.refused.inc
        self.pool = Pool(settings.workers, settings.queue, refused)
        self.slow = Pool(1, SLOW, refused)  # apart: what takes seconds must not keep searches waiting
        self.maps = {layout: Pool(1, SLOW, refused) for layout in LAYOUTS}  # as slow, each one at a time
        self.aside = Aside()
        self.batcher = Batcher(self.pool, settings.batch, self.meters)
        self.failed: dict[str, str] | None = None
        self._failed_mark: Mark | None = None
        self._current: Snapshot | None = None
        self._swapping = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- which one answers

    def open(self) -> Snapshot:
        """Open what is served first. Raises as `Snapshot.open` does: a service that cannot answer does not start."""
        self._current = Snapshot.open(self.root, self.store, self.settings)
        self.meters.snapshots.set(1)
        self._tell(self._current)
        return self._current

    @property
    def current(self) -> Snapshot:
        """Raises Refused where the service was closed."""
        if self._current is None:
            raise Refused(503, "the service is not open", remedy="ask again", headers={"Retry-After": "1"})
        return self._current

    @contextmanager
    def lease(self) -> Iterator[Snapshot]:
        """The snapshot to answer from, kept open until the block ends."""
        snapshot = self.current
        snapshot.leases += 1
        try:
            yield snapshot
        finally:
            snapshot.leases -= 1
            self._let_go(snapshot)

    async def work(
        self, do: Callable[[Snapshot], Found], slow: Callable[[Snapshot], bool] = lambda snapshot: False
    ) -> Found:
        """What `do` makes of the snapshot, in a thread. slow: whether that takes seconds, as loading a model does."""
        with self.lease() as snapshot:
            pool = self.slow if slow(snapshot) else self.pool
            return await pool.run(lambda: do(snapshot))

    # ---- swapping

    async def reload(self, *, again: bool = True) -> bool:
        """Look for another release or run, and have it answer; whether one was found.

        again: try one that failed before, too. Raises what opening it raises; the old one goes on answering.
        """
        async with self._swapping:
            try:
                wanted = await asyncio.to_thread(mark, self.root, self.settings)
            except Exception as error:
                self._failing(None, error)
                raise
            if wanted == self.current.mark:
                self._failing(None, None)
                return False
            if wanted == self._failed_mark and not again:
                return False
            try:
                opened = await self.aside.run(self._opened)
            except Exception as error:
                self._failing(wanted, error)
                if isinstance(error, DualviewError):
                    raise
                raise Conflict(
                    f"release {wanted[0]} cannot be opened", remedy="see the service's log"
                ) from error
            self._failing(None, None)
            self._swap(opened)
            return True

    def _opened(self) -> Snapshot:
        """A snapshot of what there is now, with all that the old one had. Raises where it has less."""
        before = self.current
        opened = Snapshot.open(self.root, self.store, self.settings)
        opened.warm()
        for part, state in opened.parts.items():
            if state == "failed" and before.parts[part] == "ready":
                raise Conflict(
                    f"release {opened.release.name} cannot do what the one before it could: {'; '.join(opened.notes)}"
                )
        return opened

    def _swap(self, opened: Snapshot) -> None:
        old, self._current = self.current, opened
        old.retired = True
        self.meters.snapshots.inc()
        self.meters.reloads.labels("swapped").inc()
        self._tell(opened)
        self._event("swapped", release=opened.release.name, run=opened.run, before=old.release.name)
        self._let_go(old)

    def _let_go(self, snapshot: Snapshot) -> None:
        if snapshot.retired and not snapshot.leases:
            snapshot.retired = False
            snapshot.close()
            self.meters.snapshots.dec()

    def _failing(self, wanted: Mark | None, error: Exception | None) -> None:
        """Keep and tell what failed; without an error, that nothing does."""
        self.meters.reload_failing.set(0 if error is None else 1)
        if error is None:
            self.failed = self._failed_mark = None
            return
        said = error.message if isinstance(error, DualviewError) else f"a bug: {type(error).__name__}"
        told = {
            "release": wanted[0] if wanted else "?",
            "error": said.replace(str(self.root), "STORE"),
        }
        known, self.failed, self._failed_mark = self.failed == told, told, wanted
        self.meters.reloads.labels("failed").inc()
        if known:  # said once, however often it is looked for
            return
        self._event("reload failed", level=logging.ERROR, **told)
        if not isinstance(error, DualviewError):
            log.error("a bug while a release was opened", exc_info=error)

    def _tell(self, snapshot: Snapshot) -> None:
        self.meters.served.clear()
        self.meters.served.labels(snapshot.release.name, snapshot.run or "").set(1)

    # ---- while it runs

    def start(self) -> None:
        """Open the rest of the first snapshot, and look for newer ones; until `stop`."""
        self._spawn(self._warm())
        if self.settings.reload_every:
            self._spawn(self._watch())

    def reload_soon(self) -> None:
        """As `reload`, for a signal: nobody waits for it."""
        self._spawn(self._reload_quietly(again=True))

    async def stop(self) -> None:
        """When all have been answered. `aside.busy` says whether a thread works on: what it does is in vain."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pool in (self.pool, self.slow, *self.maps.values()):
            with suppress(TimeoutError):
                await asyncio.wait_for(self.aside.run(pool.close), PATIENCE)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _warm(self) -> None:
        try:
            with self.lease() as snapshot:
                await self.aside.run(snapshot.warm)
        except Exception:
            log.exception("a bug while the first release was opened")

    async def _watch(self) -> None:
        waited = 0.0  # since a failed release was tried
        pause = every = self.settings.reload_every
        while True:
            await asyncio.sleep(every)
            waited += every
            again = waited >= pause
            await self._reload_quietly(again=again)
            if self.failed is None:
                pause = every
            elif again:
                waited, pause = 0.0, min(2 * pause, LONGEST_PAUSE)

    async def _reload_quietly(self, *, again: bool) -> None:
        try:
            await self.reload(again=again)
        except DualviewError:
            pass  # told of by /ready, the metrics and the log
        except Exception:
            log.debug("told already", exc_info=True)

    def _event(self, event: str, level: int = logging.INFO, **facts: Any) -> None:
        log.log(level, "%s", json.dumps({"event": event} | facts))

    # ---- who may ask

    def knows(self, key: str) -> bool:
        """Whether this is the API key; takes as long for any other."""
        own = self.settings.api_key
        return own is None or hmac.compare_digest(key.encode(), own.encode())

    def knows_session(self, token: str) -> bool:
        """Whether this is a session's cookie."""
        return hmac.compare_digest(token.encode(), self.session.encode())

    @property
    def session(self) -> str:
        """What a browser that showed the key keeps instead of it."""
        own = self.settings.api_key or ""
        return hmac.new(own.encode(), b"dualview session", sha256).hexdigest()
