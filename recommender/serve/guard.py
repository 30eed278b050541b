"""What every request passes first and every answer passes last, in one layer of ASGI: the Host that was asked, the API
key, the size of the body, ids with slashes, security headers, the access log, and the meters.
"""

from __future__ import annotations

import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from starlette.exceptions import HTTPException

from featurestore.errors import DualviewError
from recommender.serve.errors import Refused, answer_to, response
from recommender.serve.settings import JSON_BYTES

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from recommender.serve.service import Service

access = logging.getLogger("dualview.access")
log = logging.getLogger("dualview.serve")

COOKIE = "dualview_session"
OPEN = ("/health", "/ready")  # asked by whoever watches the process, who has no key
PAGE = re.compile(r"/(?:page/[\w./-]*|favicon\.ico)?")  # the explorer itself holds nothing of the store
SESSION = "/v1/session"
KEPT_ESCAPES = re.compile(rb"%(2[Ff]|25)")
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
OWN_PAGES = (
    b"cross-origin-resource-policy",
    b"same-origin",
)  # without --cors: no page of others shows our pictures
FOREIGN = (b"cross-site", b"same-site")  # what browsers say of who asks
NO_STORE = (b"cache-control", b"no-store")
JSON_ROOM = 64 << 10  # beside a picture: its options and the multipart frame


class Guard:
    """The layer around the application; only cross-origin rules stand outside it."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service
        self.hosts = service.settings.allowed_hosts
        self.added = HEADERS if service.settings.cors else [*HEADERS, OWN_PAGES]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await _Exchange(self, scope, receive, send).run()


class _Exchange:
    """One request and its answer."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard, self.service, self.settings = guard, guard.service, guard.service.settings
        # HEAD is answered as GET; the server leaves the body out
        self.scope = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        self._receive, self._send = receive, send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.started = time.perf_counter()
        self.status, self.bytes, self.read = 0, 0, 0

    async def run(self) -> None:
        meters = self.service.meters
        meters.open.inc()
        try:
            self.scope["path"] = path_of(self.scope)
            refusal = self._refusal()
            if refusal is not None:
                await self._answer(refusal)
            else:
                await self._through()
        finally:
            meters.open.dec()
            self._record()

    async def _through(self) -> None:
        try:
            await self.guard.app(self.scope, self.receive, self.send)
        except DualviewError as error:
            if self.status:
                raise
            await self._answer(error)
        except Exception:  # a bug: the log has it whole, the caller that it was one
            log.exception("a bug while %s %s was answered", self.scope["method"], self._route())
            if self.status:
                raise
            await response(
                500, "the service failed to answer; its log says why", "tell who runs it", code="bug"
            )(self.scope, self.receive, self.send)

    async def _answer(self, error: DualviewError) -> None:
        await answer_to(error, str(self.service.root))(self.scope, self.receive, self.send)

    # ---- what is refused

    def _refusal(self) -> Refused | None:
        hosts = self.guard.hosts
        if hosts and host_name(self.headers.get(b"host", b"")) not in hosts:
            return Refused(
                421,
                "the service is not asked under this name",
                remedy="ask 127.0.0.1 or localhost, or start it with --allow-host NAME",
            )
        if self._is_foreign():
            return Refused(
                403,
                "a page of another origin may not ask this service to work",
                remedy="name the origin when it is started: --cors ORIGIN",
            )
        if (length := self.headers.get(b"content-length")) is not None and (
            not length.isdigit() or int(length) > self._most()
        ):
            return self._too_large()
        if self.settings.api_key is not None and not self._may_ask():
            return Refused(
                401,
                "the API key is missing or wrong",
                remedy="send it as Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return None

    def _is_foreign(self) -> bool:
        """Whether a page that a browser has from elsewhere posts: it cannot read the answer, but has the work done."""
        if self.scope["method"] != "POST" or self.headers.get(b"sec-fetch-site") not in FOREIGN:
            return False
        return self.headers.get(b"origin", b"").decode("latin-1") not in self.settings.cors

    def _may_ask(self) -> bool:
        path = self.scope["path"]
        if path in OPEN or PAGE.fullmatch(path) or self.scope["method"] == "OPTIONS":
            return True
        key = given_key(self.headers)
        if key is not None:
            return self.service.knows(key)
        token = cookie(self.headers.get(b"cookie", b""), COOKIE)
        return token is not None and self.service.knows_session(token)

    def _most(self) -> int:
        """Bytes that the body of this request may have."""
        kind = self.headers.get(b"content-type", b"")
        return self.settings.max_body + JSON_ROOM if kind.startswith(b"multipart/") else JSON_BYTES

    def _too_large(self) -> Refused:
        return Refused(413, f"the body has more than {self._most():,} bytes", remedy="send less")

    # ---- the way in and the way out

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.read += len(message.get("body", b""))
            if (
                self.read > self._most()
            ):  # of this kind, since FastAPI takes any other for a body that is no JSON
                raise HTTPException(413, self._too_large().message)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message.setdefault("headers", [])
            names = {name for name, _ in headers}
            headers += [pair for pair in self.guard.added if pair[0] not in names]
            if b"cache-control" not in names:
                headers.append(NO_STORE)
        elif message["type"] == "http.response.body":
            self.bytes += len(message.get("body", b""))
        await self._send(message)

    # ---- what is told

    def _route(self) -> str:
        """The route as it is declared: which question it was, not what was asked."""
        route = self.scope.get("route")
        return str(getattr(route, "path", "none"))

    def _record(self) -> None:
        seconds = time.perf_counter() - self.started
        route, method = self._route(), self.scope["method"]
        meters = self.service.meters
        known = method if method in ("GET", "HEAD", "POST", "OPTIONS") else "other"
        meters.requests.labels(known, route, str(self.status)).inc()
        meters.seconds.labels(route).observe(seconds)
        if self.settings.access_log == "off":
            return
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "method": method,
            "route": route,
            "status": self.status,
            "ms": round(1000 * seconds, 2),
            "bytes": self.bytes,
            "client": (self.scope.get("client") or ("",))[0],
        }
        if self.settings.access_log == "paths":
            line["path"] = self.scope["path"]
            line["query"] = self.scope["query_string"].decode("latin-1")
        access.info("%s", json.dumps(line))


def path_of(scope: Scope) -> str:
    """The path, decoded but for %2F and %25, so that an id with a slash is one part; `unescaped` decodes those."""
    raw = scope.get("raw_path")
    if raw is None or b"%" not in raw:
        return str(scope["path"])
    raw = raw.split(b"?", 1)[0]
    parts = KEPT_ESCAPES.split(raw)  # text, escape, text, ...
    decoded = [unquote_to_bytes(p) if n % 2 == 0 else b"%" + p.upper() for n, p in enumerate(parts)]
    return b"".join(decoded).decode("utf-8", "replace")


def unescaped(part: str) -> str:
    """An id as it was meant, from a part of a path that `path_of` gave."""
    return part.replace("%2F", "/").replace("%25", "%")


def host_name(header: bytes) -> str:
    """The name in a Host header, without its port, in lower case."""
    text = header.decode("latin-1").lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0]


def given_key(headers: dict[bytes, bytes]) -> str | None:
    """The key that a request shows, in either of the two headers that may hold it."""
    if (own := headers.get(b"x-api-key")) is not None:
        return own.decode("latin-1")
    kind, _, value = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return value.strip() if kind.lower() == "bearer" else None


def cookie(header: bytes, name: str) -> str | None:
    for pair in header.decode("latin-1").split(";"):
        key, _, value = pair.strip().partition("=")
        if key == name:
            return value
    return None
