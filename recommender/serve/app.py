"""The application: routes, errors, guard and the OpenAPI document, around one `Service`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from featurestore import identity
from recommender.serve import errors
from recommender.serve.guard import Guard
from recommender.serve.routes import ROUTERS
from recommender.serve.routes.common import only_known

if TYPE_CHECKING:
    from recommender.serve.service import Service

ABOUT = """Retrieval from one release of a Dualview store: items that are similar, and the next items for a user.

Every answer names the release that it comes from, the run where one was used, and the measured recall of the index.
Every refusal is {"error": {"code", "message", "remedy"}}. In a path, a slash within an id is written %2F."""


def create_app(service: Service) -> FastAPI:
    """The ASGI application over an opened service. It has no pages of documentation: those would be fetched from
    elsewhere.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="Dualview",
        version=identity.version(),
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    errors.install(app, str(service.root))
    for router in ROUTERS:
        app.include_router(router, dependencies=[Depends(only_known)])
    app.add_middleware(Guard, service=service)
    if service.settings.cors:  # outside the guard, so that a page can read its refusals, too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.settings.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "x-api-key", "content-type"],
        )
    if service.settings.api_key is not None:
        _declare_key(app)
    return app


def _declare_key(app: FastAPI) -> None:
    """Say in the OpenAPI document that a key is needed."""
    plain = app.openapi

    def with_key() -> dict[str, Any]:
        document = plain()
        parts = document.setdefault("components", {})
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        return document

    app.openapi = with_key  # type: ignore[method-assign]
