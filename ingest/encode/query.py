"""A query, text or picture, as a vector in a feature's space: by the recipe that the feature was made with.

A loaded encoder is kept for the next query of the same process. A text can ask an image feature where the model reads
both (open_clip): that is text-to-image search.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featurestore.errors import BadInput, CellError
from featurestore.recipe import Recipe
from ingest.encode import base
from ingest.encode.models import Models

if TYPE_CHECKING:
    from PIL import Image

    from featurestore.release import Release
    from featurestore.store import Store

Vector = npt.NDArray[np.float32]
KEPT = 4  # encoders kept loaded
BOTH = "open_clip"  # the encoder whose image features texts can ask, too

_loaded: OrderedDict[tuple[str, str, str], QueryEncoder] = OrderedDict()


@dataclass(frozen=True)
class QueryEncoder:
    """How queries come into one feature's space: `text` and `image` give (dim,) float32, or are None where they cannot.

    Both raise BadInput for a query that has no vector, such as a text none of whose words is known.
    """

    text: Callable[[str], Vector] | None
    image: Callable[[Image.Image], Vector] | None


def query_encoder(
    store: Store, recipe: Recipe, *, device: str = "auto", hint: str | None = None
) -> QueryEncoder:
    """The query encoder of a recipe. hint: the definition's `model`, where a local folder is looked for first.

    Raises ModelUnavailable, and BadInput for a recipe whose values were brought and not computed.
    """
    key = (str(store.root), recipe.id, device)
    if key in _loaded:
        _loaded.move_to_end(key)
        return _loaded[key]
    if (recipe.kind, recipe.encoder) not in base.known():
        raise BadInput(
            f"no encoder makes vectors of kind '{recipe.kind}' from a query",
            remedy="ask with an item, or another feature",
        )
    tools = base.Tools(Models(store.root), store.artifacts, device, None, hint)
    encoder: Any = base.maker(recipe.kind, recipe.encoder).load(recipe, tools)
    zero = getattr(encoder, "zero", base.ZERO)
    text: Callable[[str], Vector] | None = None
    image: Callable[[Image.Image], Vector] | None = None
    if recipe.kind == "embed_text":
        text = lambda query: _one(encoder.encode([query], role="query"), zero)  # noqa: E731
    else:
        image = lambda picture: _one(encoder.encode([encoder.prepare(picture)]), zero)  # noqa: E731
        if hasattr(encoder, "encode_text"):
            text = lambda query: _one(encoder.encode_text([query]), zero)  # noqa: E731
    _loaded[key] = QueryEncoder(text, image)
    while len(_loaded) > KEPT:
        _loaded.popitem(last=False)
    return _loaded[key]


def embed_query(
    store: Store,
    release: Release,
    *,
    text: str | None = None,
    image: str | Path | bytes | None = None,
    feature: str | None = None,
    device: str = "auto",
) -> tuple[Vector, str]:
    """(vector, feature) of a text or a picture (path or bytes), in the space of a feature of `release`.

    Without `feature`: for a text the first text feature, else an image feature whose model reads texts; for a picture
    the first image feature. Raises BadInput, NotFound, ModelUnavailable.
    """
    if (text is None) == (image is None):
        raise BadInput("a query is a text or a picture", remedy="give one of the two")
    chosen = feature if feature is not None else _choose(release, of_text=text is not None)
    recipe = Recipe.model_validate(release.facts(chosen)["recipe"])
    defined = store.definitions.features.get(chosen)
    encoder = query_encoder(store, recipe, device=device, hint=defined.model if defined else None)
    if text is not None:
        if encoder.text is None:
            raise BadInput(
                f"feature '{chosen}' is made from pictures by '{recipe.encoder}', which reads no texts",
                remedy=_others(release, chosen, of_text=True),
            )
        if not text.strip():
            raise BadInput("the query is empty", remedy="give some words")
        return encoder.text(text), chosen
    if encoder.image is None:
        raise BadInput(
            f"feature '{chosen}' is made from texts by '{recipe.encoder}', which sees no pictures",
            remedy=_others(release, chosen, of_text=False),
        )
    return encoder.image(_picture(image)), chosen


def _picture(image: str | Path | bytes | None) -> Image.Image:
    from ingest.pictures import PictureError, decode, read_file

    try:
        return decode(image if isinstance(image, bytes) else read_file(str(image))[0])
    except PictureError as error:
        path = "" if isinstance(image, bytes) else str(image)
        raise BadInput(
            error.message if path in error.message else f"{path}: {error.message}",
            remedy="give a picture file that is whole, such as JPEG or PNG",
        ) from error


def _one(vectors: Vector, zero: CellError) -> Vector:
    for _, fault in base.faults(vectors, zero):
        raise BadInput(
            f"the query has no vector: {fault.message}", remedy="ask in other words, or by another feature"
        )
    row: Vector = vectors[0]
    return row


def _fitting(release: Release, *, of_text: bool) -> list[str]:
    """Features that such a query can ask, best first."""
    own, across = [], []
    for name in release.searchable:
        recipe = release.facts(name)["recipe"]
        if (recipe["kind"], recipe["encoder"]) not in base.known():
            continue
        if recipe["kind"] == ("embed_text" if of_text else "embed_image"):
            own.append(name)
        elif of_text and recipe["encoder"] == BOTH:
            across.append(name)
    return own + across


def _choose(release: Release, *, of_text: bool) -> str:
    found = _fitting(release, of_text=of_text)
    if not found:
        what = "a text" if of_text else "a picture"
        raise BadInput(
            f"release {release.name} has no feature that {what} can ask",
            remedy="declare one in features.toml, materialize and publish",
        )
    return found[0]


def _others(release: Release, feature: str, *, of_text: bool) -> str:
    found = [name for name in _fitting(release, of_text=of_text) if name != feature]
    return f"ask by one of: {', '.join(found)}" if found else "declare a feature for it in features.toml"
