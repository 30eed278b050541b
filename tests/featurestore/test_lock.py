from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from featurestore.errors import Conflict
from featurestore.lock import WriterLock

HOLD = """
import sys, time
from featurestore.lock import WriterLock
with WriterLock(sys.argv[1]).hold("ingest"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextmanager
def held_by_another_process(root: Path, seconds: float = 60) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_second_process_is_refused_and_told_who_holds_the_store(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as other:
        with pytest.raises(Conflict) as refused, WriterLock(tmp_path).hold("materialize"):
            pass
        assert "'ingest'" in str(refused.value)
        assert f"process {other.pid} " in str(refused.value)
        assert "--wait" in str(refused.value)
        assert refused.value.retryable


def test_a_refusal_comes_at_once_unless_waiting_was_asked_for(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path):
        start = time.monotonic()
        with pytest.raises(Conflict), WriterLock(tmp_path).hold("publish"):
            pass
        assert time.monotonic() - start < 0.5
        start = time.monotonic()
        with pytest.raises(Conflict), WriterLock(tmp_path).hold("publish", wait=0.6):
            pass
        assert time.monotonic() - start >= 0.6


def test_a_writer_that_waits_gets_the_store_when_the_other_process_ends(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path, seconds=0.5), WriterLock(tmp_path).hold("publish", wait=20):
        holder = WriterLock(tmp_path).holder()
        assert holder is not None
        assert (holder["verb"], holder["pid"]) == ("publish", os.getpid())


def test_a_killed_holder_frees_the_store(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
        left = WriterLock(tmp_path).holder()
        assert left is not None, "the dead holder's note stays behind"
        assert left["pid"] == other.pid
        with WriterLock(tmp_path).hold("publish"):
            pass


def test_a_thread_that_holds_the_lock_may_take_it_again(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path)
    with lock.hold("materialize"):
        with WriterLock(tmp_path).hold("ingest"):
            pass
        holder = lock.holder()
        assert holder is not None, "leaving the inner block does not free the store"
        assert holder["verb"] == "materialize"
        assert _outcome_in_another_thread(tmp_path) == "refused"
        with WriterLock(tmp_path).hold("publish"), lock.hold("gc"):
            pass
    assert lock.holder() is None
    assert _outcome_in_another_thread(tmp_path) == "held"


def test_another_thread_of_the_holding_process_is_refused(tmp_path: Path) -> None:
    with WriterLock(tmp_path).hold("materialize"):
        assert _outcome_in_another_thread(tmp_path) == "refused"


def test_another_thread_waits_for_its_turn(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with WriterLock(tmp_path).hold("second", wait=20):
            order.append("second")

    with WriterLock(tmp_path).hold("first"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_an_error_inside_the_block_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), WriterLock(tmp_path).hold("ingest"):
        raise ZeroDivisionError
    assert _outcome_in_another_thread(tmp_path) == "held"


def test_a_forked_child_does_not_hold_what_its_parent_holds(tmp_path: Path) -> None:
    with WriterLock(tmp_path).hold("ingest"):
        child = os.fork()
        if child == 0:
            try:
                with WriterLock(tmp_path).hold("child"):
                    os._exit(1)
            except Conflict:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("note", ["", "{", "[]", '{"verb": "x"}'])
def test_a_note_that_cannot_be_read_does_not_hide_that_the_store_is_taken(tmp_path: Path, note: str) -> None:
    with held_by_another_process(tmp_path):
        (tmp_path / "writer.json").write_text(note)
        with (
            pytest.raises(Conflict, match="another process is writing"),
            WriterLock(tmp_path).hold("publish"),
        ):
            pass


def test_a_folder_reached_by_another_spelling_is_the_same_store(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with WriterLock(tmp_path / "real").hold("ingest"):
        assert _outcome_in_another_thread(tmp_path / "link") == "refused"


def _outcome_in_another_thread(root: Path) -> str:
    outcome: list[str] = []

    def attempt() -> None:
        try:
            with WriterLock(root).hold("attempt"):
                outcome.append("held")
        except Conflict:
            outcome.append("refused")

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return outcome[0]
