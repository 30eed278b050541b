"""Small logs that the tests of training share."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from recommender.events import EventLog
from recommender.splits import Split, leave_one_out


def ring(users: int = 60, items: int = 20, least: int = 4, most: int = 14, seed: int = 0) -> Split:
    """Users who walk round a ring of items: after item i comes i + 1, so the next item can be learnt."""
    random = np.random.default_rng(seed)
    names, taken, places = [], [], []
    for user in range(users):
        first, events = random.integers(items), random.integers(least, most + 1)
        for place in range(events):
            names.append(f"u{user:03d}")
            taken.append(f"i{(first + place) % items:03d}")
            places.append(place)
    table = pa.table({"user_id": names, "item_id": taken, "position": places})
    return leave_one_out(EventLog.from_table(table))
