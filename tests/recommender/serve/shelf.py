"""A small store whose ids are as odd as they may be, and a service over it that listens, in this process."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import uvicorn
from PIL import Image

from dualview.serving import make_service
from featurestore.carried import Carried
from featurestore.store import Store
from ingest.load import ingest
from ingest.materialize import materialize
from recommender import runs
from recommender.config import Config
from recommender.fit import fit
from recommender.serve.app import create_app
from recommender.serve.service import Service
from recommender.serve.settings import Settings

ODD = [
    "a/b",
    "x/picture",
    "50% off",
    "50%25 off",
    "ünï çödé",
    "'; DROP TABLE items; --",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "q?k=1#top",
    "+plus&and=",
]
PLAIN = [f"i{n:03d}" for n in range(30)]
IDS = ODD + PLAIN
COLOURS = ["red", "green", "blue", "yellow"]
THINGS = ["mug", "shoe", "lamp", "chair", "book"]
TOML = """
[features.text]
kind = "embed_text"
inputs = ["text"]
encoder = "tfidf_svd"

[features.image]
kind = "embed_image"
inputs = ["image"]
encoder = "color_texture"
"""


def rows(ids: list[str], pictures: Path) -> pa.Table:
    """Items of a colour and a kind; each fifth has no picture. Prices are unknown where the number ends in 7."""
    pictures.mkdir(exist_ok=True)
    found = []
    for number, name in enumerate(ids):
        colour, thing = COLOURS[number % 4], THINGS[number % 5]
        image = None
        if number % 5:
            image = f"{number}.png"
            shade = np.random.default_rng(number).integers(0, 40, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(shade + np.uint8(40 * (number % 4))).save(pictures / image)
        found.append(
            {
                "item_id": name,
                "title": f"{colour} {thing} {number}",
                "price": None if number % 10 == 7 else float(number),
                "tags": [colour, thing],
                "image": image,
            }
        )
    return pa.Table.from_pylist(found)


def events(ids: list[str]) -> pa.Table:
    rng = np.random.default_rng(1)
    drawn = [
        {"user_id": user, "item_id": ids[(start + step) % len(ids)], "timestamp": 100 * step}
        for user, start in [(f"u{n:02d}", int(rng.integers(len(ids)))) for n in range(20)] + [("a/b user", 0)]
        for step in range(8)
    ]
    return pa.Table.from_pylist(drawn)


def grow(store: Store, ids: list[str]) -> str:
    """Make the catalogue these items, and publish; the release's name."""
    ingest(store, rows(ids, store.root.parent / "pictures"), images_root=store.root.parent / "pictures")
    materialize(store)
    return store.publish().name


def build(folder: Path) -> Store:
    """A store with one release, and a promoted run that knows text and ids."""
    store = Store.create(folder / "store", TOML)
    pictures = folder / "pictures"
    ingest(store, rows(IDS, pictures), events(IDS), images_root=pictures)
    materialize(store)
    release = store.publish()
    config = Config.of(items="text", scaling="none", width=8, heads=1, layers=1, length=6, epochs=1, seed=1)
    found = fit(release, config, runs.allot(store.root, config.slug), device="cpu")
    runs.promote(store.root, found.name)
    return store


def copied(store: Store, folder: Path) -> Store:
    """A store of its own, to change; pictures stay where they are."""
    shutil.copytree(store.root, folder / "store")
    return Store.open(folder / "store")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def error(self) -> dict[str, Any]:
        """The refusal, which must be whole: never a stack trace or a path of this machine."""
        assert 400 <= self.status < 600
        found = self.json["error"]
        assert set(found) == {"code", "message", "remedy"}
        assert b"Traceback" not in self.content
        assert b"/tmp" not in self.content
        return dict(found)


@dataclass
class Served:
    """A service that listens at a port of loopback."""

    service: Service
    port: int
    headers: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, self.headers | (headers or {}))
            found = connection.getresponse()
            lower = {name.lower(): value for name, value in found.getheaders()}
            return Answer(found.status, lower, found.read())
        finally:
            connection.close()

    def get(self, path: str, **query: Any) -> Answer:
        asked = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
        return self.ask("GET", f"{path}?{asked}" if asked else path)

    def post(self, path: str, value: Any) -> Answer:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.ask("POST", path, body, {"content-type": "application/json"})

    def upload(
        self,
        image: bytes,
        options: str = "{}",
        *,
        filename: str = "p.png",
        more: Mapping[str, str] | None = None,
    ) -> Answer:
        edge = b"----edge"
        head = f'Content-Disposition: form-data; name="image"; filename="{filename}"\r\n\r\n'.encode()
        body = b"--" + edge + b"\r\n" + head + image
        for name, value in ({"options": options} | dict(more or {})).items():
            told = f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()
            body += b"\r\n--" + edge + b"\r\n" + told
        body += b"\r\n--" + edge + b"--\r\n"
        kind = {"content-type": f"multipart/form-data; boundary={edge.decode()}"}
        return self.ask("POST", "/v1/similar/image", body, kind)


def path_of(item_id: str) -> str:
    """An id as a part of a path."""
    return quote(item_id, safe="")


@contextmanager
def serving(opened: Store | Carried, **settings: Any) -> Iterator[Served]:
    """A service in a thread of this process; it ends with the block."""
    service = make_service(opened, Settings(**({"reload_every": 0.0, "access_log": "off"} | settings)))
    service.open()
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(service), access_log=False, server_header=False, log_config=None, lifespan="on"
        )
    )
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield Served(service, listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
        assert not thread.is_alive()
        while service.aside.busy:  # what still opens it; a test that follows may take it away
            time.sleep(0.01)
