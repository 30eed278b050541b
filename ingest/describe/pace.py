"""When the next request may go to an endpoint: what it says of its limits, and waits that grow from try to try.

Three rules. Until a first request has succeeded, and after each refusal for too many, one request at a time. What the
endpoint says is left of a limit is used up, less what is under way, and no more until its reset. While it asks to
wait, nothing is sent.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST = 60.0  # seconds between two tries where the endpoint names no time
TOO_MANY = 429
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class Pace:
    """Of one endpoint; used from one event loop. clock: seconds that only grow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._alone = True
        self._in_flight = 0
        self._closed_until = 0.0
        self._left: int | None = None  # requests that may go out before `_reset_at`
        self._most: int | None = None  # requests between two resets
        self._reset_at = math.inf
        self._window = 0  # how many resets there were

    def wait(self) -> float | None:
        """Seconds until a request may go out: 0 for at once, None for when one that is under way has ended."""
        now = self._clock()
        if now < self._closed_until:
            return self._closed_until - now
        if self._alone and self._in_flight:
            return None
        if now >= self._reset_at:
            self._left = None if self._most is None else self._most - self._in_flight
            self._reset_at = math.inf  # until an answer tells
            self._window += 1
        if self._left is not None and self._left <= 0:
            if self._reset_at < math.inf:
                return self._reset_at - now
            if self._in_flight:
                return None
            self._left, self._alone = None, True  # nothing came back that says how much is left
        return 0.0

    def started(self) -> int:
        """A request goes out. Returns what `ended` is to be told of it."""
        self._in_flight += 1
        if self._left is not None:
            self._left -= 1
        return self._window

    def ended(self, window: int, status: int | None, headers: Mapping[str, str]) -> None:
        """A request has ended. window: what `started` said; status: None where there was no answer at all.

        Answers overtake each other, so that between two resets what is left only falls.
        """
        self._in_flight -= 1
        now = self._clock()
        if status is not None and status < 400:
            self._alone = False
        if status == TOO_MANY:
            self._alone = True
        asked = retry_after(headers)
        if asked is not None and status is not None and status >= 400:
            self._closed_until = max(self._closed_until, now + asked)
        left, reset = _number(headers, "remaining-requests"), _reset(headers, "requests")
        if left is not None and reset is not None and window == self._window:
            left -= self._in_flight  # those may not have been counted yet
            self._left = left if self._left is None else min(self._left, left)
            self._most = _number(headers, "limit-requests")
            known = self._reset_at if self._reset_at < math.inf else 0.0
            self._reset_at = max(known, now + reset)
        tokens, reset = _number(headers, "remaining-tokens"), _reset(headers, "tokens")
        if tokens is not None and tokens <= 0 and reset is not None:
            self._closed_until = max(self._closed_until, now + reset)


def backoff(tries: int, first: float) -> float:
    """Seconds before the next try after `tries` failed ones: doubled each time, with jitter against meeting."""
    longest = min(LONGEST, first * 2.0 ** min(tries - 1, 30))
    return longest * random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks for, as a number or as a date; None where it is not there or not readable."""
    if (milliseconds := _seconds(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    said = headers.get("retry-after")
    if said is None or (seconds := _seconds(said)) is not None:
        return seconds if said is not None else None
    try:
        then = parsedate_to_datetime(said)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())


def duration(said: str) -> float | None:
    """Seconds of "20ms", "1s", "6m0s" or "12.5"; None for anything else.

    >>> duration("1m30.5s")
    90.5
    """
    parts = _DURATION.findall(said)
    if parts and "".join(number + unit for number, unit in parts) == said:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    return _seconds(said)


def _seconds(said: str | None) -> float | None:
    try:
        found = float(said) if said is not None else None
    except ValueError:
        return None
    return found if found is not None and 0 <= found < float("inf") else None


def _number(headers: Mapping[str, str], name: str) -> int | None:
    found = _seconds(headers.get(f"x-ratelimit-{name}"))
    return None if found is None else int(found)


def _reset(headers: Mapping[str, str], what: str) -> float | None:
    said = headers.get(f"x-ratelimit-reset-{what}")
    return None if said is None else duration(said.strip())
