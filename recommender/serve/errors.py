"""Every refusal as one kind of JSON, {"error": {"code", "message", "remedy"}}, with the status that fits it.

Nothing of the server is in it: no stack trace, and no path of the store.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from featurestore.errors import (
    BadInput,
    Conflict,
    DiskError,
    DualviewError,
    MissingExtra,
    ModelUnavailable,
    NotFound,
    Stale,
)

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger("dualview.serve")

STATUSES: Mapping[type[DualviewError], int] = {
    BadInput: 400,
    NotFound: 404,
    Stale: 409,
    Conflict: 503,
    DiskError: 503,
    ModelUnavailable: 503,
    MissingExtra: 503,
}
CODES = {
    400: "bad_input",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    421: "misdirected",
    422: "invalid",
    500: "bug",
    503: "unavailable",
}
LISTED = 5  # wrong fields that a refusal names
SHOWN = 1_000  # characters of a message


class Refused(DualviewError):
    """A refusal of the service's own, with its status and headers."""

    def __init__(
        self, status: int, message: str, *, remedy: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.status, self.headers = status, headers or {}
        self.code = CODES[status]


def overloaded(message: str) -> Refused:
    return Refused(503, message, remedy="ask again in a second", headers={"Retry-After": "1"})


def body(code: str, message: str, remedy: str | None) -> bytes:
    """A refusal as JSON."""
    cut = message if len(message) <= SHOWN else message[:SHOWN] + " ..."
    return json.dumps({"error": {"code": code, "message": cut, "remedy": remedy}}).encode()


def response(
    status: int,
    message: str,
    remedy: str | None = None,
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    content = body(code or CODES.get(status, "error"), message, remedy)
    return Response(content, status, headers, media_type="application/json")


def status_of(error: DualviewError) -> int:
    if isinstance(error, Refused):
        return error.status
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 400)


def answer_to(error: DualviewError, root: str) -> Response:
    """The answer to a refusal; root: the store's folder, which is nobody's business."""
    status = status_of(error)
    headers = dict(error.headers) if isinstance(error, Refused) else {}
    if status == 503:
        headers.setdefault("Retry-After", "1" if error.retryable else "60")

    def without_root(text: str | None) -> str | None:
        return text.replace(root, "STORE") if text else text

    return response(
        status,
        without_root(error.message) or "",
        without_root(error.remedy),
        code=error.code,
        headers=headers,
    )


def install(app: FastAPI, root: str) -> None:
    """Have the application answer every exception so."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, DualviewError)
        if status_of(error) == 503 and not isinstance(error, Refused):
            log.warning("%s", json.dumps({"event": "unavailable", "error": error.message}))
        return answer_to(error, root)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return response(422, _fields(error.errors()), "see /openapi.json for what the request takes")

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        known = error.status_code if error.status_code in CODES else 400
        remedy = "see /openapi.json for what there is" if known in (404, 405) else None
        return response(known, str(error.detail), remedy, headers=error.headers)

    app.add_exception_handler(DualviewError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _fields(errors: Any) -> str:
    """What is wrong with which fields; never what was sent."""
    said = []
    for one in list(errors)[:LISTED]:
        place = ".".join(str(part)[:64] for part in one.get("loc", ()) if part != "body")
        said.append(f"{place}: {one.get('msg', 'invalid')}" if place else str(one.get("msg", "invalid")))
    more = len(errors) - LISTED
    return "; ".join(said) + (f"; and {more} more" if more > 0 else "")
