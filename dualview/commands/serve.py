"""`dualview serve`: retrieval over HTTP, and the explorer."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from dualview.commands.common import AsJson, Device, DryRun, ServedPath


def run(
    store: ServedPath,
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen at; 0 is one that is free.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            "--api-key-file",
            metavar="FILE",
            help="File with the key that callers must show.",
            show_default="no key is asked for",
        ),
    ] = None,
    without_key: Annotated[
        bool, typer.Option("--without-key", help="Listen beyond this machine although no key is asked for.")
    ] = False,
    allow_hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="Name under which it may be asked. Repeatable.",
            show_default="this machine's names on loopback, else any",
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            "--cors",
            metavar="ORIGIN",
            help="Pages of this origin may read answers. Repeatable.",
            show_default="none",
        ),
    ] = None,
    release: Annotated[
        str, typer.Option("--release", help="Name of a release, or latest, which is followed.")
    ] = "latest",
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            help="A run, or latest.",
            show_default="the promoted one, else the newest that has finished",
        ),
    ] = None,
    reload_every: Annotated[
        float,
        typer.Option("--reload-every", metavar="SECONDS", help="Look for a newer release; 0 for never."),
    ] = 5.0,
    max_body: Annotated[int, typer.Option("--max-body", metavar="BYTES", help="Of an uploaded picture.")] = 16
    << 20,
    max_pixels: Annotated[int, typer.Option("--max-pixels", help="Of an uploaded picture.")] = 40_000_000,
    max_k: Annotated[int, typer.Option("--max-k", help="Answers that one request may ask for.")] = 1_000,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Threads that search.", show_default="one a core")
    ] = None,
    queue: Annotated[
        int, typer.Option("--queue", help="Requests that may wait; others are told to come again.")
    ] = 128,
    batch: Annotated[int, typer.Option("--batch", help="Searches that are done together, at most.")] = 32,
    access_log: Annotated[
        str,
        typer.Option(
            "--access-log",
            metavar="off|routes|paths",
            help="JSON lines on stderr; only `paths` has what was asked.",
        ),
    ] = "routes",
    device: Device = "auto",
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Serve a release over HTTP: similar items, recommendations, the catalogue, and a page to explore them.

    It listens on this machine alone unless told otherwise, follows the latest release without dropping a request, and
    ends with Ctrl-C or SIGTERM after what it is answering.
    """
    # searches run beside each other, one a core: each in one thread. It is read when numpy, FAISS and torch are loaded;
    # in a process that has them already it would but be handed on to its children.
    if not {"numpy", "faiss", "torch"} & sys.modules.keys():
        for library in ("OMP", "OPENBLAS", "MKL"):
            os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    from dualview.commands.common import open_served
    from dualview.serving import serve
    from recommender.serve.settings import Settings, read_key

    settings = Settings(
        host=host,
        port=port,
        api_key=None if api_key_file is None else read_key(api_key_file),
        cors=tuple(cors or ()),
        hosts=tuple(allow_hosts or ()),
        release=release,
        run=run,
        reload_every=reload_every,
        max_body=max_body,
        max_pixels=max_pixels,
        max_k=max_k,
        workers=workers or 0,
        queue=queue,
        batch=batch,
        device=device,
        access_log=access_log,
    )
    serve(open_served(store), settings, without_key=without_key, dry_run=dry_run, as_json=json)
