"""Search by words: BM25 over the title and text columns of every item of a release.

    score(item, query) = sum over the query's words w of  idf(w) tf / (tf + k1 (1 - b + b length / mean length))
    idf(w) = ln(1 + (n - df + 0.5) / (df + 0.5))

which is Lucene's variant of Robertson's formula (Kamphuis et al. 2020), by the library bm25s: it keeps each word's part
of each item's score in a sparse matrix of plain npy files, memory-mapped here. A word that the query repeats counts as
often. A query scores every item that has one of its words, so that an answer under a filter is exact, however few items
satisfy it.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore import words as tokens
from featurestore.words import words

VERSION = 1  # raised when what is written changes
K1, B = 1.2, 0.75  # Lucene's
RECIPE = ["bm25", VERSION, tokens.VERSION, K1, B]  # what decides the files, beside the texts

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Bool = npt.NDArray[np.bool_]


def build(items: pa.Table, columns: list[str], folder: Path) -> dict[str, Any]:
    """Write the index of `columns` (strings, or lists of them) of all `items` into a folder; row i is item i.

    Returns what the manifest says of it. Where no item has a word, nothing is written.
    """
    vocabulary: dict[str, int] = {}
    found: list[list[int]] = [[] for _ in range(len(items))]
    for name in columns:
        for row, value in enumerate(items[name].to_pylist()):
            text = " ".join(filter(None, value)) if isinstance(value, list) else value
            if text:
                found[row] += [vocabulary.setdefault(word, len(vocabulary)) for word in words(text)]
    facts = {
        "method": "bm25, lucene",
        "k1": K1,
        "b": B,
        "columns": columns,
        "words": len(vocabulary),
        "items": sum(map(bool, found)),
    }
    if vocabulary:
        index = _library().BM25(method="lucene", k1=K1, b=B)
        index.index((found, vocabulary), create_empty_token=False, show_progress=False)
        index.save(folder)
    return facts


@dataclass(frozen=True, eq=False)
class TextIndex:
    """The opened index: of each word, which items have it and what it adds to their score."""

    index: Any  # bm25s.BM25

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open what `build` wrote: matrices memory-mapped, words in memory."""
        return cls(_library().BM25.load(folder, mmap=True, show_progress=False))

    def __len__(self) -> int:
        """Items, with and without words."""
        return int(self.index.scores["num_docs"])

    @property
    def vocabulary(self) -> dict[str, int]:
        known: dict[str, int] = self.index.vocab_dict
        return known

    def known(self, text: str) -> list[int]:
        """Numbers of the query's words that some item has, as often as they stand in it."""
        return [self.vocabulary[word] for word in words(text) if word in self.vocabulary]

    def unknown(self, text: str) -> list[str]:
        """The query's words that no item has."""
        return [word for word in dict.fromkeys(words(text)) if word not in self.vocabulary]

    def near(self, word: str) -> str | None:
        """A known word that is spelled like this one and begins with the same letter."""
        likely = [w for w in self.vocabulary if w[0] == word[0] and abs(len(w) - len(word)) <= 2]
        close = difflib.get_close_matches(word, likely, n=1, cutoff=0.7)
        return close[0] if close else None

    def scores(self, text: str) -> Float32:
        """(n,) the score of every item; 0 for one without any of the words."""
        asked = self.known(text)
        if not asked:
            return np.zeros(len(self), np.float32)
        scores: Float32 = self.index.get_scores_from_ids(asked)
        return scores

    def search(
        self, text: str, k: int, allowed: Bool | None = None, exclude: npt.ArrayLike = ()
    ) -> tuple[Float32, Int32]:
        """The k best items that have a word of the query: scores and rows (m,), m <= k, best first, ties by row.

        allowed: (n,) bool, the rows that may be answered. exclude: rows that may not.
        """
        scores = self.scores(text)
        scores[np.asarray(exclude, np.int64)] = 0
        if allowed is not None:
            scores[~allowed] = 0
        rows = np.flatnonzero(scores)
        if k < len(rows):
            kth = np.partition(scores[rows], len(rows) - k)[len(rows) - k]
            rows = rows[scores[rows] >= kth]
        rows = rows[np.lexsort((rows, -scores[rows]))][:k]
        return scores[rows], rows.astype(np.int32)


def _library() -> Any:
    """bm25s, imported when it is used."""
    import bm25s

    return bm25s
