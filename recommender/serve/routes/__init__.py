"""The routes, one file a subject."""

from __future__ import annotations

from fastapi import APIRouter

from recommender.serve.routes import catalogue, explore, process, recommend, releases, similar, users

ROUTERS: list[APIRouter] = [
    process.router,
    releases.router,
    catalogue.router,
    similar.router,
    recommend.router,
    users.router,
    explore.router,
]
