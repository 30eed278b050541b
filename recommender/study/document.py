"""The text of a study: its tables, and for every refusal the line and table that are meant."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from featurestore.errors import BadInput, NotFound, did_you_mean

PART = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*""")
HEADER = re.compile(r"^\s*(\[\[?)([^\[\]]+)\]\]?\s*(?:#.*)?$")
SETTING = re.compile(
    r"""^\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*="""
)
NAME = re.compile(r"[A-Za-z0-9_.]+(-[A-Za-z0-9_.]+)*")


class Document:
    """One TOML file. Raises NotFound, and BadInput where it is no TOML."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8")
            self.tables: dict[str, Any] = tomllib.loads(text)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFound(f"there is no study {path}", remedy="give the path of a study.toml") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"{path} is no TOML: {error}") from None
        self._lines = dict(reversed(list(_settings(text.splitlines()))))

    def at(self, *keys: str) -> str:
        """Where a setting stands: "study.toml, line 12, [tower.dmesr]". Of an inline table, where that begins."""
        table = f", [{'.'.join(keys[:-1])}]" if len(keys) > 1 else ""
        for depth in range(len(keys), 0, -1):
            if keys[:depth] in self._lines:
                return f"{self.path.name}, line {self._lines[keys[:depth]]}{table}"
        return f"{self.path.name}{table}"

    def refusal(self, says: str, *keys: str, remedy: str | None = None) -> BadInput:
        return BadInput(f"{self.at(*keys)}: {says}", remedy=remedy)

    def table(self, *keys: str) -> dict[str, Any]:
        """A table by its keys; empty where it is not there."""
        found: Any = self.tables
        for depth, key in enumerate(keys):
            found = found.get(key, {})
            if not isinstance(found, dict):
                raise self.refusal(f"{key} must be a table", *keys[: depth + 1])
        result: dict[str, Any] = found
        return result

    def known(self, names: Iterable[str], known: Iterable[str], *table: str, what: str = "setting") -> None:
        """Refuse the first of `names`, keys of a table, that is not among `known`."""
        known = tuple(known)
        for name in names:
            if name not in known:
                raise self.refusal(f"unknown {what} '{name}'", *table, name, remedy=did_you_mean(name, known))

    def text(self, *keys: str) -> str:
        value = self.table(*keys[:-1]).get(keys[-1])
        if not isinstance(value, str) or not value:
            raise self.refusal(f"{keys[-1]} must be a text", *keys)
        return value

    def names(self, key: str, *, known: Iterable[str]) -> tuple[str, ...]:
        """A list of different names, each among `known`; empty where the key is not there."""
        value = self.tables.get(key, [])
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self.refusal(f"{key} must be a list of names", key)
        for name in value:
            if name not in (known := tuple(known)):
                raise self.refusal(f"unknown name '{name}' in {key}", key, remedy=did_you_mean(name, known))
        if len(set(value)) < len(value):
            raise self.refusal(f"{key} names something twice", key)
        return tuple(value)

    def nameable(self, name: str, *keys: str) -> None:
        """A name becomes part of file names, in which `--` parts one from the next."""
        if not NAME.fullmatch(name):
            raise self.refusal(
                f"'{name}' is no name here",
                *keys,
                remedy="use letters, digits, _ and . with single - between",
            )


def _parts(text: str) -> tuple[str, ...]:
    return tuple(next(part for part in match.groups() if part is not None) for match in PART.finditer(text))


def _settings(lines: list[str]) -> Iterator[tuple[tuple[str, ...], int]]:
    """(keys, line from 1) of each header and setting, as far as a line shows it by itself."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(lines, start=1):
        if header := HEADER.match(line):
            table = _parts(header[2])
            yield table, number
        elif setting := SETTING.match(line):
            yield (*table, *_parts(setting[1])), number
