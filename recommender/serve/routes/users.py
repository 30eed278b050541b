"""Users of the log, and what each of them took."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from recommender.serve import settings
from recommender.serve.routes.catalogue import Limit, Offset
from recommender.serve.routes.common import ItemId, Serving, an_id, as_json, refusals
from recommender.serve.schema import History, Users
from recommender.serve.snapshot import Snapshot

router = APIRouter(prefix="/v1/users", tags=["users"])


@router.get("", response_model=Users, responses=refusals(422))
async def list_users(
    service: Serving,
    prefix: Annotated[str, Query(max_length=settings.ID_LENGTH, description="Ids that begin so.")] = "",
    offset: Offset = 0,
    limit: Limit = 50,
) -> Response:
    """Users by their id, with how many events each has."""

    def told(snapshot: Snapshot) -> dict[str, Any]:
        first, last = snapshot.users_from(prefix)
        log = snapshot.log
        begin, end = min(first + offset, last), min(first + offset + limit, last)
        counts = (log.offsets[begin + 1 : end + 1] - log.offsets[begin:end]).tolist()
        names = log.user_ids[begin:end].tolist()
        return {
            "release": snapshot.release.name,
            "total": last - first,
            "users": [{"id": name, "events": count} for name, count in zip(names, counts, strict=True)],
        }

    return as_json(await service.work(told, _loads))


@router.get("/{user_id}/history", response_model=History, responses=refusals(400, 404, 422))
async def history(service: Serving, user_id: ItemId, offset: Offset = 0, limit: Limit = 50) -> Response:
    """What a user took, the latest first."""
    name = an_id(user_id)

    def told(snapshot: Snapshot) -> dict[str, Any]:
        log, release = snapshot.log, snapshot.release
        events = log.events_of(name)
        latest = range(events.stop - 1 - offset, max(events.start - 1, events.stop - 1 - offset - limit), -1)
        ids = log.item_ids[log.items[list(latest)]].tolist() if len(latest) else []
        rows = [snapshot.row(each) for each in ids]
        cards = iter(snapshot.cards.of([row for row in rows if row is not None]))
        return {
            "release": release.name,
            "user": name,
            "total": events.stop - events.start,
            "offset": offset,
            "events": [
                {
                    "id": each,
                    "time": None if log.times is None else int(log.times[at]),
                    "item": None if row is None else next(cards),
                }
                for at, each, row in zip(latest, ids, rows, strict=True)
            ],
        }

    return as_json(await service.work(told, _loads))


def _loads(snapshot: Snapshot) -> bool:
    """Whether the log is still to be read."""
    return not snapshot.has_log
