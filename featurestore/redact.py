"""Ids that are to be forgotten, found in texts that were kept: lines of the journal, rows set aside at ingest.

An id that hardly anything else is spelled like is looked for in every text, as a word of its own. One that is short, a
number or a plain word ("7", "red") would be found everywhere; it is looked for where an id stands: as a whole value,
in quotes in a sentence, as a word of a line that could not be read into values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

GONE = "[forgotten]"
DISTINCT = 8  # characters from which an id that is no plain word is told from other words
_PLAIN = re.compile(r"[^\W\d_]?[^\W\d_A-Z]+|[A-Z]+")  # a word as sentences have it: red, Red, RED
_ID_KEYS = re.compile(r"user|item|unknown|example")  # of the journal: what is under them can be ids
_LINE = {"text"}  # the keys of a row set aside whose line could not be read into values


class Named:
    """Finds ids (one at least) in a text (`in`), a fact of the journal (`redacted`), a row `set_aside` at ingest."""

    def __init__(self, ids: Collection[str]) -> None:
        self._ids = set(ids)
        distinct = {each for each in self._ids if len(each) >= DISTINCT and not _PLAIN.fullmatch(each)}
        quoted = rf"""(?<=['"]){_either(self._ids)}(?=['"])"""
        self._word = re.compile(_word(self._ids))
        self._pattern = re.compile(f"{_word(distinct)}|{quoted}" if distinct else quoted)

    def __contains__(self, text: str) -> bool:
        return self._pattern.search(text) is not None

    def redacted(self, value: Any, key: str = "") -> Any:
        """A JSON value, which stands under `key`, with GONE in the place of the ids."""
        whole = _ID_KEYS.search(key) is not None
        if isinstance(value, dict):
            return {self._one(k, whole): self.redacted(v, key if whole else k) for k, v in value.items()}
        if isinstance(value, list):
            return [self.redacted(inner, key) for inner in value]
        return self._one(value, whole) if isinstance(value, str) else value

    def set_aside(self, row: str | None, reason: str | None) -> bool:
        """Whether a row names an id: any of its values is one, or it or the reason names one."""
        if reason is not None and reason in self:
            return True
        parsed = _parsed(row)
        if not isinstance(parsed, dict) or set(parsed) == _LINE:
            return any(self._word.search(text) for text in _strings(parsed))
        return any(text.strip() in self._ids or text in self for text in _strings(parsed))

    def _one(self, text: str, whole: bool) -> str:
        return GONE if whole and text in self._ids else self._pattern.sub(GONE, text)


def _word(ids: Collection[str]) -> str:
    return rf"(?<!\w){_either(ids)}(?!\w)"


def _either(ids: Collection[str]) -> str:
    """Any of the ids, the longest first."""
    return f"(?:{'|'.join(re.escape(each) for each in sorted(ids, key=lambda i: (-len(i), i)))})"


def _parsed(row: str | None) -> Any:
    try:
        return json.loads(row or "null", parse_int=str, parse_float=str)
    except ValueError:
        return row


def _strings(value: Any) -> Iterator[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(inner)
