"""A text as words, for search by keywords: the same for items and for queries, and for no language in particular.

Words are Unicode letters, digits and the marks that belong to them, in lower case, without accents (é as e, ß as ss,
wide forms as plain ones). Nothing is stemmed and nothing is a stop word. What parts words is left out: "children's" is
`children` and `s`, "a_b" is `a` and `b`.

Chinese and Japanese are written without spaces: a run of their characters becomes each character and each pair of
neighbours, as in Lucene's CJK analyser. Thai, Lao, Khmer and Burmese are not cut: what stands between two spaces is one
word there, and is found as a whole only.
"""

from __future__ import annotations

import re
import unicodedata

import regex

VERSION = 1  # raised when the same text gives other words: text indexes are then built anew

_RUN = r"\p{Han}\p{Hiragana}\p{Katakana}ー"
_ASCII = re.compile("[a-z0-9]+")
_UNICODE = regex.compile(rf"(?V1)(?P<run>[{_RUN}]+)|[\w--[_{_RUN}]]+")
_ACCENTS = dict.fromkeys(range(768, 880))  # of Latin, Greek and Cyrillic; vowel signs are others


def words(text: str) -> list[str]:
    """The words of a text, in its order.

    >>> words("Crème-Brûlée, 2nd edition")
    ['creme', 'brulee', '2nd', 'edition']
    >>> words("赤い mug")
    ['赤', '赤い', 'い', 'mug']
    """
    if text.isascii():
        return _ASCII.findall(text.lower())
    plain = unicodedata.normalize("NFKD", text.casefold()).translate(_ACCENTS)
    found: list[str] = []
    for match in _UNICODE.finditer(unicodedata.normalize("NFKC", plain).casefold()):
        run = match["run"]
        if run is None:
            found.append(match[0])
        else:
            for place, letter in enumerate(run):
                found.append(letter)
                if place + 1 < len(run):
                    found.append(run[place : place + 2])
    return found
