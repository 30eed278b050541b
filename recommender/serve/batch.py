"""Searches that wait at the same time are done as one, where that is faster.

Nobody waits for company: a search that finds a thread free begins at once, and those that come while all threads are
busy are taken together by the next one that is free. Answers are the same either way, to the last bit (see
`featurestore.exact`). Measured with one thread, searches a second:

    together                      1       2       4       8      32
    exact, 100,000 x 384        138     125     119     253     391
    ivf, 1,000,000 x 128      1,663   2,417   3,277   3,378   3,191

So fewer than eight are not joined where the index is exact.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from featurestore.search import nearest_rows

if TYPE_CHECKING:
    from recommender.serve.meters import Meters
    from recommender.serve.pool import Pool
    from recommender.serve.snapshot import Snapshot

Group = tuple[
    "Snapshot", str, str | None, int
]  # feature, filter, k: what searches done together have in common
FEWEST = (
    8  # searches of an exact index that are faster together: `featurestore.index` takes a matrix product then
)
Found = tuple[Any, Any]  # scores and rows, see `featurestore.search.nearest`


class Batcher:
    """Searches like one item, by one feature. Used from one event loop."""

    def __init__(self, pool: Pool, most: int, meters: Meters) -> None:
        self._pool, self._most, self._meters = pool, most, meters
        self._waiting: dict[Group, deque[tuple[int, asyncio.Future[Found]]]] = {}
        self._lock = threading.Lock()

    async def nearest(self, snapshot: Snapshot, row: int, feature: str, where: str | None, k: int) -> Found:
        """As `featurestore.search.nearest` of an item's row. Raises what it raises, and Refused where too many wait."""
        self._pool.enter()
        try:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[Found] = loop.create_future()
            group = (snapshot, feature, where, k)
            with self._lock:
                waiting = self._waiting.get(group)
                if waiting is None:
                    self._waiting[group] = deque([(row, future)])
                else:
                    waiting.append((row, future))
            if waiting is None:
                self._pool.submit(lambda: self._do(group, loop))
            return await future
        finally:
            self._pool.leave()

    def _do(self, group: Group, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: answer those that wait, at most so many; the rest are for the next thread."""
        with self._lock:
            waiting = self._waiting[group]
            taken = [waiting.popleft() for _ in range(self._share(len(waiting), group))]
            more = bool(waiting)
            if not more:
                del self._waiting[group]
        if more:
            self._pool.submit(lambda: self._do(group, loop))
        self._meters.batch.observe(len(taken))
        snapshot, feature, where, k = group
        found: list[Found | Exception]
        try:
            found = list(nearest_rows(snapshot.release, feature, [row for row, _ in taken], where=where, k=k))
        except Exception as error:
            found = [error] * len(taken)
        loop.call_soon_threadsafe(_give, [future for _, future in taken], found)

    def _share(self, waiting: int, group: Group) -> int:
        """How many of those that wait one thread takes: its share, if that is enough to be faster together."""
        snapshot, feature, _, _ = group
        fewest = FEWEST if snapshot.is_exact(feature) else 2
        if waiting < fewest:
            return 1
        return min(self._most, max(fewest, -(-waiting // self._pool.workers)))


def _give(futures: list[asyncio.Future[Found]], found: list[Found | Exception]) -> None:
    for future, each in zip(futures, found, strict=True):
        if future.done():  # its caller went away
            continue
        if isinstance(each, Exception):
            future.set_exception(each)
        else:
            future.set_result(each)
