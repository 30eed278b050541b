"""What all routes need: the service, ids out of paths, which refusals a route declares, and JSON made by hand.

Answers are written as JSON here and not by FastAPI: their models only describe them, since checking each field of each
answer took longer than the search (see docs/serve.md).
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Request
from starlette.responses import Response

from featurestore.errors import BadInput, did_you_mean
from recommender.serve.cards import dumps
from recommender.serve.errors import Refused
from recommender.serve.guard import unescaped
from recommender.serve.schema import ITEM_DOC, Refusal
from recommender.serve.service import Service
from recommender.serve.settings import ID_LENGTH

SAID = {
    400: "What is asked cannot be meant",
    401: "The API key is missing or wrong",
    403: "A page of another origin asks",
    404: "It is not there",
    405: "Not asked so",
    413: "The body is too large",
    415: "The body is of another type",
    421: "The service is not asked under this name",
    422: "A field is missing or wrong",
    500: "A bug; the service's log says which",
    503: "Too many wait, or a part is not ready; ask again",
}
COMMON = (401, 421, 500, 503)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for the OpenAPI document; every route can answer those in COMMON too."""
    return {s: {"model": Refusal, "description": SAID[s]} for s in sorted({*statuses, *COMMON})}


async def _service(request: Request) -> Service:  # async, since FastAPI sends any other to a thread and back
    service: Service = request.app.state.service
    return service


Serving = Annotated[Service, Depends(_service)]


async def only_known(request: Request) -> None:
    """Refuse a parameter that the route does not take: ignored, it would be taken for heeded."""
    route = request.scope["route"]
    if not request.scope["query_string"] or not route.path.startswith("/v1/"):
        return
    known = [one.alias for one in route.dependant.query_params]
    for name in request.query_params:
        if name not in known:
            remedy = did_you_mean(name[:64], known) if known else "it takes none"
            raise Refused(422, f"there is no parameter '{name[:64]}' here", remedy=remedy)


ItemId = Annotated[str, Path(min_length=1, max_length=3 * ID_LENGTH, description=ITEM_DOC)]


def an_id(part: str) -> str:
    """The id in a part of a path. Raises BadInput for one longer than any."""
    found = unescaped(part)
    if len(found) > ID_LENGTH:
        raise BadInput(f"an id has at most {ID_LENGTH} characters")
    return found


def check_k(k: int, service: Service) -> None:
    """Raises BadInput for more answers than this service gives."""
    if k > service.settings.max_k:
        raise BadInput(
            f"k is {k:,}; this service answers at most {service.settings.max_k:,}", remedy="ask for fewer"
        )


def as_json(value: Any) -> Response:
    """An answer from plain values."""
    return Response(dumps(value), media_type="application/json")


def raw(text: str) -> Response:
    """An answer that is JSON already."""
    return Response(text, media_type="application/json")
