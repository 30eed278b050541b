"""`dualview serve` as a process of its own: under load while the release changes twice, and how it starts and ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dualview.serving import _bind, make_service
from featurestore.store import Store
from recommender.serve.settings import Settings
from tests.recommender.serve import shelf
from tests.recommender.serve.shelf import IDS, path_of

SECONDS = 4.0
CALLERS = 4
PAUSE = 0.004  # seconds between a caller's questions: the releases are made beside them


@contextmanager
def process(
    store: Path, *options: object
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any], Callable[[], str]]]:
    """`dualview serve` at a free port, the JSON document that it says, and what reads its log once it has ended.

    The log goes to a file: of a pipe that nobody reads, some 500 lines are taken, and then the service waits.
    """
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed below
    started = subprocess.Popen(
        [sys.executable, "-m", "dualview", "serve", str(store), "--port", "0", "--json", *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert started.stdout is not None
    said = ""
    while line := started.stdout.readline():
        said += line
        if line == "}\n":
            break

    def logged() -> str:
        started.wait(30)
        log.seek(0)
        return log.read()

    with log:
        try:
            assert said, logged()
            yield started, json.loads(said), logged
        finally:
            started.kill()
            started.communicate()


class Caller(threading.Thread):
    """Asks again and again over one connection, and checks what must hold for each answer."""

    def __init__(self, url: str, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        parts = urlsplit(url)
        self.connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        self.number, self.stop = number, stop
        self.releases: list[str] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        asked = 0
        while not self.stop.is_set():
            try:
                self._ask(self.number + asked)
            except Exception as error:
                self.wrong.append(repr(error))
                return
            asked += 1
            time.sleep(PAUSE)

    def _ask(self, number: int) -> None:
        item = IDS[number % len(IDS)]
        questions: list[tuple[str, str, dict[str, Any] | None]] = [
            ("GET", f"/v1/similar/{path_of(item)}?k=50", None),
            ("POST", "/v1/similar", {"items": [item], "where": "price < 30", "k": 5}),
            ("POST", "/v1/recommend", {"user": f"u{number % 20:02d}", "k": 50, "exclude_seen": False}),
            ("GET", "/v1/items?limit=200", None),
            ("GET", f"/v1/items/{path_of(item)}", None),
        ]
        method, path, body = questions[number % len(questions)]
        sent = None if body is None else json.dumps(body)
        self.connection.request(method, path, sent, {"content-type": "application/json"})
        answer = self.connection.getresponse()
        found = json.loads(answer.read())
        if answer.status != 200:
            self.wrong.append(f"{answer.status} {found}")
            return
        release = found["release"]
        if self.releases and release < self.releases[-1]:
            self.wrong.append(f"release {release} after {self.releases[-1]}")
        self.releases.append(release)
        ids = {each["id"] for each in found.get("items", ())}
        expected = {"0001": set(), "0002": {"new1"}, "0003": {"new1", "new2"}}[release]
        if "limit" in path and {i for i in ids if i.startswith("new")} != expected:
            self.wrong.append(f"release {release} mixed with another: {sorted(ids)[-3:]}")
        if not {i for i in ids if i.startswith("new")} <= expected:
            self.wrong.append(f"release {release} answered with an item of a later one")


def test_two_swaps_under_load_drop_nothing(asked_store: Store, tmp_path: Path) -> None:
    (tmp_path / "pictures").symlink_to(asked_store.root.parent / "pictures")
    store = shelf.copied(asked_store, tmp_path)
    with process(store.root, "--reload-every", 0) as (server, told, logged):
        assert told["release"] == "0001"
        stop = threading.Event()
        callers = [Caller(told["url"], 7 * number, stop) for number in range(CALLERS)]
        began = time.monotonic()
        for each in callers:
            each.start()
        shelf.grow(store, [*IDS, "new1"])
        server.send_signal(signal.SIGHUP)
        shelf.grow(store, [*IDS, "new1", "new2"])
        urls = urlsplit(told["url"])
        connection = HTTPConnection(urls.hostname or "", urls.port, timeout=30)
        connection.request("POST", "/v1/reload")
        assert connection.getresponse().status == 200
        while time.monotonic() < began + SECONDS or any(
            "0003" not in each.releases[-1:] and each.is_alive() for each in callers
        ):
            time.sleep(0.05)
        stop.set()
        for each in callers:
            each.join()
        assert [wrong for each in callers for wrong in each.wrong] == []
        assert {release for each in callers for release in each.releases} == {"0001", "0002", "0003"}
        server.send_signal(signal.SIGTERM)
        errors = logged()
        assert server.returncode == 0, errors
    events = [json.loads(line) for line in errors.splitlines()]
    assert [(e["before"], e["release"]) for e in events if e.get("event") == "swapped"] == [
        ("0001", "0002"),
        ("0002", "0003"),
    ]
    assert sum(e.get("status", 200) != 200 for e in events) == 0


def test_the_end_waits_for_no_model_that_is_being_loaded(
    asked_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    service = make_service(asked_store, Settings(reload_every=0))
    monkeypatch.setattr(service.open(), "warm", gate.wait)

    async def life() -> None:
        service.start()
        await asyncio.sleep(0)
        await service.stop()

    asyncio.run(life())
    assert service.aside.busy
    gate.set()
    with process(asked_store.root) as (server, _, logged):
        server.send_signal(signal.SIGTERM)
        assert (logged(), server.returncode) == ("", 0)


def refused(*args: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dualview", "serve", *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_an_answers_small_packets_are_sent_at_once() -> None:
    with _bind(Settings(port=0)) as listening, socket.create_connection(listening.getsockname()):
        taken, _ = listening.accept()
        with taken:  # asyncio turns Nagle's algorithm off where it sees this, and only there
            assert taken.proto == socket.IPPROTO_TCP


def test_beyond_this_machine_it_listens_with_a_key_only(asked_store: Store, tmp_path: Path) -> None:
    said = refused(asked_store.root, "--host", "0.0.0.0", "--port", 0)
    assert "--api-key-file" in said
    (tmp_path / "key").write_text("long enough to be a key\n".replace(" ", "-"))
    options = ("--host", "0.0.0.0", "--api-key-file", tmp_path / "key", "--dry-run")
    with process(asked_store.root, *options) as (server, told, _):
        assert told["api_key"]
        assert not told["listening"]
        with suppress(subprocess.TimeoutExpired):
            server.wait(30)
        assert server.returncode == 0


def test_a_run_that_is_not_there_is_not_served(asked_store: Store) -> None:
    assert "there is no run 'nothing'" in refused(asked_store.root, "--port", 0, "--run", "nothing")
