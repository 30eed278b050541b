"""What the model is asked: whether a user of this preference takes this item.

A candidate says what is known of an item; an example adds whose preference it stands beside and what was so. Both are
plain values, so that pairs, preferences and models can be made and tested apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.errors import BadInput, NotFound, did_you_mean
from featurestore.files import canonical_json
from featurestore.schema import IMAGE_SHA256, ITEM_ID, TITLE, ValueKind

if TYPE_CHECKING:
    from featurestore.images import Originals


@dataclass(frozen=True)
class Picture:
    """A picture that is read when it is needed. key: what it is known by: the sha256 of a stored one, or a path."""

    key: str
    read: Callable[[], bytes] = field(compare=False, repr=False)

    @classmethod
    def file(cls, path: str | Path) -> Picture:
        return cls(str(path), Path(path).read_bytes)

    @classmethod
    def stored(cls, originals: Originals, sha256: str) -> Picture:
        """One that a store knows. Reading raises ImageUnavailable where its file is gone or another one now."""
        return cls(sha256, lambda: originals.open_bytes(sha256))


@dataclass(frozen=True)
class Candidate:
    """An item as the model is told of it. text: title, or whatever stands for it; summary: what a describing model
    wrote of it; picture: what it looks like. None: nothing is said of it.
    """

    item: str
    text: str
    summary: str | None = None
    picture: Picture | None = None

    @property
    def facts(self) -> list[str | None]:
        return [self.item, self.text, self.summary, self.picture.key if self.picture else None]


@dataclass(frozen=True)
class Example:
    """One question with its answer. preference: of the user as of before the event that is asked about."""

    user: str
    preference: str
    candidate: Candidate
    label: bool

    @property
    def name(self) -> str:
        """What an error calls it."""
        return f"user '{self.user}', item '{self.candidate.item}'"


def digest(examples: Iterable[Example]) -> str:
    """sha256 over everything that examples say, in order: equal digests are equal training material."""
    found = hashlib.sha256()
    for example in examples:
        said = [example.user, example.preference, example.candidate.facts, example.label]
        found.update(canonical_json(said).encode())
    return found.hexdigest()


class Shelf:
    """The items of a release as candidates. `shelf[item_id]` is one; the same id gives the same value.

    store: a Store, where pictures are wanted: a release holds none. text: column of the catalogue, or a published
    feature of texts. summary: a published feature of texts, or None. picture: whether items show theirs.

    Raises NotFound for an unknown column or feature, BadInput for one without texts or for pictures without a store.
    """

    def __init__(
        self,
        store: Any,
        release: Any,
        *,
        text: str = TITLE,
        summary: str | None = None,
        picture: bool = False,
    ) -> None:
        self.release = release
        catalogue = release.catalogue
        self._rows = {item: row for row, item in enumerate(catalogue[ITEM_ID].to_pylist())}
        self._texts = _texts(release, text)
        self._summaries = _texts(release, summary) if summary is not None else None
        self._pictures: list[str | None] | None = None
        if picture:
            from featurestore.images import Originals

            tables = getattr(store, "tables", None)
            if tables is None:
                raise BadInput(
                    "a carried release has no pictures", remedy="ask in the store itself, or set image=false"
                )
            self._originals = Originals(tables)
            self._pictures = (
                catalogue[IMAGE_SHA256].to_pylist() if IMAGE_SHA256 in catalogue.column_names else None
            )

    @property
    def pictured(self) -> bool:
        """Whether items show their pictures."""
        return self._pictures is not None

    def __contains__(self, item: str) -> bool:
        return item in self._rows

    def __getitem__(self, item: str) -> Candidate:
        """Raises NotFound for an item that the release does not hold."""
        row = self._rows.get(item)
        if row is None:
            self.release.row_of(item)  # raises, with an id that is near
            raise NotFound(f"release {self.release.name} has no item '{item}'")
        sha = self._pictures[row] if self._pictures is not None else None
        return Candidate(
            item,
            self._texts[row] or item,
            self._summaries[row] if self._summaries is not None else None,
            Picture.stored(self._originals, sha) if sha else None,
        )

    def text(self, item: str) -> str:
        return self[item].text


def history(shelf: Shelf, items: Sequence[str], most: int = 20) -> str:
    """A preference that no model wrote: the texts of the latest items, the newest first, so that what a length budget
    cuts from its end is the oldest. items: the user's, oldest first. Empty where there are none.
    """
    latest = [shelf.text(item) for item in reversed(items[-most:])]
    return "; ".join(latest)


def _texts(release: Any, name: str) -> list[str | None]:
    """The texts of a column of the catalogue, or where none is called so of a feature, in the order of its rows."""
    catalogue = release.catalogue
    if name not in catalogue.column_names and name in release.features:
        facts = release.facts(name)
        if facts["kind"] != ValueKind.TEXT:
            raise BadInput(
                f"feature '{name}' holds vectors, not texts",
                remedy="a feature of kind describe, with publish = true",
            )
        name = facts["column"]
    if name not in catalogue.column_names:
        known = [*catalogue.column_names, *release.features]
        raise NotFound(
            f"release {release.name} has no column or feature '{name}'", remedy=did_you_mean(name, known)
        )
    return [None if value is None else str(value).strip() or None for value in catalogue[name].to_pylist()]
