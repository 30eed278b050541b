"""`tfidf_svd`: the built-in text encoder. Words weighted by rarity, compressed by a truncated SVD.

It needs no download, and it is *fitted*: the first `materialize` learns vocabulary, weights and axes from the catalogue
and keeps them as an artifact (JSON and safetensors), so that items which come later land in the same space. A text
that has no word in common with those it was fitted on has no vector (`out_of_vocabulary`).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from featurestore.errors import CellError
from ingest.encode.base import (
    Fitted,
    Maker,
    Resolved,
    Role,
    TextOptions,
    Tools,
    Vectors,
    normalised,
    register,
)

if TYPE_CHECKING:
    from featurestore.recipe import Recipe
    from ingest.encode.models import Models

ARTIFACT = "tfidf"
WORDS = r"(?u)\b\w+\b"
OUT_OF_VOCABULARY = CellError(
    "out_of_vocabulary",
    "the text shares no word with those that the encoder was fitted on; "
    "`dualview fit STORE FEATURE --refit` learns new ones",
)
SMALL_CATALOGUE = 1000  # below this many texts a word that only one of them has is kept too
BATCH = 2048  # texts encoded at once
EXACT = 4_000_000  # up to so many matrix entries the SVD is exact
FAINT = 1e-4  # a projection shorter than this share of its text holds rounding errors only


class TfidfOptions(TextOptions):
    labels: bool = Field(
        default=False, description="Write each column's name before its value in an item's document."
    )
    dim: int = Field(
        default=128,
        ge=1,
        le=4096,
        description="Size of the vectors; smaller where the catalogue has not so many axes.",
    )
    vocabulary: int = Field(
        default=50_000, ge=1, description="Most terms that are kept, the commonest first."
    )
    terms: Literal["words", "pairs", "letters"] = Field(
        default="words",
        description="Words; words and pairs; or 3 to 5 letters within words, for languages without spaces.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the SVD.")


@register("tfidf_svd", kind="embed_text", options=TfidfOptions)
class TfidfSvd(Maker[TfidfOptions]):
    code_version: ClassVar[int] = 1
    fitted: ClassVar[bool] = True
    artifact: ClassVar[str] = ARTIFACT
    needs_model: ClassVar[bool] = False

    def resolve(
        self, options: TfidfOptions, model: str | None, models: Models, device: str = "auto"
    ) -> Resolved:
        return Resolved(options=options.model_dump(mode="json"), dim=None)

    def fit(self, texts: Sequence[str], options: dict[str, Any]) -> Fitted:
        """Vocabulary, rarity weights and axes of `texts`. Without a single word the fit is empty, of size 1."""
        from safetensors.numpy import save

        vectorizer = _vectorizer(options, min_df=2 if len(texts) >= SMALL_CATALOGUE else 1)
        try:
            weighted = vectorizer.fit_transform(texts)
        except ValueError:  # scikit-learn's answer to texts without a single word
            return Fitted(files={}, dim=1, notes=("no text has a word in it: nothing was learnt",))
        axes = _axes(weighted, options["dim"], options["seed"])
        names = vectorizer.get_feature_names_out().tolist()
        notes = []
        if len(axes) < options["dim"]:
            notes.append(
                f"vectors have {len(axes)} dimensions, not {options['dim']}: "
                f"{len(texts):,} texts with {len(names):,} words have no more independent axes"
            )
        arrays = {"idf": vectorizer.idf_.astype(np.float32), "axes": axes}
        files = {
            "vocabulary.json": json.dumps(names, ensure_ascii=False).encode(),
            "weights.safetensors": save(arrays),
        }
        return Fitted(files=files, dim=len(axes), notes=tuple(notes))

    def load(self, recipe: Recipe, tools: Tools) -> TfidfEncoder:
        folder = tools.artifact(recipe, ARTIFACT) if ARTIFACT in recipe.artifacts else None
        return TfidfEncoder(folder, recipe.options, recipe.dim or 1, tools.batch_size or BATCH)


class TfidfEncoder:
    """A fitted encoder. Rows are normalised; a text without a known word is a row of zeros."""

    zero = OUT_OF_VOCABULARY

    def __init__(
        self, folder: Path | None, options: dict[str, Any], dim: int, batch_size: int = BATCH
    ) -> None:
        self.dim, self.batch_size = dim, batch_size
        self._vectorizer: Any = None
        if folder is None:
            return
        from safetensors.numpy import load_file

        arrays = load_file(folder / "weights.safetensors")
        self._axes = np.ascontiguousarray(arrays["axes"].T)  # (words, dim)
        self._vectorizer = _vectorizer(options, vocabulary=vocabulary(folder))
        self._vectorizer.idf_ = arrays["idf"]

    def encode(self, texts: Sequence[str], role: Role = "document") -> Vectors:
        """Documents and queries are weighted alike; `role` makes no difference to a bag of words."""
        if self._vectorizer is None or not texts:
            return np.zeros((len(texts), self.dim), np.float32)
        vectors = np.asarray(self._vectorizer.transform(texts) @ self._axes, np.float32)
        vectors[np.linalg.norm(vectors, axis=1) < FAINT] = 0.0
        return normalised(vectors)


def vocabulary(folder: Path) -> list[str]:
    return list(json.loads((folder / "vocabulary.json").read_text(encoding="utf-8")))


def unknown_words(texts: Sequence[str], folder: Path | None) -> float:
    """Share of the words of `texts` that a word vocabulary does not hold; light: no scikit-learn."""
    names = set(vocabulary(folder)) if folder is not None else set()
    words = [word for text in texts for word in re.findall(WORDS, _plain(text))]
    return sum(word not in names for word in words) / len(words) if words else 0.0


def _plain(text: str) -> str:
    """Lower case without accents, as the vectorizer sees a text."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))


def _vectorizer(options: dict[str, Any], *, min_df: int = 1, vocabulary: list[str] | None = None) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    terms = options["terms"]
    return TfidfVectorizer(
        preprocessor=_plain,
        analyzer="char_wb" if terms == "letters" else "word",
        token_pattern=None if terms == "letters" else WORDS,
        ngram_range={"words": (1, 1), "pairs": (1, 2), "letters": (3, 5)}[terms],
        sublinear_tf=True,
        min_df=min_df,
        max_features=options["vocabulary"] if vocabulary is None else None,
        vocabulary=vocabulary,
        dtype=np.float32,
    )


def _axes(weighted: Any, dim: int, seed: int) -> Vectors:
    """(d, words) float32: the first d <= dim right singular vectors, those of no weight left out, signs fixed."""
    rows, words = weighted.shape
    most = min(dim, rows, words)
    if rows * words <= EXACT:
        _, strength, axes = np.linalg.svd(weighted.toarray().astype(np.float64), full_matrices=False)
        strength, axes = strength[:most], axes[:most]
    else:
        from sklearn.decomposition import TruncatedSVD

        svd = TruncatedSVD(most, n_iter=4, random_state=seed).fit(weighted)
        strength, axes = svd.singular_values_, svd.components_
    axes = axes[strength > 1e-5 * strength[0]]
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    return np.ascontiguousarray(axes * np.sign(largest)[:, None], dtype=np.float32)
