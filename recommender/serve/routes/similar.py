"""What is similar: to items, away from others, to a text, to words, to a picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import Response

from featurestore.errors import BadInput, did_you_mean
from featurestore.query import Mode, chosen_features, default_feature, without_vector
from featurestore.query import Query as Question
from featurestore.search import facts, search
from recommender.serve import pictures
from recommender.serve.cards import dumps, plain
from recommender.serve.routes.common import ItemId, Serving, an_id, check_k, raw, refusals
from recommender.serve.schema import WHERE_DOC, K, Name, Similar, SimilarTo, SimilarToPicture, Where
from recommender.serve.service import Service
from recommender.serve.settings import JSON_BYTES
from recommender.serve.snapshot import Snapshot

router = APIRouter(prefix="/v1/similar", tags=["similar"])


@router.post("", response_model=Similar, responses=refusals(400, 403, 404, 413, 422))
async def similar(service: Serving, asked: SimilarTo) -> Response:
    """The nearest items to whatever is asked, best first."""
    check_k(asked.k, service)
    if _plain(asked):
        feature = next(iter(asked.features)) if asked.features else None
        return await _nearest(service, asked.items[0], feature, asked.where, asked.k)
    text, mode = _reading(asked)
    question = _question(asked, text=text, mode=mode)
    return raw(await service.work(lambda snapshot: _search(snapshot, question), _loads(question)))


@router.post("/image", response_model=Similar, responses=refusals(400, 403, 404, 413, 422))
async def similar_to_picture(
    request: Request,
    service: Serving,
    image: Annotated[UploadFile, File(description="A picture: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF.")],
    options: Annotated[
        str, Form(max_length=JSON_BYTES, description="JSON: what POST /v1/similar takes, but words and mode.")
    ] = "{}",
) -> Response:
    """The nearest items to a picture, and to items or a text beside it."""
    for name in await request.form():
        if name not in ("image", "options"):
            raise BadInput(
                f"no field of the form is called '{name}'",
                remedy=f'the picture stands in `image`, all else in `options`: {{"{name}": ...}}'
                if name in SimilarToPicture.model_fields
                else did_you_mean(name, ("image", "options")),
            )
    asked = _options(options)
    check_k(asked.k, service)
    content = await image.read(service.settings.max_body + 1)
    if len(content) > service.settings.max_body:
        raise BadInput(
            f"the picture has more than {service.settings.max_body:,} bytes", remedy="send a smaller one"
        )

    question = _question(asked, text=asked.text, image=content)

    def told(snapshot: Snapshot) -> str:
        pictures.check_upload(content, service.settings.max_pixels)
        return _search(snapshot, question)

    return raw(await service.work(told, _loads(question)))


@router.get("/{item_id}", response_model=Similar, responses=refusals(400, 404, 422))
async def similar_to_item(
    service: Serving,
    item_id: ItemId,
    k: Annotated[K, Query()] = 10,
    feature: Annotated[Name | None, Query(description="Whose vectors to compare.")] = None,
    where: Annotated[Where | None, Query(description=WHERE_DOC)] = None,
) -> Response:
    """The nearest items to one item, by one feature."""
    check_k(k, service)
    return await _nearest(service, an_id(item_id), feature, where, k)


async def _nearest(service: Service, item: str, feature: str | None, where: str | None, k: int) -> Response:
    """One item, one feature of weight 1: searches that wait together are one."""
    with service.lease() as snapshot:
        release = snapshot.release
        chosen = default_feature(release) if feature is None else feature
        release.facts(chosen)  # a feature that is not there is said before an item that is not
        row = release.row_of(item)
        matrix = release.matrix(chosen)
        if len(matrix) < release.n_items and matrix.place_of(row) < 0:
            raise without_vector(release, chosen, row)
        scores, rows = await service.batcher.nearest(snapshot, row, chosen, where, k)
        notes = [] if len(rows) else ["no other item that may be answered has a vector to compare"]
        return raw(_written(snapshot, rows.tolist(), scores.tolist(), [chosen], notes))


def _plain(asked: SimilarTo) -> bool:
    """Whether it is one item by one feature, the question that most ask."""
    one = asked.features is None or list(asked.features.values()) == [1.0]
    other = asked.unlike or asked.text or asked.words or asked.mode or asked.diversity
    return len(asked.items) == 1 and one and not (other or asked.explain or asked.exact)


def _reading(asked: SimilarTo) -> tuple[str | None, Mode]:
    """The text of a question and how it is read."""
    if not (asked.items or asked.text is not None or asked.words is not None):
        raise BadInput(
            "similar to what?", remedy="give items, a text or words; a picture to /v1/similar/image"
        )
    if asked.mode in ("keyword", "hybrid") and asked.text is None and asked.words is None:
        raise BadInput(f"mode '{asked.mode}' looks for words", remedy="give text or words")
    if asked.text is not None and asked.words is not None and asked.text != asked.words:
        raise BadInput(
            "text and words differ: both rankings are of one text",
            remedy="give the same in both, or one of them",
        )
    if asked.mode is not None:
        return asked.text or asked.words, asked.mode
    if asked.words is None:
        return asked.text, "vector"
    return asked.words, "keyword" if asked.text is None and not asked.items else "hybrid"


def _question(
    asked: SimilarTo | SimilarToPicture,
    *,
    text: str | None,
    mode: Mode = "vector",
    image: bytes | None = None,
) -> Question:
    return Question(
        items=tuple(dict.fromkeys(asked.items)),
        unlike=tuple(dict.fromkeys(asked.unlike)),
        text=text,
        image=image,
        features=asked.features,
        mode=mode,
        where=asked.where,
        k=asked.k,
        diversity=asked.diversity,
        beta=asked.beta,
        explain=asked.explain,
        exact=asked.exact,
    )


def _loads(question: Question) -> Callable[[Snapshot], bool]:
    """Whether a question needs an encoder that is still to be loaded."""
    parts = {
        True: question.text is not None and question.mode != "keyword",
        False: question.image is not None,
    }
    needed = {of_text for of_text, there in parts.items() if there}
    return lambda snapshot: snapshot.encoder is not None and not needed <= snapshot.encoder.loaded


def _options(text: str) -> SimilarToPicture:
    """The JSON part beside a picture. Raises as FastAPI does for a body."""
    try:
        return SimilarToPicture.model_validate_json(text)
    except ValidationError as error:
        raise RequestValidationError(
            [
                e | {"loc": ("options", *e["loc"])}
                for e in error.errors(include_input=False, include_context=False)
            ]
        ) from None


def _search(snapshot: Snapshot, question: Question) -> str:
    """An answer as JSON."""
    release = snapshot.release
    found = search(release, question, snapshot.encoder)
    told = facts(found)
    rows = [release.row_of(each) for each in found.column(0).to_pylist()]
    names = [] if question.mode == "keyword" else list(chosen_features(release, question, snapshot.encoder))
    why: list[dict[str, Any]] | None = None
    if question.explain:
        own = len(found.column_names) - len(release.shown.schema.names)
        why = (
            [plain(each) for each in found.select(range(2, 1 + own)).to_pylist()]
            if own > 1
            else [{}] * len(rows)
        )
    scores = found.column(1).to_pylist()
    notes = told.pop("notes", [])
    whole = plain(told) if question.explain else None
    return _written(snapshot, rows, scores, names, notes, exact=question.exact, why=why, whole=whole)


def _written(
    snapshot: Snapshot,
    rows: list[int],
    scores: list[float],
    features: list[str],
    notes: list[str],
    *,
    exact: bool = False,
    why: list[dict[str, Any]] | None = None,
    whole: dict[str, Any] | None = None,
) -> str:
    """The JSON of an answer, put together from cards that are JSON already."""
    head = {
        "release": snapshot.release.name,
        "run": None,
        "index": snapshot.index_facts(features, exact=exact),
        "notes": notes,
        "explain": whole,
    }
    told = [""] * len(rows) if why is None else [f',"explain":{dumps(each)}' for each in why]
    items = ",".join(
        f'{card},"score":{json.dumps(score)}{more}}}'
        for card, score, more in zip(snapshot.cards.json(rows), scores, told, strict=True)
    )
    return f'{dumps(head)[:-1]},"items":[{items}]}}'
