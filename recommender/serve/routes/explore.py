"""What only the explorer needs: its own files, what its filter and its map can name, and the map."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from featurestore.errors import NotFound
from recommender.serve import columns, projection
from recommender.serve.cards import plain
from recommender.serve.projection import Layout
from recommender.serve.routes.common import ItemId, Serving, an_id, as_json, refusals
from recommender.serve.schema import Name, Told
from recommender.serve.snapshot import Snapshot

router = APIRouter(tags=["explorer"])

POINTS = 150_000  # of a map, at most
RANGE = 32_767  # greatest coordinate of a map as it is sent
TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


class ExplorerColumn(Told):
    name: str
    kind: columns.Kind
    common: list[str] = Field(description="Its most frequent values.")
    least: float | None
    greatest: float | None
    grouped: bool = Field(description="A map can be coloured by it.")


class Explorer(Told):
    release: str
    store: str = Field(description="Name of the store's folder.")
    ratio: float | None = Field(description="Width by height that pictures usually have.")
    columns: list[ExplorerColumn]


class Map(Told):
    """One entry a point. total: items with a vector, of which at most 150,000 are sent, evenly chosen."""

    release: str
    feature: str
    layout: Layout
    explained: float | None = Field(description="Share of the variance that two directions of a PCA hold.")
    total: int
    ids: list[str]
    x: list[int] = Field(description=f"From -{RANGE} to {RANGE}.")
    y: list[int]


class Group(Told):
    name: str
    count: int


class Colours(Told):
    """One entry a point of the map, in its order: codes of groups, or values of numbers.

    A code is a place in `groups`, their number for any other value, -1 for none.
    """

    release: str
    by: str
    groups: list[Group] | None
    codes: list[int] | None
    values: list[float | None] | None
    least: float | None
    greatest: float | None


@router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    return _file(request, "index.html")


@router.get("/page/{name:path}", include_in_schema=False)
async def page_file(request: Request, name: str) -> Response:
    return _file(request, name)


@router.get("/favicon.ico", include_in_schema=False)
async def favicon(request: Request) -> Response:
    return _file(request, "icon.svg")


@cache
def _files() -> dict[str, Path]:
    """The page's files by name; what is not in here is not served."""
    root = Path(str(resources.files("recommender.serve") / "page"))
    return {
        path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.suffix in TYPES
    }


def _file(request: Request, name: str) -> Response:
    path = _files().get(name)
    if path is None:
        raise NotFound("the page has no such file", remedy="open / instead")
    content = path.read_bytes()
    etag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=TYPES[path.suffix], headers=headers)


@router.get("/v1/explorer", response_model=Explorer, responses=refusals(422))
async def explorer(service: Serving) -> Response:
    """What the explorer shows around items: the store's name, the shape of pictures, columns with their values."""

    def told(snapshot: Snapshot) -> dict[str, Any]:
        return {
            "release": snapshot.release.name,
            "store": service.root.name,
            "ratio": columns.picture_ratio(snapshot.store),
            "columns": [plain(vars(column)) for column in columns.columns(snapshot.release)],
        }

    return as_json(await service.work(told))


@router.get("/v1/map/{feature}", response_model=Map, responses=refusals(400, 404, 422))
async def catalogue_map(
    service: Serving,
    feature: ItemId,
    layout: Annotated[Layout, Query(description="Two main directions, or who is near whom.")] = "pca",
) -> Response:
    """The catalogue in two dimensions. Made when it is first asked for, in some seconds, and kept."""
    name = an_id(feature)
    with service.lease() as snapshot:
        return as_json(await service.maps[layout].run(lambda: _map(snapshot, name, layout)))


def _map(snapshot: Snapshot, feature: str, layout: Layout) -> dict[str, Any]:
    release = snapshot.release
    made = projection.catalogue_map(release, feature, layout)
    chosen = _sent(len(made.rows))
    places = np.rint(made.points[chosen] * RANGE).astype(int)
    return {
        "release": release.name,
        "feature": feature,
        "layout": layout,
        "explained": made.explained,
        "total": len(made.rows),
        "ids": release.ids[made.rows[chosen]].tolist(),
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
    }


@router.get("/v1/map/{feature}/colours", response_model=Colours, responses=refusals(400, 404, 422))
async def map_colours(
    service: Serving, feature: ItemId, by: Annotated[Name, Query(description="A column.")]
) -> Response:
    """What the points of a feature's map are coloured by."""
    name = an_id(feature)

    def told(snapshot: Snapshot) -> dict[str, Any]:
        release = snapshot.release
        rows = release.matrix(name).rows
        rows = rows[_sent(len(rows))]
        found = columns.colours(release, by)
        answer: dict[str, Any] = dict.fromkeys(Colours.model_fields) | {"release": release.name, "by": by}
        if found.codes is not None:
            groups = [{"name": group, "count": count} for group, count in found.groups]
            return answer | {"groups": groups, "codes": found.codes[rows].tolist()}
        assert found.values is not None
        values = found.values[rows]
        known = values[np.isfinite(values)]
        least, greatest = (float(known.min()), float(known.max())) if len(known) else (None, None)
        return answer | {"values": plain(values.tolist()), "least": least, "greatest": greatest}

    return as_json(await service.work(told))


def _sent(n: int) -> Any:
    """Places of the points that are sent."""
    return np.arange(n) if n <= POINTS else np.unique(np.linspace(0, n - 1, POINTS).astype(np.int64))
