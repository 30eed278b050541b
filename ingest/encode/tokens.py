"""`embed_tokens`: an item's texts one by one, long ones in chunks, each its own vector ("fine tokens").

It has no encoders of its own: any encoder of texts serves, with the options below besides its own. Each input is read
apart, in the order of `inputs`. A text is cut at the separators first (`split`), then into chunks of at most
`chunk_words` words: at the last end of a sentence or line that fits; within a sentence that is longer, into pieces of
about equal length. An item's list of more than `max_tokens` loses the last token of the input that has most (of equals,
the later input), again and again: so every input keeps its beginning as long as it can.

What a fitted encoder is fitted on is the item's whole document, as for `embed_text`: words that stand together in an
item then lie near each other, though they stand in different tokens.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import regex
from pydantic import Field, create_model, field_validator

from featurestore.recipe import FEATURE
from featurestore.schema import TITLE, ValueKind
from ingest import document
from ingest.encode.base import Fitted, Kind, Maker, Options, Resolved, Tools, derive

if TYPE_CHECKING:
    from featurestore.recipe import Recipe
    from ingest.encode.models import Models

KIND: Kind = "embed_tokens"
VERSION = 1  # of the cutting: raised when the same text gives other tokens
_ENCODERS = 1000  # the recipe's code version is VERSION x this + the encoder's own

# Chinese and Japanese are written without spaces: each of their characters counts as a word
_RUN = r"\p{Han}\p{Hiragana}\p{Katakana}ー"
_WORD = regex.compile(rf"(?V1)[{_RUN}][^\s\w]*|[^\s{_RUN}]+")
_ENDS = regex.compile(r"""[.!?…。！？]["'”’»)\]）」』]*$""")


class TokenOptions(Options):
    chunk_words: int = Field(
        default=40, ge=0, description="Words a token has at most; a longer text is cut. 0: never cut."
    )
    max_tokens: int = Field(
        default=16, ge=1, description="Tokens an item has at most; the last of its longest input go first."
    )
    split: tuple[str, ...] = Field(
        default=(), description='Where a text is cut first: a separator such as " # ", or a list of them.'
    )
    entries: bool = Field(
        default=False, description="Make each entry of a list a token; else a list is one text, with commas."
    )

    @field_validator("split", mode="before")
    @classmethod
    def _separators(cls, given: Any) -> Any:
        found = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else given
        if isinstance(found, tuple) and "" in found:
            raise ValueError("a separator has at least one character")
        return found


class _Tokens(Maker[Any]):
    """An encoder of texts, given tokens; a subclass for each says what a maker says of itself."""

    def __init__(self, encoder: Maker[Any]) -> None:
        self._encoder = encoder

    def resolve(self, options: Any, model: str | None, models: Models, device: str = "auto") -> Resolved:
        found = self._encoder.resolve(options, model, models, device)
        cutting = options.model_dump(mode="json", include=set(TokenOptions.model_fields))
        return replace(found, options=found.options | cutting)

    def load(self, recipe: Recipe, tools: Tools) -> Any:
        return self._encoder.load(recipe, tools)

    def repository(self, options: Any, model: str, models: Models) -> str:
        return self._encoder.repository(options, model, models)

    def fit(self, texts: Sequence[str], options: dict[str, Any]) -> Fitted:
        return self._encoder.fit(texts, options)


@derive(KIND, of="embed_text")
def tokens_of(encoder: Maker[Any]) -> Maker[Any]:
    """The maker of tokens by an encoder of texts; its options are the encoder's and `TokenOptions`."""

    class Tokens(_Tokens):
        name, kind, value = encoder.name, KIND, ValueKind.VECTORS
        options = _with_tokens(encoder.options)
        code_version: ClassVar[int] = VERSION * _ENCODERS + encoder.code_version
        fitted, artifact, needs_model = encoder.fitted, encoder.artifact, encoder.needs_model

    return Tokens(encoder)


