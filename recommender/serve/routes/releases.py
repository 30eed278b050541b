"""What is served: releases, runs, and the features of the release that answers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from featurestore import release as releases
from featurestore.errors import NotFound
from featurestore.query import default_feature
from recommender import runs
from recommender.serve.cards import plain
from recommender.serve.routes.common import Serving, as_json, refusals
from recommender.serve.schema import Features, Releases, Runs
from recommender.serve.snapshot import Snapshot, usable

router = APIRouter(prefix="/v1", tags=["what is served"])


@router.get("/releases", response_model=Releases, responses=refusals(422))
async def list_releases(service: Serving) -> Response:
    """All releases, newest first, and the promoted run."""

    def told(snapshot: Snapshot) -> dict[str, Any]:
        chosen = runs.promoted(service.root)
        return {
            "current": snapshot.release.name,
            "run": snapshot.run,
            "promoted": chosen.name if chosen else None,
            "releases": [
                {
                    "name": made.name,
                    "tag": made.tag,
                    "created": made.created,
                    "items": made.n_items,
                    "events": made.n_events,
                    "current": made.name == snapshot.release.name,
                }
                for made in releases.every(service.root)[::-1]
            ],
        }

    return as_json(await service.work(told))


@router.get("/runs", response_model=Runs, responses=refusals(422))
async def list_runs(service: Serving) -> Response:
    """All runs, newest first, with what they validated at and what `evaluate` found."""

    def told(snapshot: Snapshot) -> dict[str, Any]:
        chosen = runs.promoted(service.root)
        promoted = chosen.name if chosen else None
        return {
            "release": snapshot.release.name,
            "runs": [_run(run, promoted, snapshot.run) for run in runs.list_runs(service.root)],
        }

    return as_json(await service.work(told))


def _run(run: runs.Run, promoted: str | None, served: str | None) -> dict[str, Any]:
    found = run.metrics()
    return {
        "name": run.name,
        "release": run.release,
        "created": run.created,
        "kind": run.kind,
        "items": str(run.options.items),
        "epochs": int(found.get("epochs", 0)),
        "finished": bool(found.get("finished", False)),
        "usable": usable(run),
        "promoted": run.name == promoted,
        "served": run.name == served,
        "validation": plain(found.get("valid", {})),
        "test": plain(found.get("test", {}).get("metrics", {})),
    }


@router.get("/features", response_model=Features, responses=refusals(400, 422))
async def list_features(
    service: Serving,
    status: Annotated[bool, Query(description="Also where the store's tables stand now.")] = False,
) -> Response:
    """The features of the release: how they were made, of how many items, how they are searched and by what."""
    # the status reads tables: seconds, of many items
    return as_json(await service.work(lambda snapshot: _features(snapshot, status), lambda snapshot: status))


def _features(snapshot: Snapshot, status: bool) -> dict[str, Any]:
    release = snapshot.release
    texts = snapshot.encoder.fitting(of_text=True) if snapshot.encoder else []
    pictures = snapshot.encoder.fitting(of_text=False) if snapshot.encoder else []
    states = {}
    if status and snapshot.store is not None:
        states = {each.name: each for each in snapshot.store.status(read_only=True).features}
    told = []
    for name in release.manifest["order"]:
        facts = release.declared(name)
        recipe = facts["recipe"] or {}
        state = states.get(name)
        searchable = name in release.searchable
        asked_by = [("item", searchable), ("text", name in texts), ("picture", name in pictures)]
        told.append(
            {
                "name": name,
                "kind": recipe.get("kind"),
                "holds": str(facts["kind"]),
                "dim": facts["dim"],
                "encoder": recipe.get("encoder"),
                "model": (recipe.get("model") or {}).get("id"),
                "recipe": facts["recipe_id"],
                "coverage": facts["coverage"],
                "searchable": searchable,
                "asked_by": [way for way, can in asked_by if can],
                "index": snapshot.index_facts([name])[0] if searchable else None,
                "status": _state(state) if state else None,
            }
        )
    return {
        "release": release.name,
        "default": _default(snapshot),
        "words": list((release.manifest.get("text") or {}).get("columns", [])),
        "columns": snapshot.cards.attributes,
        "features": told,
    }


def _state(state: Any) -> dict[str, Any]:
    names = ("current", "no_input", "missing", "stale", "failed", "blocked")
    return {name: getattr(state, name) for name in names} | {"notes": list(state.notes)}


def _default(snapshot: Snapshot) -> str | None:
    try:
        return default_feature(snapshot.release)
    except NotFound:
        return None
