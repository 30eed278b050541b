"""Every error a user can meet: one base class, a handful of kinds, each with what, where and what to do next.

A *data* error (a bad row, a picture that does not decode) is a `CellError` value that is stored with its row and
reported; it is never raised out of a batch. A bug in our own code is an ordinary Python exception and is always raised.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


class DualviewError(Exception):
    """Base of all refusals. `code` is stable and machine-readable; `remedy` says what to do next.

    `exit_code` is what the command line ends with: 1 for an error, 2 for "something is stale or below what was asked".
    `retryable` says whether the same call may succeed later without any change.
    """

    code = "error"
    exit_code = 1
    retryable = False

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  what to do: {self.remedy}" if self.remedy else self.message


class BadInput(DualviewError):
    """A call, file or definition that cannot be accepted as it stands."""

    code = "bad_input"


class NotFound(DualviewError):
    """A store, item, feature, release or run that is not there."""

    code = "not_found"


class Stale(DualviewError):
    """Something is not current, or below what was asked."""

    code = "stale"
    exit_code = 2


class Conflict(DualviewError):
    """Another process holds the store, or what is stored contradicts what is asked."""

    code = "conflict"
    retryable = True


class DiskError(DualviewError, OSError):
    """The disk is full, or may not be written to. What was written before is whole and kept.

    It is the system's error too, with its number in `errno`, for callers that can do without the file.
    """

    code = "disk"
    retryable = True

    def __init__(self, message: str, *, remedy: str | None = None, number: int | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.errno = number


class ModelUnavailable(DualviewError):
    """Weights that cannot be reached or are not there. Never answered with random weights or another model."""

    code = "model_unavailable"
    retryable = True


class MissingExtra(DualviewError):
    """A part of the program whose packages are not installed."""

    code = "missing_extra"


@dataclass(frozen=True)
class CellError:
    """Why one item has no value: stored in its row, and retried up to three times if transient."""

    code: str
    message: str
    transient: bool = False


@dataclass(frozen=True)
class ErrorExample:
    place: str  # "FILE:LINE" of a source, or an item id
    field: str | None
    reason: str | None
    attempts: int | None = None  # of a cell: how often it was tried on its input


@dataclass(frozen=True)
class ErrorGroup:
    """Errors of one code. `where`: "ingest", or the feature whose cells failed.

    retryable: the next `materialize` tries them again by itself. remedy: the command that does, or what to mend first.
    """

    where: str
    code: str
    count: int
    examples: list[ErrorExample]
    retryable: bool = False
    remedy: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


LISTED = 40  # known names that a refusal lists


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a wrong name: the nearest known one, else the list of known ones.

    >>> did_you_mean("pirce", ["price", "title"])
    "did you mean 'price'?"
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    shown = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED:,} more" if len(names) > LISTED else "")
    return f"known: {shown or 'none'}"
