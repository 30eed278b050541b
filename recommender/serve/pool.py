"""The threads that work, and how many requests may wait for them.

Work is done off the event loop, so that a long search delays no other request's reading and writing. Who comes when the
queue is full is told to come again (503), so that those who wait are answered in time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from featurestore.filters import bound_here
from recommender.serve.errors import overloaded
from recommender.serve.settings import FILTER_SECONDS

Found = TypeVar("Found")


class Pool:
    """`workers` threads and at most `queue` requests that wait for one. Used from one event loop.

    refused: called for each request beyond that.
    """

    def __init__(self, workers: int, queue: int, refused: Callable[[], None]) -> None:
        self.workers, self._refused = workers, refused
        self._most = workers + queue
        self._threads = ThreadPoolExecutor(workers, "search", bound_here, (FILTER_SECONDS,))
        self.pending = 0  # requests that wait or are worked on

    def enter(self) -> None:
        """Count a request in. Raises Refused where too many wait."""
        if self.pending >= self._most:
            self._refused()
            raise overloaded(f"{self.pending} requests wait already")
        self.pending += 1

    def leave(self) -> None:
        self.pending -= 1

    async def run(self, work: Callable[[], Found]) -> Found:
        """What `work` returns, in a thread. Raises what it raises, and Refused where too many wait."""
        self.enter()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self.leave()

    def submit(self, work: Callable[[], None]) -> None:
        """Have it done, by a thread; for requests that were counted in."""
        self._threads.submit(work)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)


class Aside:
    """Threads that open what is served. None of them is waited for at the end: loading a model cannot be broken off."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    async def run(self, work: Callable[[], Found]) -> Found:
        """What `work` returns, in a thread of its own. Raises what it raises."""
        given: Future[Found] = Future()
        given.set_running_or_notify_cancel()  # nobody breaks it off

        def do() -> None:
            try:
                given.set_result(work())
            except BaseException as error:
                given.set_exception(error)

        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=do, name="aside", daemon=True))
        self._threads[-1].start()
        return await asyncio.wrap_future(given)
