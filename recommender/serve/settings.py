"""What may be asked of the service, how much of it, and by whom."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from featurestore.errors import BadInput, NotFound
from featurestore.query import GREATEST_K

# what a request may hold whatever the settings are: see `recommender.serve.schema`
TEXT_LENGTH = 2_000  # characters of a text or of words
FILTER_LENGTH = 10_000  # characters of a filter
FILTER_SECONDS = 2.0  # that a filter may take when it is first asked with
ID_LENGTH = 512  # characters of an id
ITEMS = 100  # items to be like, and as many to be unlike
HISTORY = 2_000  # items of a history
FEATURES = 32  # weights
DEPTH = 200  # candidates that are re-ranked
SLOW = 16  # requests that wait for a model to be loaded, or to re-rank: each may take seconds
PAGE = 200  # items or users of one page
OFFSET = 1_000_000
JSON_BYTES = 1 << 20  # of a JSON body, and of the JSON part beside a picture

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
HOST = re.compile(r"[\w.-]+|\[[0-9a-f:.]+\]")
ORIGIN = re.compile(rf"https?://({HOST.pattern})(:[0-9]+)?")
LOGS = ("off", "routes", "paths")


@dataclass(frozen=True)
class Settings:
    """How the service is set up. Raises BadInput where it cannot be so.

    host, port: where it listens; port 0 is one that is free. api_key: what callers must show; None for nobody.
    cors: origins of pages that may read answers. hosts: names under which it may be asked; without any, on loopback
    its names, elsewhere whatever. release: a name, a tag or "latest", which is followed. run: a name; None for the
    promoted run, else the newest that has finished. reload_every: seconds between looks for a newer release; 0: none.
    max_body: bytes of an upload. max_pixels: of a picture. max_k: answers. workers: threads that search; 0 for one a
    core. queue: requests that wait for them. batch: searches done at once. access_log: "off", "routes" (which route,
    never what was asked) or "paths" (path and query as well).
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    cors: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    release: str = "latest"
    run: str | None = None
    reload_every: float = 5.0
    max_body: int = 16 << 20
    max_pixels: int = 40_000_000
    max_k: int = 1_000
    workers: int = 0
    queue: int = 128
    batch: int = 32
    device: str = "auto"
    access_log: str = "routes"

    def __post_init__(self) -> None:
        cores = os.cpu_count() or 1
        object.__setattr__(self, "workers", self.workers or min(cores, 16))
        for name, least, most in (
            ("port", 0, 65_535),
            ("max_k", 1, GREATEST_K),
            ("max_body", 1024, 1 << 30),
            ("max_pixels", 1, 64_000_000),
            ("workers", 1, 256),
            ("queue", 1, 100_000),
            ("batch", 1, 1024),
        ):
            if not least <= getattr(self, name) <= most:
                raise BadInput(
                    f"{name.replace('_', '-')} is {getattr(self, name):,}; it must be from {least:,} to {most:,}"
                )
        if not 0 <= self.reload_every < 86_400:
            raise BadInput(f"reload-every is {self.reload_every}; it must be from 0 to 86,400 seconds")
        if self.access_log not in LOGS:
            raise BadInput(f"unknown access log '{self.access_log}'", remedy=f"one of: {', '.join(LOGS)}")
        object.__setattr__(
            self, "cors", tuple(origin.lower() for origin in self.cors)
        )  # as browsers send them
        for origin in self.cors:
            if not ORIGIN.fullmatch(origin):
                raise BadInput(
                    f"'{origin}' is no origin",
                    remedy="scheme, host and port, such as https://shop.example:8443",
                )
        for name in self.hosts:
            if not HOST.fullmatch(name.lower()):
                raise BadInput(
                    f"'{name}' is no name of a host", remedy="without scheme and port, such as shop.example"
                )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can ask."""
        return is_loopback(self.host)

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """Names that a request's Host header may have, without a port; none for any name.

        On loopback a page of somebody else's could reach the service through a name that it makes point here (DNS
        rebinding): the browser then says that name. The names of loopback are this machine's own, and always good: who
        watches the service from beside it asks by them.
        """
        if not (self.hosts or self.loopback):
            return frozenset()
        bare = self.host.strip("[]")
        own = f"[{bare}]" if ":" in bare else bare  # as a Host header has it
        return frozenset({*LOOPBACK, own.lower(), *(name.lower() for name in self.hosts)})


def is_loopback(host: str) -> bool:
    """Whether an address to listen at is reached from this machine alone."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def read_key(path: Path) -> str:
    """The API key in a file. Raises BadInput for one that is too short or cannot be in a header, NotFound."""
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"the API key cannot be read from {path} ({error})") from None
    if len(key) < 16 or not key.isascii() or not key.isprintable() or " " in key:
        raise BadInput(
            "the API key must be at least 16 characters of printable ASCII without spaces",
            remedy='make one: python -c "import secrets; print(secrets.token_urlsafe(32))" > key.txt',
        )
    return key
