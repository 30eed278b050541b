"""Ids looked for in the sorted ids of a catalogue, in steps that grow with the logarithm of their number."""

from __future__ import annotations

import bisect
import difflib

import numpy as np
import numpy.typing as npt

AROUND = 25  # ids to each side that are compared with one that is not there
LIKENESS = 0.6

Strings = npt.NDArray[np.str_]


def place(ids: Strings, item_id: str) -> int:
    """Where an id stands in `ids` (n,), sorted; -1 if it does not."""
    found = bisect.bisect_left(ids, item_id)
    return found if found < len(ids) and ids[found] == item_id else -1


def near(ids: Strings, item_id: str) -> str | None:
    """A similar id: another spelling, or one of the neighbours in the order; never a scan of all."""
    bare = item_id.strip()
    for other in (bare, bare.upper(), bare.lower()):
        if place(ids, other) >= 0:
            return other
    middle = bisect.bisect_left(ids, item_id)
    around = [str(name) for name in ids[max(0, middle - AROUND) : middle + AROUND]]
    found = difflib.get_close_matches(item_id, around, n=1, cutoff=LIKENESS)
    return found[0] if found else None


def hint(ids: Strings, item_id: str) -> str:
    """What to say to somebody who asked for an id that is not there."""
    other = near(ids, item_id)
    return (
        f"did you mean '{other}'?" if other else "ids are those of the ingested catalogue, as spelled there"
    )