@cache
def _with_tokens(options: type[Options]) -> type[Options]:
    made: type[Options] = create_model(f"Token{options.__name__}", __base__=(TokenOptions, options))
    return made


@dataclass(frozen=True)
class Cut:
    """tokens: of each row, [] for one that says nothing. dropped: how many were, over all rows, beyond `max_tokens`."""

    tokens: list[list[str]]
    dropped: int


def tokens(table: pa.Table, columns: Sequence[str], options: Mapping[str, Any]) -> Cut:
    """The tokens of each row of `table`, from `columns` in their order.

    options: `TokenOptions` and `labels` of a recipe. With labels every token but the title's has its column's name
    before it, which counts to no chunk's words.
    """
    separators, most = _pattern(options["split"]), int(options["chunk_words"])
    names = [f"{n.removeprefix(FEATURE)}: " if options["labels"] and n != TITLE else "" for n in columns]
    values = [_values(table[name], entries=options["entries"]) for name in columns]
    found, dropped = [], 0
    for row in zip(*values, strict=True):
        inputs = [
            [name + token for text in texts for token in _cut(text, separators, most)]
            for name, texts in zip(names, row, strict=True)
        ]
        found.append(_kept(inputs, options["max_tokens"]))
        dropped += sum(map(len, inputs)) - len(found[-1])
    return Cut(found, dropped)


def chunks(text: str, most: int) -> list[str]:
    """A text in pieces of at most `most` words that give all of it; 0 leaves it whole.

    >>> chunks("One two. Three four five. Six", 4)
    ['One two.', 'Three four five. Six']
    >>> chunks("one two three four five", 4)
    ['one two three', 'four five']
    """
    if not most or (text.isascii() and len(text.split()) <= most):
        return [text]
    words = [match.span() for match in _WORD.finditer(text)]
    ends = _sentences(text, words)
    found, start = [], 0
    while len(words) - start > most:
        place = bisect_right(ends, start + most)
        if place and ends[place - 1] > start:
            end = ends[place - 1]
        else:
            run = ends[place] - start
            end = start + ceil(run / ceil(run / most))
        found.append(text[words[start][0] : words[end][0]].strip())
        start = end
    return [*found, text[words[start][0] :].strip()]


def _sentences(text: str, words: Sequence[tuple[int, int]]) -> list[int]:
    """How many words there are up to the end of each sentence or line, the text's included."""
    ends = []
    for count, ((first, last), (following, _)) in enumerate(pairwise(words), start=1):
        closed = _ENDS.search(text, first, last) and not text[following].islower()
        if closed or "\n" in text[last:following]:
            ends.append(count)
    return [*ends, len(words)]


def _cut(text: str, separators: regex.Pattern[str] | None, most: int) -> Iterator[str]:
    for part in separators.split(text) if separators else (text,):
        if part := part.strip():
            yield from chunks(part, most)


def _pattern(separators: Sequence[str]) -> regex.Pattern[str] | None:
    """Any of the separators, where two begin alike the longer."""
    longest = sorted(separators, key=len, reverse=True)
    return regex.compile("|".join(map(regex.escape, longest))) if separators else None


def _values(column: pa.ChunkedArray, *, entries: bool) -> list[list[str]]:
    """The texts of a column, without blank ones: one or none a row, of a list with `entries` any number."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return [[text] if text else [] for text in document.texts(column)]
    rows = [
        [text for value in values or () if value is not None and (text := str(value).strip())]
        for values in column.to_pylist()
    ]
    return rows if entries else [[", ".join(row)] if row else [] for row in rows]


def _kept(inputs: list[list[str]], most: int) -> list[str]:
    """One list of at most `most` tokens; see the module for what is dropped."""
    lengths = [len(each) for each in inputs]
    for _ in range(sum(lengths) - most):
        longest = max(range(len(inputs)), key=lambda place: (lengths[place], place))
        lengths[longest] -= 1
    return [token for each, length in zip(inputs, lengths, strict=True) for token in each[:length]]
