"""Items: browsed and searched, one by one, where they come from, and their pictures."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from featurestore import explain
from featurestore.errors import BadInput, NotFound
from recommender.serve import pictures, settings
from recommender.serve.routes.common import ItemId, Serving, an_id, as_json, refusals
from recommender.serve.schema import WHERE_DOC, Id, Item, Items, Lineage, Text, Where
from recommender.serve.snapshot import Snapshot

router = APIRouter(prefix="/v1/items", tags=["items"])
Offset = Annotated[int, Query(ge=0, le=settings.OFFSET)]
Limit = Annotated[int, Query(ge=1, le=settings.PAGE)]


@router.get("", response_model=Items, responses=refusals(400, 404, 422))
async def browse(
    service: Serving,
    q: Annotated[Text | None, Query(description="Words to be found in titles and texts (BM25).")] = None,
    where: Annotated[Where | None, Query(description=WHERE_DOC)] = None,
    id: Annotated[
        list[Id] | None,
        Query(max_length=settings.ITEMS, description="These items, in this order; repeatable."),
    ] = None,
    offset: Offset = 0,
    limit: Limit = 24,
) -> Response:
    """Items by their id; those that have words of `q` best first; all that a filter leaves; or named ones."""
    if id and q is not None:
        raise BadInput("items are found by words or named by id, one of the two", remedy="leave out q or id")

    def told(snapshot: Snapshot) -> dict[str, Any]:
        release = snapshot.release
        allowed = None if where is None else release.mask(where)
        scores, notes = None, []
        rows: npt.NDArray[Any]
        if id:
            rows = np.asarray([release.row_of(each) for each in dict.fromkeys(id)], np.int64)
            rows = rows if allowed is None else rows[allowed[rows]]
        elif q is not None:
            scores, rows = release.words.search(q, release.n_items, allowed)
            if unknown := release.words.unknown(q):
                notes.append(f"no item has {explain.listed(unknown)}{_near(release, unknown)}")
        else:
            rows = np.arange(release.n_items) if allowed is None else np.flatnonzero(allowed)
        page = slice(offset, offset + limit)
        cards: list[dict[str, Any]] = snapshot.cards.of(rows[page].tolist())
        if scores is not None:
            cards = [c | {"score": float(s)} for c, s in zip(cards, scores[page], strict=True)]
        return {
            "release": release.name,
            "run": None,
            "index": [],
            "total": len(rows),
            "offset": offset,
            "notes": notes,
            "items": cards,
        }

    return as_json(await service.work(told))


def _near(release: Any, unknown: list[str]) -> str:
    near = [f"'{word}'" for word in map(release.words.near, unknown[:3]) if word]
    return f"; did you mean {', '.join(near)}?" if near else ""


@router.get("/{item_id}/lineage", response_model=Lineage, responses=refusals(400, 404, 422))
async def lineage(service: Serving, item_id: ItemId) -> Response:
    """Where an item and each of its vectors come from, as `dualview trace` tells; without the server's paths."""
    name = an_id(item_id)

    def told(snapshot: Snapshot) -> dict[str, Any]:
        snapshot.release.row_of(name)
        if snapshot.store is None or service.trace is None:
            raise NotFound(
                "a carried release does not know where its items come from",
                remedy="serve the store that it was exported from",
            )
        return {"release": snapshot.release.name, "lineage": _public(service.trace(snapshot.store, name))}

    return as_json(await service.work(told))


PRIVATE = ("file", "files", "by", "machine")  # of a trace: paths of the server, and who works on it


def _public(node: Any) -> dict[str, Any]:
    facts = {key: _bare(value) for key, value in node.facts.items() if key not in PRIVATE}
    return {
        "kind": node.kind,
        "name": str(_bare(node.name)),
        "facts": facts,
        "below": [_public(each) for each in node.below],
    }


def _bare(value: Any) -> Any:
    """Without absolute paths: of each the last part; times as text."""
    if isinstance(value, str):
        return PurePath(value).name if value.startswith("/") and len(value) > 1 else value
    if isinstance(value, dict):
        return {str(key): _bare(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_bare(each) for each in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else str(value)


@router.get(
    "/{item_id}/picture",
    response_class=Response,
    responses=refusals(400, 404, 422)
    | {
        200: {
            "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
            "headers": {"ETag": {"schema": {"type": "string"}}},
        },
        304: {"description": "The caller has it"},
    },
)
async def picture(
    service: Serving,
    request: Request,
    item_id: ItemId,
    size: Annotated[
        pictures.Size, Query(description="At most 256 px, always JPEG; or the file as it was ingested.")
    ] = "thumbnail",
) -> Response:
    """The picture of an item."""
    name = an_id(item_id)
    found = await service.work(lambda snapshot: pictures.of_item(snapshot, name, size))
    headers = {
        "ETag": found.etag,
        "Cache-Control": "private, max-age=3600",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    if found.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)


@router.get("/{item_id}", response_model=Item, responses=refusals(400, 404, 422))
async def item(service: Serving, item_id: ItemId) -> Response:
    """All that the release has of an item."""
    name = an_id(item_id)

    def told(snapshot: Snapshot) -> dict[str, Any]:
        page = snapshot.cards.page(snapshot.release.row_of(name))
        return {"release": snapshot.release.name, "run": None, "index": [], "item": page}

    return as_json(await service.work(told))
