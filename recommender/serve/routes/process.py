"""How the process is: alive, ready, its figures; a reload, and a browser's session."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from recommender.serve import meters
from recommender.serve.errors import Refused
from recommender.serve.guard import COOKIE
from recommender.serve.routes.common import Serving, as_json, refusals
from recommender.serve.schema import Health, Ready, Reloaded, Session

router = APIRouter(tags=["process"])


@router.get("/health", response_model=Health, responses=refusals())
async def health() -> Response:
    """The process answers; nothing is looked at."""
    return as_json({"status": "ok"})


@router.get("/ready", response_model=Ready, responses=refusals(422))
async def ready(
    service: Serving,
    part: Annotated[
        Literal["recommend", "text"] | None,
        Query(description="Ready only if this part is, too; the parts are loaded after the rest."),
    ] = None,
) -> Response:
    """What is served, and how much of it is loaded: similar items at once, users and texts some seconds later."""
    snapshot = service.current
    if part is not None and snapshot.parts[part] != "ready":
        raise Refused(
            503,
            f"{part} is {snapshot.parts[part]}",
            remedy="; ".join(snapshot.notes) or "ask again in some seconds",
            headers={"Retry-After": "2"},
        )
    return as_json(
        {
            "status": "ready",
            "release": snapshot.release.name,
            "run": snapshot.run,
            "since": snapshot.since,
            "parts": snapshot.parts,
            "notes": snapshot.notes,
            "failed": service.failed,
        }
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses=refusals() | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(service: Serving) -> Response:
    """Figures in Prometheus' text format."""
    service.meters.pending.set(service.pool.pending)
    return Response(service.meters.text(), media_type=meters.CONTENT_TYPE)


@router.post("/v1/reload", response_model=Reloaded, responses=refusals(400, 403, 404, 422))
async def reload(service: Serving) -> Response:
    """Look for a newer release or run now, and have it answer; the old one goes on where the new one fails to open."""
    swapped = await service.reload()
    snapshot = service.current
    return as_json({"release": snapshot.release.name, "run": snapshot.run, "swapped": swapped})


@router.post("/v1/session", response_model=Session, responses=refusals(403, 422))
async def session(service: Serving, request: Request) -> Response:
    """For a page: a cookie that stands for the key, so that a browser shows pictures. It ends with the browser."""
    answer = as_json({"session": "open"})
    if service.settings.api_key is not None:
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, service.session, httponly=True, samesite="strict", secure=secure)
    return answer
