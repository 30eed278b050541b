"""Who writes: the person, the machine and the version that journal, lock and exported files name."""

from __future__ import annotations

import getpass
import os
import socket
from functools import cache
from importlib import metadata


def user() -> str:
    """Name of the user this process runs as, or their number where that has no name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def host() -> str:
    return socket.gethostname()


@cache
def version() -> str:
    """Of dualview as installed; "unknown" for a source tree that is not."""
    try:
        return metadata.version("dualview")
    except metadata.PackageNotFoundError:
        return "unknown"
