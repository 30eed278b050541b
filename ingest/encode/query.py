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

from featurestore import schema
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


class ReleaseEncoder:
    """Queries in the space of each feature of a release, by the recipe that the release was made with: what
    `featurestore.search.search` is given for texts and pictures. Encoders are loaded when first used.
    """

    def __init__(self, store: Store, release: Release, device: str = "auto") -> None:
        self._store, self._release, self._device = store, release, device

    def fitting(self, *, of_text: bool) -> list[str]:
        """Features that a text (or a picture) can ask, best first: those made from such, then those across."""
        own, across = [], []
        for name in self._release.searchable:
            recipe = self._release.facts(name)["recipe"]
            if (recipe["kind"], recipe["encoder"]) not in base.known():
                continue
            if recipe["kind"] == ("embed_text" if of_text else "embed_image"):
                own.append(name)
            elif of_text and recipe["encoder"] == BOTH:
                across.append(name)
        return own + across

    def text(self, feature: str, text: str) -> Vector:
        """(dim,) Raises BadInput for a feature that reads no texts or a text without a vector; ModelUnavailable."""
        encode = self._encoder(feature).text
        if encode is None:
            raise self._refusal(feature, "pictures", "reads no texts", of_text=True)
        return encode(text)

    def image(self, feature: str, image: str | Path | bytes) -> Vector:
        """(dim,) of a picture, as a path or a file's bytes. Raises as `text` does."""
        encode = self._encoder(feature).image
        if encode is None:
            raise self._refusal(feature, "texts", "sees no pictures", of_text=False)
        return encode(_picture(image))

    def _encoder(self, feature: str) -> QueryEncoder:
        recipe = Recipe.model_validate(self._release.facts(feature)["recipe"])
        if (recipe.kind, recipe.encoder) not in base.known():
            brought = recipe.kind == schema.IMPORTED
            kind = "was brought and not computed" if brought else f"is of kind {recipe.kind}"
            raise BadInput(
                f"feature '{feature}' {kind}: no encoder makes such a vector of a query",
                remedy="ask with an item, or by another feature",
            )
        defined = self._store.definitions.features.get(feature)
        return query_encoder(
            self._store, recipe, device=self._device, hint=defined.model if defined else None
        )

    def _refusal(self, feature: str, made_from: str, cannot: str, *, of_text: bool) -> BadInput:
        encoder = self._release.facts(feature)["recipe"]["encoder"]
        others = [name for name in self.fitting(of_text=of_text) if name != feature]
        return BadInput(
            f"feature '{feature}' is made from {made_from} by '{encoder}', which {cannot}",
            remedy=f"ask by one of: {', '.join(others)}"
            if others
            else "declare a feature for it in features.toml",
        )


def _picture(image: str | Path | bytes) -> Image.Image:
    from ingest.pictures import PictureError, decode, read_file

    try:
        return decode(image if isinstance(image, bytes) else read_file(str(image))[0])
    except PictureError as error:
        path = "" if isinstance(image, bytes) else str(image)
        raise BadInput(
            error.message if path in error.message else f"{path}: {error.message}",
            remedy="check the path"
            if error.code == "image_missing"
            else "give a picture file that is whole, such as JPEG or PNG",
        ) from error


def _one(vectors: Vector, zero: CellError) -> Vector:
    for _, fault in base.faults(vectors, zero):
        raise BadInput(
            f"the query has no vector: {fault.message}", remedy="ask in other words, or by another feature"
        )
    row: Vector = vectors[0]
    return row
