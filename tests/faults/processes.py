"""Children that can be killed, forked from a process that has the libraries loaded.

So one costs a third of a second; a fresh interpreter with lancedb and scikit-learn takes three. `warm` says why forking
is safe here.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from featurestore import failpoints

AT_ONCE = 2
HANGS = 300.0  # seconds after which a child is taken to hang
UNTOLD = 255  # the forkserver could not say how a child ended: about one in a thousand on a busy machine
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.faults.warm"])

T = TypeVar("T")
R = TypeVar("R")


class Child:
    """A function that runs in a process of its own. What it returns must be picklable."""

    def __init__(self, call: Callable[..., Any], *given: Any, failpoint: str | None = None) -> None:
        self._ours, theirs = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_run, args=(theirs, failpoint, call, given), daemon=True)
        self._process.start()
        theirs.close()
        assert self._ours.poll(HANGS), "the child never started"
        assert self._ours.recv() == "started"
        self.started = time.monotonic()

    def send(self, number: int) -> None:
        assert self._process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def wait(self) -> int:
        """The exit code: negative for a signal."""
        self._process.join(HANGS)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
            raise AssertionError(f"a child hangs: {self._process}")
        return code

    def result(self) -> Any:
        """What the function returned; its error is raised here as AssertionError with the traceback."""
        try:
            answer = self._ours.recv() if self._ours.poll(HANGS) else ("hangs", "")
        except EOFError:
            answer = ("died", "")
        code = self.wait()
        self._ours.close()
        if answer[0] != "done":
            raise AssertionError(f"the child {answer[0]} (exit code {code})\n{answer[1]}")
        return answer[1]


def _run(pipe: Any, failpoint: str | None, call: Callable[..., Any], given: tuple[Any, ...]) -> None:
    pipe.send("started")
    failpoints.arm(failpoint)
    try:
        answer = ("done", call(*given))
    except BaseException:
        answer = ("failed", traceback.format_exc())
    with suppress(BrokenPipeError):  # whoever sent a signal does not listen
        pipe.send(answer)
    os._exit(0 if answer[0] == "done" else 1)


def run(call: Callable[..., Any], *given: Any) -> Any:
    """Run a function in a child and return what it returns."""
    return Child(call, *given).result()


def die_at(moment: int | str, call: Callable[..., Any], *given: Any) -> bool:
    """Run a function in a child that dies at a moment; it must get there. False where its exit code got lost."""
    code = Child(call, *given, failpoint=str(moment)).wait()
    assert code in (failpoints.KILLED, UNTOLD), f"moment {moment} was not reached (exit code {code})"
    return code == failpoints.KILLED


def kill_after(seconds: float, number: signal.Signals, call: Callable[..., Any], *given: Any) -> None:
    """Run a function in a child and send it a signal, unless it ends before."""
    child = Child(call, *given)
    time.sleep(max(0.0, child.started + seconds - time.monotonic()))
    child.send(number)
    child.wait()


def each(call: Callable[[T], R], cases: Iterable[T]) -> list[R]:
    """`call` of every case, as many children at once as there are cores to use."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(call, cases))
