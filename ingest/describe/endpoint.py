"""What an endpoint's replies and refusals mean: an answer, a failure of one request, or one of the whole endpoint.

Replies are read by hand, not by the client library: whatever a proxy or a crashed server sends with status 200 has to
become a code, never an exception of a parser.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from featurestore.errors import CellError, ModelUnavailable
from ingest.describe.base import Answer, Finish
from ingest.describe.pace import TOO_MANY

TELLING = 3  # failures of the endpoint in a row, with no answer between them, that end the call
SHOWN = 300  # characters of what an endpoint said that a message repeats
LEAST_SECRET = 8  # characters of a key's beginning that are not shown; fewer tell nothing
RETRIED = (408, 409, 425, TOO_MANY)
WITHHELD = ("content_filter", "content_policy_violation", "responsible_ai_policy_violation")
OVER_LENGTH = ("context_length_exceeded", "string_above_max_length")
NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")
NO_CONNECTION = ("ConnectError", "ConnectTimeout", "UnsupportedProtocol", "InvalidURL")


@dataclass(frozen=True)
class Failure:
    """Why a request has no answer.

    retry: the same request may be answered if sent again. everyone: it says something of the endpoint rather than of
    this request, so that a few of them in a row, and nothing else, are the whole call's failure. fatal: one is enough.
    """

    code: str
    message: str
    retry: bool = False
    everyone: bool = False
    fatal: bool = False
    remedy: str = "see what the endpoint says; what was answered is kept, and the same command goes on"

    @property
    def cell(self) -> CellError:
        return CellError(self.code, self.message, transient=self.retry)


class Telling:
    """Tells failures of the endpoint from those of single requests.

    Failures that say something of the endpoint are held back until an answer, if only to a harmless question, shows
    that it is alive; as many as TELLING of them, and nothing else, are the call's failure. Once there was an answer,
    only an endpoint that cannot be reached ends a call.
    """

    def __init__(self) -> None:
        self._held: list[tuple[int, Failure]] = []

    def heard(
        self, place: int, result: Answer | Failure, alive: bool
    ) -> Iterator[tuple[int, Answer | CellError]]:
        """What can be given out now. Raises ModelUnavailable."""
        if isinstance(result, Failure) and result.fatal:
            raise ModelUnavailable(result.message, remedy=result.remedy)
        if isinstance(result, Failure) and result.everyone and (not alive or result.code == "unreachable"):
            self._held.append((place, result))
            if len(self._held) >= TELLING:
                raise ModelUnavailable(result.message, remedy=result.remedy)
            return
        yield from ((held, failure.cell) for held, failure in self._held)
        self._held.clear()
        yield place, result if isinstance(result, Answer) else result.cell

    def rest(self, alive: bool) -> Iterator[tuple[int, CellError]]:
        """What is still held back at the end. Raises ModelUnavailable where there never was an answer."""
        if self._held and not alive:
            raise ModelUnavailable(self._held[0][1].message, remedy=self._held[0][1].remedy)
        yield from ((place, failure.cell) for place, failure in self._held)


def read_reply(body: bytes, content_type: str, seconds: float) -> Answer | Failure:
    """The answer in the body of a chat completion."""
    if "json" not in content_type.lower():
        said = f"the endpoint answered with {content_type or 'no content type'}, not JSON: {_shown(body)}"
        return Failure("bad_reply", said, retry=True, everyone=True)
    try:
        reply = json.loads(body)
    except ValueError:
        return Failure("bad_reply", f"the endpoint's JSON breaks off or is none: {_shown(body)}", retry=True)
    choices = reply.get("choices") if isinstance(reply, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Failure("empty_reply", f"the endpoint's reply has no choices: {_shown(body)}", retry=True)
    usage = reply.get("usage")
    text, finish = _said(message, choice.get("finish_reason"))
    return Answer(text, finish, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"), seconds)


def read_refusal(status: int, body: Any) -> Failure:
    """What a status of 400 and above means. body: what the client library made of it, JSON or text."""
    error = body.get("error", body) if isinstance(body, dict) else body
    code = str(error.get("code") or error.get("type") or "") if isinstance(error, dict) else ""
    said = str(error.get("message") or error) if isinstance(error, dict) else str(error or "")
    message = f"the endpoint answered {status}: {said.strip()[:SHOWN] or 'nothing else'}"
    if status in (401, 403, 407):
        return Failure("not_allowed", message, fatal=True, remedy="check the key and what it may do")
    if status == 402 or code in NO_CREDIT:
        return Failure("no_credit", message, fatal=True, remedy="add credit, then run the same command again")
    if status in (404, 405):
        remedy = (
            "check model and base_url (it often ends in /v1); the endpoint lists its models under /models"
        )
        return Failure("model_unavailable", message, fatal=True, remedy=remedy)
    if status in RETRIED or status >= 500:
        return Failure(f"http_{status}", message, retry=True, everyone=status != TOO_MANY)
    if code in WITHHELD:
        return Failure("refused", message)
    if code in OVER_LENGTH or status == 413:
        return Failure("too_long", message)
    remedy = (
        "an option that this endpoint does not take may be the cause: leave it out with "
        'omit = ["temperature"], "seed" or "response_format"'
    )
    return Failure(f"http_{status}", message, everyone=True, remedy=remedy)


def unreachable(error: BaseException) -> Failure:
    """No answer at all: the connection was refused, or broke."""
    cause = error.__cause__ or error
    said = f"{type(cause).__name__}: {str(cause)[:SHOWN]}"
    if type(cause).__name__ in NO_CONNECTION:
        remedy = "start the endpoint, or correct base_url; then run the same command again"
        return Failure("unreachable", f"no connection ({said})", retry=True, everyone=True, remedy=remedy)
    return Failure(
        "connection_lost", f"the connection broke before the answer was whole ({said})", retry=True
    )


def without(failure: Failure, secret: str) -> Failure:
    """The failure with a secret, should the endpoint have repeated it, blotted out; its beginning too, as messages are
    cut.
    """
    message = failure.message
    for size in range(len(secret), max(min(len(secret), LEAST_SECRET) - 1, 0), -1):
        message = message.replace(secret[:size], "***")
    return replace(failure, message=message)


def _said(message: Mapping[str, Any], finish_reason: Any) -> tuple[str, Finish]:
    content = message.get("content")
    if isinstance(content, list):  # some endpoints answer in parts
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    text = content if isinstance(content, str) else ""
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        return text or refusal, "refused"
    if finish_reason == "content_filter":
        return text, "refused"
    return text, "length" if finish_reason == "length" else "stop"


def _count(usage: Any, name: str) -> int | None:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) and found >= 0 else None


def _shown(body: bytes) -> str:
    text = " ".join(body.decode("utf-8", "replace").split())
    return repr(text[:SHOWN]) if text else "an empty body"
