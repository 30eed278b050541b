"""An endpoint that speaks OpenAI's chat API over real HTTP, and misbehaves as it is told to.

What it does with a request depends on the request's text: `script[text]` is a list of acts, one for each time that it
is asked; after the last one, and for any other text, it answers. Every call is counted.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWERED = "answered"


class Endpoint(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, script: dict[str, list[str]] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = {text: list(acts) for text, acts in (script or {}).items()}
        self.calls: list[tuple[float, str]] = []  # (time, text) of each request, in the order of their coming
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.limit: int | None = None  # requests in a window
        self.window = 0.4
        self.told = True  # says in each answer what is left of the limit
        self.over = 0  # requests beyond the limit
        self._opened, self._taken = 0.0, 0
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def asked(self) -> Counter[str]:
        return Counter(text for _, text in self.calls)

    def take(self) -> tuple[bool, dict[str, str]]:
        """(whether the request is within the limit, what the answer's headers say of it)."""
        if self.limit is None:
            return True, {}
        now = time.monotonic()
        if now >= self._opened + self.window:
            self._opened, self._taken = now, 0
        self._taken += 1
        left = self._opened + self.window - now
        within = self._taken <= self.limit
        self.over += not within
        if not self.told:
            return within, {} if within else {"Retry-After": f"{left:.3f}"}
        headers = {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(max(0, self.limit - self._taken)),
            "x-ratelimit-reset-requests": f"{left * 1000:.0f}ms",
        }
        return within, headers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Endpoint

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self.server.keys.add(self.headers.get("Authorization"))
        acts = self.server.script.get("/models", [])
        self._act(acts[0] if acts else "models", "/models", {})

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        text = (
            content if isinstance(content, str) else next(p["text"] for p in content if p["type"] == "text")
        )
        with server.lock:
            server.calls.append((time.monotonic(), text))
            server.bodies.append(body)
            server.keys.add(self.headers.get("Authorization"))
            within, headers = server.take()
            acts = server.script.get(text, [])
            act = acts.pop(0) if acts and within else "answer" if within else "429"
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        try:
            self._act(act, text, headers)
        finally:
            with server.lock:
                server.under_way -= 1

    def _act(self, act: str, text: str, headers: dict[str, str]) -> None:
        name, _, more = act.partition(":")
        if name == "answer":
            self.server.answered[text] += 1
            self._send(200, reply(f"{ANSWERED} {text}"), headers)
        elif name == "models":
            self._send(200, {"object": "list", "data": []})
        elif name == "finish":  # what comes after the colon is the reason
            self._send(200, reply("half", finish=more))
        elif name.isdigit():
            said = {"error": {"message": more or "no", "code": more or None, "param": more or None}}
            if name == "429" and more:
                headers = headers | {"Retry-After": more}
            self._send(int(name), said, headers)
        elif name == "slow":
            time.sleep(float(more))
            self._act("answer", text, headers)
        elif name == "html":
            self._raw(200, b"<html>gateway</html>", "text/html")
        elif name == "truncated":
            self._raw(200, json.dumps(reply("whole")).encode()[:40], "application/json")
        elif name == "short":  # fewer bytes than were promised
            self._raw(200, b'{"choices"', "application/json", promised=500)
        elif name == "empty":
            self._send(200, {"choices": []})
        elif name == "hang":
            self.server.ended.wait(30)
            self.close_connection = True
        elif name == "drip":  # a byte now and then, so that no byte is ever late
            self._head(200, "application/json", 10_000, {})
            while not self.server.ended.wait(0.05):
                self.wfile.write(b" ")
                self.wfile.flush()
            self.close_connection = True
        elif name == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            self.close_connection = True
        else:
            raise ValueError(act)

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._raw(status, json.dumps(body).encode(), "application/json", headers=headers)

    def _raw(
        self,
        status: int,
        body: bytes,
        kind: str,
        promised: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._head(status, kind, promised or len(body), headers or {})
        self.wfile.write(body)
        self.close_connection = self.close_connection or promised is not None

    def _head(self, status: int, kind: str, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": kind, "Content-Length": str(length)} | headers).items():
            self.send_header(name, value)
        self.end_headers()


def reply(text: str, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}


@contextmanager
def serving(script: dict[str, list[str]] | None = None) -> Iterator[Endpoint]:
    with Endpoint(script) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up are the point
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
