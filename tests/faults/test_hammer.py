"""Four processes on one store at once: two writers with items of their own and items that both edit, two readers.

Every writer gives all its items the same title in one ingest, another one each round. So a release that shows two of a
writer's titles, or under which equal texts have unequal vectors, was seen half made.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from featurestore import features, gc, interactions, schema
from featurestore import release as releases
from featurestore.release import Release
from featurestore.search import similar
from featurestore.store import Store
from ingest.load import ingest
from ingest.materialize import materialize
from tests.conftest import TWO_FEATURES
from tests.faults import processes, scenario, shop

ROUNDS = int(os.environ.get("DUALVIEW_ROUNDS", "5"))
OWN, SHARED, EVENTS = 12, 6, 15  # items of one writer, of both, events a round
PATIENCE = 300.0  # seconds that a writer waits for the other
WORDS = ("red", "green", "blue", "small", "tall", "round", "old")


def title(writer: int, number: int) -> str:
    return f"writer {writer} {WORDS[number % len(WORDS)]} {WORDS[number // len(WORDS) % len(WORDS)]}"


def write(root: Path, goods: Path, writer: int) -> None:
    store, draw = Store.open(root), random.Random(writer)
    for number in range(ROUNDS):
        ids = [f"w{writer}-{at:02d}" for at in range(OWN)] + [f"both-{at}" for at in range(SHARED)]
        images = [f"pictures/{draw.randrange(shop.PICTURES)}.png" for _ in ids]
        items = pa.table({"item_id": ids, "title": [title(writer, number)] * len(ids), "image": images})
        log = pa.table(
            {
                "user_id": [f"u{writer}"] * EVENTS,
                "item_id": [draw.choice(ids) for _ in range(EVENTS)],
                "timestamp": [number * EVENTS + at for at in range(EVENTS)],
            }
        )
        ingest(store, items, log, images_root=goods, wait=PATIENCE)
        materialize(store, commit_rows=5, wait=PATIENCE)
        store.publish(allow_stale=True, wait=PATIENCE)
        if number % 2 == writer:
            for name in store.tables.names():
                with store.lock("compact", PATIENCE):
                    store.tables.compact(name, force=True)
            gc.collect(store, grace=0.0, wait=PATIENCE)


def read(root: Path, done: Path, reader: int) -> int:
    """Look at whatever release is the latest, and at one seen before, until the writers are done."""
    store, seen = Store.open(root), dict[str, Release]()
    draw = random.Random(reader)
    held: dict[str, bytes] = {}
    while not done.exists():
        if not releases.names(root):
            time.sleep(0.01)
            continue
        release = store.release()
        if release.name not in seen:
            seen[release.name] = release
            held[release.name] = whole(release)
        store.status()
        earlier = draw.choice(sorted(seen))
        assert whole(seen[earlier]) == held[earlier], f"release {earlier} changed under its reader"
        assert whole(releases.open(root, earlier)) == held[earlier], f"release {earlier} changed on disk"
    return len(seen)


def whole(release: Release) -> bytes:
    """Refuse a release that is not of one piece; its text vectors."""
    assert release.verify() == []
    ids, titles = release.ids.tolist(), release.catalogue[schema.TITLE].to_pylist()
    assert ids == sorted(set(ids)) == release.catalogue[schema.ITEM_ID].to_pylist()
    assert release.events().num_rows == release.n_events
    shown = dict(zip(ids, titles, strict=True))
    for writer in (0, 1):
        of_writer = {shown[name] for name in ids if name.startswith(f"w{writer}-")}
        assert len(of_writer) <= 1, f"release {release.name} holds half an ingest: {of_writer}"
    coverage = release.facts("text")["coverage"]
    assert coverage["ok"] + coverage["no_input"] + coverage["error"] <= len(ids)
    matrix = release.matrix("text")
    if not (coverage["missing"] or coverage["stale"]):
        assert len(matrix) == len(ids)
        for text in set(titles):
            same = matrix.values[[name for name in range(len(ids)) if titles[name] == text]]
            assert (same == same[0]).all(), f"release {release.name}: one text, two vectors"
    if len(matrix) > 3:
        assert similar(release, item=str(matrix.ids[0]), feature="text", k=3).num_rows == 3
    return np.ascontiguousarray(matrix.values).tobytes()


def test_writers_and_readers_at_once_lose_nothing_and_see_whole_releases(tmp_path: Path) -> None:
    goods = shop.open_shop(tmp_path / "goods")
    store = Store.create(tmp_path / "store", TWO_FEATURES)
    done = tmp_path / "done"
    writers = [processes.Child(write, store.root, goods, number) for number in (0, 1)]
    readers = [processes.Child(read, store.root, done, number) for number in (0, 1)]
    try:
        for child in writers:
            child.result()
    finally:
        done.touch()
    assert all(child.result() > 0 for child in readers)

    catalogue = scenario.content(store, schema.ITEMS)
    assert catalogue is not None
    titles = dict(
        zip(catalogue[schema.ITEM_ID].to_pylist(), catalogue[schema.TITLE].to_pylist(), strict=True)
    )
    last = [title(writer, ROUNDS - 1) for writer in (0, 1)]
    assert Counter(titles.values())[last[0]] + Counter(titles.values())[last[1]] == len(titles)
    assert len(titles) == 2 * OWN + SHARED
    assert interactions.read_log(store.tables).num_rows == 2 * ROUNDS * EVENTS
    materialize(store)
    counted = features.counts(store.tables, store.recipes(), "text")
    assert (counted.current, counted.done) == (len(titles), True)
    for name in store.tables.names():
        scenario.content(store, name)  # refuses a doubled key
    verbs = Counter(entry["verb"] for entry in store.history())
    assert verbs["ingest"] == 2 * ROUNDS
    assert not verbs["killed"] + verbs["interrupted"]
