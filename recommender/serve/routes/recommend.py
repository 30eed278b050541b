"""The next items for a user of the log, or for a history that the request brings."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from featurestore.errors import BadInput
from recommender.retrieve import Retriever, facts
from recommender.serve.routes.common import Serving, as_json, check_k, refusals
from recommender.serve.schema import Recommended, RecommendTo
from recommender.serve.service import Service
from recommender.serve.settings import DEPTH
from recommender.serve.snapshot import Snapshot
from recommender.serve.why import nearest_in_history

router = APIRouter(prefix="/v1", tags=["recommend"])


@router.post("/recommend", response_model=Recommended, responses=refusals(400, 403, 404, 413, 422))
async def recommend(service: Serving, asked: RecommendTo) -> Response:
    """The next items, best first. With `explain`, the items of the history that the run holds for most similar."""
    check_k(asked.k, service)
    if (asked.user is None) == (asked.history is None):
        raise BadInput("recommend takes a user or a history, one of the two")
    if asked.rerank is not None and asked.k > DEPTH:
        raise BadInput(f"k is {asked.k}; of a re-ranked answer it is at most {DEPTH}", remedy="ask for fewer")

    def slow(snapshot: Snapshot) -> bool:
        return asked.rerank is not None or not snapshot.has_opened(asked.run)

    return as_json(await service.work(lambda snapshot: _recommended(snapshot, asked, service), slow))


def _recommended(snapshot: Snapshot, asked: RecommendTo, service: Service) -> dict[str, Any]:
    retriever = snapshot.retriever(asked.run)
    found = retriever.recommend(
        asked.user,
        history=asked.history,
        k=asked.k,
        where=asked.where,
        exclude_seen=asked.exclude_seen,
        rerank=asked.rerank,
        depth=asked.depth,
        device=service.settings.device,
    )
    told = facts(found)
    ids = found["item_id"].to_pylist()
    rows = [snapshot.release.row_of(each) for each in ids]
    cards = snapshot.cards.of(rows)
    scored = zip(cards, found["score"].to_pylist(), strict=True)
    items = [card | {"score": score} for card, score in scored]
    if asked.rerank is not None:
        for card, p_yes in zip(items, found["p_yes"].to_pylist(), strict=True):
            card["p_yes"] = p_yes
    if asked.explain:
        for card, near in zip(items, _why(snapshot, retriever, asked, ids), strict=True):
            card["explain"] = {"nearest": near}
    run = told.pop("run")
    told.pop("release")
    return {
        "release": snapshot.release.name,
        "run": run,
        "index": [{"feature": run, "kind": "exact", "exact": True, "recall": 1.0}],
        "facts": told,
        "items": items,
    }


def _why(
    snapshot: Snapshot, retriever: Retriever, asked: RecommendTo, ids: list[str]
) -> list[list[dict[str, Any]]]:
    history = asked.history if asked.history is not None else events_of(snapshot, str(asked.user))
    found = nearest_in_history(retriever.served, ids, history)
    named = {each for near in found for each, _ in near}
    titles = snapshot.titles(named)
    return [
        [{"id": each, "title": titles[each], "cosine": cosine} for each, cosine in near] for near in found
    ]


def events_of(snapshot: Snapshot, user: str) -> list[str]:
    log = snapshot.log
    found: list[str] = log.item_ids[log.items[log.events_of(user)]].tolist()
    return found
