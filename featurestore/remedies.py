"""What to do next, where more than one place says it."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from featurestore.schema import IMPORTED, ValueKind

if TYPE_CHECKING:
    from pathlib import Path

    from featurestore.release import Release

REBUILD = "make it anew from the release's tables: dualview publish STORE --rebuild RELEASE"


def fill(root: Path, feature: str, kind: str | None, value: object) -> str:
    """The command that gives a feature of this kind its values. root: of the store; value: as in `ValueKind`."""
    if kind != IMPORTED:
        return f"dualview materialize {root}"
    verb = "import-texts" if value == ValueKind.TEXT else "import-vectors"
    return f"dualview {verb} {root} {feature} FILE"


def fill_and_publish(release: Release, feature: str) -> str:
    """What to do for values of a feature that a release lacks."""
    told = tomllib.loads(release.manifest.get("definitions", "")).get("features", {}).get(feature, {})
    told = release.declared(feature)["recipe"] or told
    return f"{fill(release.root, feature, told.get('kind'), told.get('value'))}, then publish again"


def rebuild(release: Release) -> str:
    """What to do for a derived file of a release that is gone or damaged."""
    return (
        f"copy it again along with releases/, or in the store: "
        f"dualview publish {release.root} --rebuild {release.name}"
    )
