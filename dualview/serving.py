"""Serving a store: the service of `recommender.serve` in a server of this process, until a signal ends it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from featurestore.errors import BadInput, Conflict, MissingExtra
from featurestore.store import Store

if TYPE_CHECKING:
    from featurestore.carried import Carried
    from recommender.serve.service import Service
    from recommender.serve.settings import Settings

BACKLOG = 2048  # connections that wait to be taken
GRACE = 20  # seconds that requests have to be answered once the end was asked for


def serve(
    opened: Store | Carried, settings: Settings, *, without_key: bool, dry_run: bool, as_json: bool
) -> None:
    """Listen until SIGINT or SIGTERM; SIGHUP looks for a newer release.

    Raises BadInput where it would listen beyond this machine without a key, Conflict where the port is taken,
    MissingExtra, and what opening the release raises.
    """
    if not (settings.loopback or settings.api_key or without_key):
        raise BadInput(
            f"{settings.host} is reached from other machines, and no key is asked for",
            remedy="give --api-key-file FILE; or --without-key where something else keeps strangers out",
        )
    uvicorn = _uvicorn()
    service = make_service(opened, settings)
    snapshot = service.open()
    told = {
        "release": snapshot.release.name,
        "items": snapshot.release.n_items,
        "run": snapshot.run,
        "api_key": settings.api_key is not None,
    }
    if dry_run:
        _say(
            {"dry_run": True} | told | {"url": _url(settings.host, settings.port), "listening": False},
            as_json,
        )
        return
    from recommender.serve.app import create_app

    _log_to_stderr()
    config = uvicorn.Config(
        create_app(service),
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE,
        lifespan="on",
    )
    bound = _bind(settings)
    server = uvicorn.Server(config)
    with _ended_by_signals(server):
        url = _url(settings.host, bound.getsockname()[1])
        _say(told | {"url": url, "listening": True, "pid": os.getpid()}, as_json)
        _run(server, bound, service)
    if service.aside.busy:  # all were answered; without this the end waits for a model that is being loaded
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def make_service(opened: Store | Carried, settings: Settings) -> Service:
    """The service over a store, or over a carried release, which knows no lineage, pictures or encoders."""
    from recommender.serve.service import Service

    store = opened if isinstance(opened, Store) else None
    return Service(opened.root, store, settings, _trace if store is not None else None)


def _trace(store: Any, item_id: str) -> Any:
    from dualview.lineage import item

    return item(store, item_id)


def _run(server: Any, bound: socket.socket, service: Service) -> None:
    import asyncio

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, service.reload_soon)
        await server.serve(sockets=[bound])

    asyncio.run(main())


@contextmanager
def _ended_by_signals(server: Any) -> Iterator[None]:
    """Signals end the server from the moment on that it says that it listens. Its own handlers stand while it runs, and
    give on to these what they got: that is how it ends, no failure.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    kept = {number: signal.getsignal(number) for number in numbers}

    def end(number: int, frame: Any) -> None:
        server.should_exit = True

    for number in numbers[:2]:
        signal.signal(number, end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what is served was looked for just now
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # the protocol is named, since asyncio sends small packets at once only where it sees that it is TCP: without it
    # each answer waited 40 ms for the caller's delayed acknowledgement
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host.strip("[]"), settings.port))
        bound.listen(BACKLOG)  # from here on nobody is refused, even before the first is answered
    except OSError as error:
        bound.close()
        raise Conflict(
            f"cannot listen at {settings.host}:{settings.port} ({error.strerror})",
            remedy="end what listens there, or choose another: --port 0 is one that is free",
        ) from None
    return bound


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _uvicorn() -> Any:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise MissingExtra(
            f"serving needs {error.name}, which is not installed", remedy="pip install 'dualview[serve]'"
        ) from None
    return uvicorn


def _log_to_stderr() -> None:
    """One line of JSON an event."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name, level in (("dualview", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False


def _say(told: dict[str, Any], as_json: bool) -> None:
    from dualview import console

    if as_json:
        console.as_json(told)
        sys.stdout.flush()
        return
    run = f", run {told['run']}" if told["run"] else ", no run yet"
    verb = "serves" if told["listening"] else "would serve"
    console.out.print(
        f"{told['url']} {verb} release {told['release']}: {told['items']:,} items{run}",
        highlight=False,
        soft_wrap=True,
    )
    if told["listening"]:
        console.out.print("Ctrl-C ends it", style="dim")
