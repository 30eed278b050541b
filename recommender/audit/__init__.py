"""Whether anything that shaped a run saw a held-out interaction, and whether validation alone chose its epoch.

Splits, counts, batches, scalings and figures are made again from the release's log and vectors and from the kept
weights, and what the model must not see is changed to see whether it moves. What a stored feature was fitted on is what
the release's lock says of it; such a row says so. What cannot be recomputed is called that, and so is what nobody here
can know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore import release as releases
from featurestore.errors import BadInput
from recommender.audit import epochs, events, features, future, weights
from recommender.audit.base import HOLDS, UNKNOWN, VIOLATED, Check, Material
from recommender.runs import Run, open_run

__all__ = ["HOLDS", "UNKNOWN", "VIOLATED", "Audit", "Check", "Material", "audit"]


@dataclass(frozen=True)
class Audit:
    """What was found of a run, a row for each check."""

    run: str
    release: str
    checks: list[Check]

    @property
    def violated(self) -> list[Check]:
        return [check for check in self.checks if check.verdict == VIOLATED]

    def to_dict(self) -> dict[str, Any]:
        verdicts = [check.verdict for check in self.checks]
        return {
            "run": self.run,
            "release": self.release,
            "verdicts": {verdict: verdicts.count(verdict) for verdict in (HOLDS, VIOLATED, UNKNOWN)},
            "checks": [check.to_dict() for check in self.checks],
        }


def audit(root: str | Path, name: str = "latest") -> Audit:
    """Check a run of a store, or of a copy of its releases, on the CPU; nothing is written.

    Raises NotFound for an unknown run, a release that is gone or weights that are not there yet, BadInput for a run
    that names no release.
    """
    run = open_run(root, name)
    return of(run, releases.open(root, named(run)))


def named(run: Run) -> str:
    """The release that a run learnt from."""
    if run.release is None:
        raise BadInput(
            f"run {run.name} learnt from a bare log, so nothing can be made again",
            remedy="train it on a release",
        )
    return run.release


def of(run: Run, release: releases.Release, cell: Mapping[str, Any] | None = None) -> Audit:
    """The same for a run that is at hand, on its release. cell: the record of the study's cell that it is."""
    given = Material(run, release, cell)
    parts = (events, features, weights, epochs, future)
    return Audit(run.name, release.name, [check for part in parts for check in part.checks(given)])
