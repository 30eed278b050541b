"""A small shop that is really served, and a real browser that looks at it."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dualview import Store, fit
from dualview.demo.catalogue import CatalogueSettings
from dualview.demo.taste import TasteSettings
from dualview.demo.truth import make_shop

HOSTILE = "<img src=x onerror=\"window.hostile=1\"><script>window.hostile=1</script> & 'mug'"
ITEMS = 140
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
STARTS_WITHIN = 120  # seconds
WAITS = 60  # seconds for anything of a page: far more than it takes, so that a busy machine fails no test


def make_store(folder: Path) -> Store:
    """A drawn shop with two runs; its first item has markup for a title, and so has one of its columns."""
    shop = folder / "shop"
    make_shop(shop, CatalogueSettings(items=ITEMS, seed=3, px=64, no_picture=0.1), TasteSettings(users=60))
    with (shop / "items.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0] |= {"title": HOSTILE, "brand": "<b>bold</b>"}
    with (shop / "items.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    store = Store.create(folder / "store", preset="offline")
    store.ingest(shop / "items.csv", interactions=shop / "events.csv")
    store.materialize()
    store.publish()
    for items in ("id", "text+image"):
        fit(store, backbone="sasrec", items=items, epochs=1, length=20, width=16, layers=1)
    return store


@contextmanager
def served(store: Path, *options: str) -> Iterator[str]:
    """The address of a `dualview serve` process, which is ended at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dualview", "serve", str(store), "--port", str(port), *options]
    told = (store.parent / "serve.log").open("wb")
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with told, subprocess.Popen(command, stdout=told, stderr=subprocess.STDOUT, env=env) as process:
        try:
            for part in ("text", "recommend"):
                _wait(f"http://127.0.0.1:{port}/ready?part={part}", process, store.parent / "serve.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def open_runs(address: str, runs: list[str], user: str) -> None:
    """Have the service open runs: what that takes is no part of what a page is waited for."""
    for run in runs:
        body = json.dumps({"user": user, "run": run}).encode()
        asked = urllib.request.Request(f"{address}/v1/recommend", body, {"content-type": "application/json"})
        with urllib.request.urlopen(asked, timeout=STARTS_WITHIN):
            pass


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise AssertionError(f"not served: {log.read_text(encoding='utf-8')[-2000:]}")


class Watch:
    """What a page says and asks for. Told requests that were refused are known to the test; anything else is wrong."""

    def __init__(self, page: Any, address: str) -> None:
        self.said: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self.address = address
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append((request.method, request.url)))

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.said.append(text)

    def check(self) -> None:
        """No error of the page, and no request that left the host."""
        assert not self.said, self.said
        own = re.compile(rf"{re.escape(self.address)}/|blob:{re.escape(self.address)}/|data:")
        left = [url for _, url in self.asked if not own.match(url)]
        assert not left, left


def cards(page: Any) -> list[str]:
    """Ids of the cards, once there are some."""
    page.wait_for_selector("#main .waiting", state="detached")
    page.wait_for_selector(".card[data-id]")
    ids: list[str] = page.eval_on_selector_all(".card[data-id]", "all => all.map(one => one.dataset.id)")
    return ids


def until(page: Any, told: str, argument: Any = None) -> None:
    """Wait for a function of the page to say so. Playwright's own way evaluates text, which the page forbids."""
    end = time.monotonic() + WAITS
    while time.monotonic() < end:
        if page.evaluate(told, argument):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {told}")


def pictured(store: Store) -> list[str]:
    return [row["item_id"] for row in store.release().catalogue.to_pylist() if row["image"]]


def picture_of(store: Store, item: str) -> bytes:
    row = next(row for row in store.release().catalogue.to_pylist() if row["item_id"] == item)
    return (store.root.parent / "shop" / row["image"]).read_bytes()


DROP = """([data, name]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const held = new DataTransfer();
  held.items.add(new File([bytes], name, {type: name.endsWith("png") ? "image/png" : "image/jpeg"}));
  document.body.dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: held}));
}"""

COLOURS = """canvas => {
  const {width, height} = canvas;
  const copy = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
  copy.drawImage(canvas, 0, 0);
  const {data} = copy.getImageData(0, 0, width, height);
  return new Set(new Uint32Array(data.buffer)).size;
}"""
