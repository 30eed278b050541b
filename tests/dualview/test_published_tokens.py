"""A feature of several vectors an item, on its way out of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dualview import Store
from featurestore import schema
from featurestore.errors import BadInput
from tests.ingest.catalogue import edited, fill

WORDS = '[features.words]\nkind = "embed_tokens"\ninputs = ["text"]\nencoder = "tfidf_svd"\ndim = 4\n'


def stored(store: Store) -> dict[str, Any]:
    """The vectors of each item, as the table holds them."""
    rows = store.tables.read(store.feature_table("words")).to_pylist()
    return {row[schema.ITEM_ID]: row[schema.VALUE] for row in rows}


@pytest.fixture
def published(tmp_path: Path) -> Store:
    made = Store.create(
        tmp_path / "store", WORDS + WORDS.replace("words", "coarse").replace("tokens", "text")
    )
    fill(made)
    made.materialize()
    made.publish()
    return made


def test_a_release_holds_the_vectors_of_each_item(published: Store) -> None:
    served = published.release()
    found = served.matrix("words")
    assert found.offsets is not None
    assert found.ids.tolist() == ["a", "b", "c", "d", "e"]
    rows = stored(published)
    for place, item in enumerate(found.ids.tolist()):
        own = found.values[found.offsets[place] : found.offsets[place + 1]]
        assert own.tolist() == rows[item]
    assert np.diff(found.offsets).tolist() == [3, 3, 2, 1, 3]
    assert served.searchable == ["coarse"]
    assert "index" not in served.facts("words")


def test_items_are_not_compared_by_it(published: Store) -> None:
    for asked in ({"words": 1.0}, {"words": 0.5, "coarse": 0.5}):
        with pytest.raises(BadInput, match="holds several vectors an item") as caught:
            published.similar(["a"], features=asked)
        assert "choose one of: coarse" in str(caught.value)
    with pytest.raises(BadInput, match="holds several vectors an item"):
        published.similar(text="red shoe", features={"words": 1.0})
    assert published.similar(text="red shoe").num_rows == 5, "another feature is chosen"
    for release in (None, "latest"):
        with pytest.raises(BadInput, match="words"):
            published.matrix("words", release=release)


def test_it_is_exported_and_described(published: Store, tmp_path: Path) -> None:
    published.export(tmp_path / "npy", to="npy")
    served = published.release().matrix("words")
    assert np.array_equal(np.load(tmp_path / "npy" / "words.npy"), served.values)
    assert np.array_equal(np.load(tmp_path / "npy" / "words.offsets.npy"), np.asarray(served.offsets))
    published.export(tmp_path / "parquet", to="parquet")
    rows = {
        r["item_id"]: r
        for r in pq.read_table(tmp_path / "parquet" / "features" / "words.parquet").to_pylist()
    }
    assert rows["a"]["vectors"] == stored(published)["a"]
    assert rows["f"]["vectors"] is None
    with pytest.raises(BadInput, match="recbole cannot hold feature 'words'"):
        published.export(tmp_path / "recbole", to="recbole", features=["words"])


def test_forgetting_and_an_edit_leave_the_others_as_they_were(published: Store) -> None:
    before = stored(published)
    published.forget(items=["b"])
    served = published.release().matrix("words")
    assert served.ids.tolist() == ["a", "c", "d", "e"]
    assert served.offsets is not None
    assert served.values[served.offsets[1] : served.offsets[2]].tolist() == before["c"]
    fill(published, [row for row in edited("c", title="blue mug") if row["item_id"] != "b"])
    assert {f.feature: f.computed for f in published.materialize(["words"]).features} == {"words": 1}
    published.materialize()
    published.publish()
    (changed,) = [f for f in published.diff("1", "2").features if f.feature == "words"]
    assert changed.recomputed == 1
