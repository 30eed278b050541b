"""What an endpoint's replies and refusals mean: an answer, a failure of one request, or one of the whole endpoint.

Replies are read by hand, not by the client library: whatever a proxy or a crashed server sends with status 200 has to
become a code, never an exception of a parser.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ingest.describe.base import Answer, Finish
from ingest.describe.pace import TOO_MANY

SHOWN = 300  # characters of what an endpoint said that a message repeats
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
        "an option that this endpoint does not take may be the cause: set temperature, seed or structured"
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
    """The failure with a secret, should the endpoint have repeated it, blotted out."""
    return replace(failure, message=failure.message.replace(secret, "***")) if secret else failure


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
